//! `kill -9` at random instants: what was acknowledged is there, whole, and nothing needs a helping hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use layerstone::{
    CheckoutOptions, CommitOptions, ErrorKind, ImageRef, ImportOptions, Store, StoreOptions, TreePath,
};

const KILLS: u32 = 100;
const CHILD_STORE: &str = "LAYERSTONE_KILL_TEST_STORE";
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

/// Commits in a loop and reports each turn once it is acknowledged. Does nothing unless the parent asks.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD_STORE) else { return };
    let folder = Path::new(&folder);
    let broken = std::env::var_os(CHILD_BROKEN).is_some();
    // Packs fill after a few commits, so that kills also meet new packs, those being sealed, and the index being merged.
    let options = StoreOptions::default().row_objects(30).pack_bytes(100_000).publish_first(broken);
    let store = options.open(folder.join("store")).unwrap();
    let project = store.default_project().unwrap();
    let pages = project.images(&layerstone::ListOptions { limit: None, ..Default::default() }).unwrap();
    let first =
        pages.images.iter().flat_map(|image| &image.tags).filter_map(|tag| tag.as_str().strip_prefix('n'));
    let first = first.filter_map(|number| number.parse::<u64>().ok()).max().unwrap_or(0) + 1;
    for turn in first.. {
        for file in 0..5 {
            std::fs::write(folder.join(format!("work/f{file}")), content(turn, file)).unwrap();
        }
        let options = CommitOptions { tags: vec![format!("n{turn}").parse().unwrap()], ..Default::default() };
        let image = project.commit(folder.join("work"), &options).unwrap().image;
        println!("acknowledged {turn} {image}");
        std::io::stdout().flush().unwrap();
    }
}

/// Starts the child, kills it after a while, and gives what it acknowledged; nothing if it failed by itself.
fn run_and_kill(folder: &Path, after: Duration, broken: bool) -> Option<Vec<(u64, String)>> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["kill::child", "--exact", "--nocapture"]).env(CHILD_STORE, folder);
    if broken {
        command.env(CHILD_BROKEN, "1");
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
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
    child.wait().unwrap();
    let mut rest = line;
    output.read_to_string(&mut rest).unwrap();
    let complete = &rest[..rest.rfind('\n').map_or(0, |end| end + 1)];
    let parse = |line: &str| {
        let (_, words) = line.split_once("acknowledged ")?;
        let (turn, image) = words.split_once(' ')?;
        Some((turn.parse().unwrap(), image.to_owned()))
    };
    Some(complete.lines().filter_map(parse).collect())
}

/// Everything that was acknowledged reads back as it was written.
fn check(store: &Store, acknowledged: &[(u64, String)]) -> layerstone::Result<()> {
    let project = store.default_project()?;
    for (turn, image) in acknowledged {
        let reference: ImageRef = format!("n{turn}").parse()?;
        let image_by_tag = project.find(&reference)?;
        assert_eq!(image_by_tag.id().to_string(), *image);
        for file in 0..5 {
            let mut bytes = Vec::new();
            let path = TreePath::parse(format!("f{file}").as_bytes()).unwrap();
            let read = image_by_tag.read_file(&path)?.read_to_end(&mut bytes);
            read.map_err(layerstone::Error::from_stream)?;
            assert!(bytes == content(*turn, file), "turn {turn}, file {file}");
        }
    }
    Ok(())
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
    let mut acknowledged = Vec::new();
    for kill in 0..KILLS {
        let after = Duration::from_micros(u64::from(kill * 7919 % 25_000));
        let new =
            run_and_kill(folder.path(), after, false).expect("the child goes on where the last one ended");
        assert!(!new.is_empty());
        // Opened by a new process's eyes: nothing cached, nobody's lease alive.
        let store = Store::open(folder.path().join("store")).unwrap();
        check(&store, &new).unwrap();
        acknowledged.extend(new);
    }
    check(&Store::open(folder.path().join("store")).unwrap(), &acknowledged).unwrap();
    println!("{KILLS} kills, {} acknowledged commits", acknowledged.len());
}

/// The same test finds a store that publishes before it writes.
#[test]
fn the_kill_test_notices_a_broken_write_order() {
    let folder = tempfile::tempdir().unwrap();
    drop(prepare(folder.path()));
    let is_broken = (0..KILLS).any(|kill| {
        let after = Duration::from_micros(u64::from(kill * 7919 % 25_000));
        // A child that fails by itself met what an earlier one left.
        let Some(new) = run_and_kill(folder.path(), after, true) else { return true };
        let store = Store::open(folder.path().join("store")).unwrap();
        // What the child was about to acknowledge counts too: its tag is there.
        let project = store.default_project().unwrap();
        let next = new.last().map_or(1, |(turn, _)| turn + 1);
        let published = project.find(&format!("n{next}").parse().unwrap());
        let unread = published.and_then(|image| check(&store, &[(next, image.id().to_string())]));
        matches!(unread, Err(error) if error.kind() == ErrorKind::Corrupt)
    });
    assert!(is_broken, "a broken write order was not noticed in {KILLS} kills");
}
