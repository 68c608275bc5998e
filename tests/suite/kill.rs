//! `kill -9` at random instants: what was acknowledged is there, whole, and nothing needs a helping hand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use layerstone::testing::Sabotage;
use layerstone::{
    CheckoutOptions, CommitOptions, ErrorKind, GcOptions, ImageRef, ImportOptions, Store, StoreOptions,
    TreePath,
};

const KILLS: u32 = 300;
/// How many images of the last turns are kept; of older ones each fifth.
const KEPT: u64 = 6;
const CHILD_STORE: &str = "LAYERSTONE_KILL_TEST_STORE";
const CHILD_HOLDS: &str = "LAYERSTONE_KILL_TEST_HOLDS";
const CHILD_BROKEN: &str = "LAYERSTONE_KILL_TEST_PUBLISH_FIRST";

fn content(turn: u64, file: u64) -> Vec<u8> {
    // Different in every turn, so that no frame repeats an older one's objects.
    noise(turn * 1000 + file).repeat(1 + usize::try_from(file).unwrap() * 40)
}

fn noise(mut state: u64) -> Vec<u8> {
    (0..64)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// A turn's image as a tar, if it is one that is imported.
fn tar_of(turn: u64) -> Option<Vec<u8>> {
    if !turn.is_multiple_of(3) {
        return None;
    }
    let mut tar = tar::Builder::new(Vec::new());
    for file in 0..5 {
        let bytes = content(turn, file);
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("f{file}"), bytes.as_slice()).unwrap();
    }
    Some(tar.into_inner().unwrap())
}

/// Imports, commits, moves a tag, removes and collects in a loop, and reports each once it is acknowledged. Does nothing
/// unless the parent asks.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD_STORE) else { return };
    let folder = Path::new(&folder);
    let broken = std::env::var_os(CHILD_BROKEN).is_some();
    // Packs fill after a few commits, so that kills also meet new packs, those being sealed, and the index being merged.
    let options = StoreOptions::default().row_objects(30).pack_bytes(100_000).held_bytes(20_000);
    let options = if broken { options.sabotage(Sabotage::PublishFirst) } else { options };
    let held = std::env::var_os(CHILD_HOLDS).is_some();
    let store = options.exclusive(held).open(folder.join("store")).unwrap();
    let project = store.default_project().unwrap();
    let tell = |text: String| {
        println!("acknowledged {text}");
        std::io::stdout().flush().unwrap();
    };
    let pages = project.images(&layerstone::ListOptions { limit: None, ..Default::default() }).unwrap();
    let first =
        pages.images.iter().flat_map(|image| &image.tags).filter_map(|tag| tag.as_str().strip_prefix('n'));
    let first = first.filter_map(|number| number.parse::<u64>().ok()).max().unwrap_or(0) + 1;
    // From here on it may be killed.
    tell(format!("begun {first} -"));
    for turn in first.. {
        if turn % 3 == 1 {
            let options = GcOptions { full: turn % 2 == 1, ..GcOptions::default() };
            store.collect_garbage(&options).unwrap();
            tell(format!("collected {turn} -"));
        }
        let tags: Vec<_> = [format!("n{turn}"), "newest".to_owned()].map(|tag| tag.parse().unwrap()).into();
        let image = if let Some(tar) = tar_of(turn) {
            let options = ImportOptions { tags, ..Default::default() };
            project.import_tar(tar.as_slice(), &options).unwrap().image
        } else {
            for file in 0..5 {
                std::fs::write(folder.join(format!("work/f{file}")), content(turn, file)).unwrap();
            }
            project.commit(folder.join("work"), &CommitOptions { tags, ..Default::default() }).unwrap().image
        };
        tell(format!("made {turn} {image}"));
        if let Some(old) = turn.checked_sub(KEPT).filter(|old| *old > 0 && old % 5 != 0) {
            match project.remove(&format!("n{old}").parse().unwrap(), true) {
                Ok(_) => tell(format!("removed {old} -")),
                // By the one that was killed before it said so.
                Err(error) => assert!(error.is_not_found(), "{error}"),
            }
        }
    }
}

/// What a child acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Acknowledged {
    Made(u64, String),
    Removed(u64),
    Collected,
    Begun,
}

