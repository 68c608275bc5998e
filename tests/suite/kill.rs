//! Killed at any instant: what was acknowledged is there, and the next opener needs no help.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use layerstone::{CheckoutOptions, CommitOptions, ImportOptions, Project, Store, StoreOptions};

use crate::given::{Place, parse, project, read, reference, tags};

/// Tells a child which directory to work in.
const PLACE: &str = "LAYERSTONE_TEST_KILL";
/// And whether to hold the store all the time.
const EXCLUSIVE: &str = "LAYERSTONE_TEST_KILL_EXCLUSIVE";
const KILLS: usize = 100;

/// Commits in a loop until it is killed, and says of each commit which it was, once it is done.
#[test]
fn child() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let place = Path::new(&place);
    let exclusive = std::env::var_os(EXCLUSIVE).is_some();
    // Packs are full after a few commits, so that kills also meet new and sealed ones.
    let store =
        StoreOptions::default().pack_objects(20).exclusive(exclusive).open(place.join("store")).unwrap();
    let project = store.project(&parse("p")).unwrap();
    let directory = place.join("checkout");
    let first = next_number(&directory);
    for number in first.. {
        write_state(&directory, number);
        let options = CommitOptions { tags: tags(&[&format!("n{number}")]), ..CommitOptions::default() };
        let report = project.commit(&directory, &options).unwrap();
        let mut out = std::io::stdout().lock();
        // One write a line, so that a kill leaves no half of one that looks whole.
        out.write_all(format!("\ncommitted {} {number} .\n", report.image).as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

fn next_number(directory: &Path) -> u64 {
    fs::read_to_string(directory.join("number")).map_or(0, |text| text.parse().unwrap_or(0)) + 1
}

/// The content of each file in the state of this number.
fn state(number: u64) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::from([("number".to_owned(), number.to_string().into_bytes())]);
    files.insert(format!("of-{number}"), crate::roundtrip::noise(5_000, number));
    files
}

fn write_state(directory: &Path, number: u64) {
    for (name, bytes) in state(number) {
        // Whole or not at all, so that the next child finds a number.
        fs::write(directory.join("writing"), bytes).unwrap();
        fs::rename(directory.join("writing"), directory.join(name)).unwrap();
    }
    let _ = fs::remove_file(directory.join(format!("of-{}", number.saturating_sub(3))));
}

/// Runs a child for so long, and gives what it acknowledged: image by number.
fn run_and_kill(place: &Place, life: Duration, exclusive: bool) -> BTreeMap<u64, String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kill::child", "--nocapture", "--test-threads=1"]).env(PLACE, place.path(""));
    if exclusive {
        command.env(EXCLUSIVE, "1");
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(life);
    child.kill().unwrap();
    let (mut text, mut complaint) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "it ended by itself:\n{text}{complaint}");
    let acknowledged = text.lines().filter_map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["committed", image, number, "."] => Some((number.parse().unwrap(), image.to_owned())),
            _ => None,
        }
    });
    acknowledged.collect()
}

/// Every acknowledged commit is there, under its tag, and reads back.
fn assert_are_states(project: &Project, acknowledged: &BTreeMap<u64, String>) {
    for (number, image) in acknowledged {
        let found = project.find(&reference(&format!("n{number}"))).unwrap();
        assert_eq!(found.id().to_string(), *image, "the tag n{number}");
        for (name, bytes) in state(*number) {
            assert_eq!(read(&found, &name).unwrap(), bytes, "{name} in n{number}");
        }
    }
}

/// A store with an image of some files, checked out.
fn given() -> Place {
    let place = Place::new();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let files: Vec<_> =
        (0..200).map(|i| (format!("d{}/f{i}", i % 10), format!("file {i}").repeat(20))).collect();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    let source = place.directory("source", &files);
    let image = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let image = project.find(&image.into()).unwrap();
    image.check_out(place.path("checkout"), CheckoutOptions::default()).unwrap();
    place
}

/// A sealed pack has a segment. Whoever was killed held at most one open pack, which the next one takes over.
fn assert_nothing_is_left_behind(store: &Path) {
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(store.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let (packs, segments) = (names("packs"), names("segments"));
    let sealed = segments.iter().filter(|name| name.ends_with(".segment")).count();
    assert!(packs.len() <= sealed + 1, "{packs:?} {segments:?}");
    assert_eq!(names("checkouts").len(), 2, "one for each checkout");
}

fn survive(kills: usize, exclusive: bool) {
    let place = given();
    let mut acknowledged = BTreeMap::new();
    // A fixed sequence of lives, from too short for a first commit to long enough for several.
    let mut state = 88_172_645_463_325_252_u64;
    for kill in 0..kills {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let fresh = run_and_kill(&place, Duration::from_micros(state % 150_000), exclusive);
        let project = Store::open(place.path("store")).unwrap().project(&parse("p")).unwrap();
        assert_are_states(&project, &fresh);
        acknowledged.extend(fresh);
        if kill % 10 == 9 {
            assert_are_states(&project, &acknowledged);
        }
    }
    assert!(acknowledged.len() > kills / 2, "only {} commits were made", acknowledged.len());
    let project = Store::open(place.path("store")).unwrap().project(&parse("p")).unwrap();
    assert_are_states(&project, &acknowledged);

    // The checkout, too, went on: what it holds now commits, and comes back equal.
    let report = project.commit(place.path("checkout"), &CommitOptions::default()).unwrap();
    let last = project.find(&report.image.into()).unwrap();
    last.check_out(place.path("elsewhere"), CheckoutOptions::default()).unwrap();
    crate::compare::assert_equal(&place.path("checkout"), &place.path("elsewhere"));
    assert_nothing_is_left_behind(&place.path("store"));
    println!("{} commits survived {kills} kills", acknowledged.len());
}

#[test]
fn acknowledged_commits_survive_a_kill_at_any_instant() {
    survive(KILLS * 3 / 4, false);
}

#[test]
fn and_so_do_those_of_an_exclusive_process() {
    survive(KILLS / 4, true);
}