/// Starts the child, kills it after a while, and gives what it acknowledged; nothing if it failed by itself.
fn run_and_kill(folder: &Path, after: Duration, broken: bool, held: bool) -> Option<Vec<Acknowledged>> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["kill::child", "--exact", "--nocapture"]).env(CHILD_STORE, folder);
    if broken {
        command.env(CHILD_BROKEN, "1");
    }
    if held {
        command.env(CHILD_HOLDS, "1");
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    // The time counts from the first acknowledgement, so that every child gets to work.
    while !line.contains("acknowledged") {
        line.clear();
        if output.read_line(&mut line).unwrap() == 0 {
            child.wait().unwrap();
            return None;
        }
    }
    std::thread::sleep(after);
    child.kill().unwrap();
    // One that ended by itself has failed.
    child.wait().unwrap().signal()?;
    let mut rest = line;
    output.read_to_string(&mut rest).unwrap();
    let complete = &rest[..rest.rfind('\n').map_or(0, |end| end + 1)];
    let parse = |line: &str| {
        let (_, words) = line.split_once("acknowledged ")?;
        let words: Vec<_> = words.split(' ').collect();
        let turn = words[1].parse().unwrap();
        Some(match words[0] {
            "made" => Acknowledged::Made(turn, words[2].to_owned()),
            "removed" => Acknowledged::Removed(turn),
            "collected" => Acknowledged::Collected,
            _ => Acknowledged::Begun,
        })
    };
    Some(complete.lines().filter_map(parse).collect())
}

/// An image that was made reads back as it was written.
fn check(store: &Store, turn: u64, image: &str) -> layerstone::Result<()> {
    let reference: ImageRef = format!("n{turn}").parse()?;
    let image_by_tag = store.default_project()?.find(&reference)?;
    assert_eq!(image_by_tag.id().to_string(), *image);
    for file in 0..5 {
        let mut bytes = Vec::new();
        let path = TreePath::parse(format!("f{file}").as_bytes()).unwrap();
        let read = image_by_tag.read_file(&path)?.read_to_end(&mut bytes);
        read.map_err(layerstone::Error::from_stream)?;
        assert!(bytes == content(turn, file), "turn {turn}, file {file}");
    }
    Ok(())
}

/// What there must be after all that was acknowledged.
#[derive(Default)]
struct Expected {
    images: BTreeMap<u64, String>,
    newest: u64,
    collections: u64,
}

impl Expected {
    fn take(&mut self, new: &[Acknowledged]) {
        for acknowledged in new {
            match acknowledged {
                Acknowledged::Made(turn, image) => {
                    self.newest = *turn;
                    self.images.insert(*turn, image.clone());
                }
                Acknowledged::Removed(turn) => drop(self.images.remove(turn)),
                Acknowledged::Collected => self.collections += 1,
                Acknowledged::Begun => {}
            }
        }
    }

    /// Compares with all images of the last `looked` turns. What was under way when the process was killed is there or not.
    fn check(&mut self, store: &Store, looked: u64) {
        let project = store.default_project().unwrap();
        let under_way = self.newest + 1;
        let Ok(newest) = project.find(&"newest".parse().unwrap()) else {
            assert_eq!(self.newest, 0, "nothing was made yet");
            return;
        };
        if let Ok(image) = project.find(&format!("n{under_way}").parse().unwrap()) {
            self.images.insert(under_way, image.id().to_string());
            assert_eq!(newest.id(), image.id(), "both tags or none");
            self.newest = under_way;
        }
        assert_eq!(newest.id().to_string(), self.images[&self.newest]);
        // A removal may have been under way, of the image that was next.
        for maybe in [self.newest.saturating_sub(KEPT), (self.newest + 1).saturating_sub(KEPT)] {
            if project.find(&format!("n{maybe}").parse().unwrap()).is_err() {
                self.images.remove(&maybe);
            }
        }
        for turn in self.newest.saturating_sub(looked).max(1)..=self.newest {
            if let Some(image) = self.images.get(&turn) {
                check(store, turn, image).unwrap();
            } else {
                let gone = project.find(&format!("n{turn}").parse().unwrap());
                assert!(gone.is_err_and(|error| error.is_not_found()), "{turn} was removed");
            }
        }
    }
}

fn prepare(folder: &Path) -> Store {
    let store = Store::open(folder.join("store")).unwrap();
    let project = store.default_project().unwrap();
    std::fs::create_dir(folder.join("source")).unwrap();
    for file in 0..200 {
        std::fs::write(folder.join(format!("source/f{file}")), content(0, file % 7)).unwrap();
    }
    let base = project.import_directory(folder.join("source"), &ImportOptions::default()).unwrap();
    let image = project.find(&base.image.into()).unwrap();
    image.check_out(folder.join("work"), CheckoutOptions::default()).unwrap();
    store
}

#[test]
fn killed_at_any_instant_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    drop(prepare(folder.path()));
    let mut expected = Expected::default();
    for kill in 0..KILLS {
        // Long enough for a whole collection, now and then.
        let longest = if kill % 2 == 0 { 30_000 } else { 200_000 };
        let after = Duration::from_micros(u64::from(kill * 7919 % longest));
        let new = run_and_kill(folder.path(), after, false, kill % 3 == 0)
            .expect("the child goes on where the last one ended");
        assert!(!new.is_empty());
        expected.take(&new);
        // Opened by a new process's eyes: nothing cached, nobody's lease alive.
        let store = Store::open(folder.path().join("store")).unwrap();
        expected.check(&store, 2 * KEPT);
    }
    let root = folder.path().join("store");
    let store = Store::open(&root).unwrap();
    expected.check(&store, u64::MAX);
    assert!(expected.collections > u64::from(KILLS) / 10, "{} collections", expected.collections);
    let report = store.collect_garbage(&GcOptions::default()).unwrap();
    assert_eq!((report.waiting_packs, report.damaged_packs), (0, 0));
    expected.check(&store, u64::MAX);
    let verified = store.verify().unwrap();
    assert!(verified.is_sound(), "{:?}", verified.faults);
    // Nothing is left behind: every file is one that counts.
    let files = |name: &str| std::fs::read_dir(root.join(name)).unwrap().count();
    assert_eq!(files("packs") as u64, verified.packs);
    let names = |name: &str| {
        let entries = std::fs::read_dir(root.join(name)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert!(names("segments").iter().all(|name| name.ends_with(".segment")), "{:?}", names("segments"));
    // That of now, and the one that whoever collects holds.
    assert_eq!(names("generations").len(), 2, "{:?}", names("generations"));
    let stored = verified.stored_bytes.unwrap() + 24 * verified.packs;
    let on_disk: u64 = std::fs::read_dir(root.join("packs"))
        .unwrap()
        .map(|pack| pack.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, stored, "no pack has more than what counts");
    println!("{KILLS} kills, {} images made, {} collections", expected.newest, expected.collections);
}

/// The same test finds a store that publishes before it writes.
#[test]
fn the_kill_test_notices_a_broken_write_order() {
    let folder = tempfile::tempdir().unwrap();
    drop(prepare(folder.path()));
    let is_broken = (0..KILLS).any(|kill| {
        let after = Duration::from_micros(u64::from(kill * 7919 % 50_000));
        // A child that fails by itself met what an earlier one left.
        let Some(new) = run_and_kill(folder.path(), after, true, false) else { return true };
        let store = Store::open(folder.path().join("store")).unwrap();
        // A child that met what an earlier one left may have been killed before it could say so.
        if !store.verify().is_ok_and(|report| report.is_sound()) {
            return true;
        }
        // What the child was about to acknowledge counts too: its tag is there.
        let project = store.default_project().unwrap();
        let last = new.iter().rev().find_map(|acknowledged| match acknowledged {
            Acknowledged::Made(turn, _) => Some(*turn),
            _ => None,
        });
        let next = last.map_or(1, |turn| turn + 1);
        let published = project.find(&format!("n{next}").parse().unwrap());
        let unread = published.and_then(|image| check(&store, next, &image.id().to_string()));
        matches!(unread, Err(error) if error.kind() == ErrorKind::Corrupt)
    });
    assert!(is_broken, "a broken write order was not noticed in {KILLS} kills");
}
