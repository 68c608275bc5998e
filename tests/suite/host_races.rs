//! A host that is hostile or does not keep still: odd trees, files that change while they are read, directories that are
//! swapped for links while they are written.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use layerstone::{
    CheckoutOptions, CommitOptions, EntryKind, ErrorKind, Image, ImportOptions, ListOptions, Project, Store,
    TreePath,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};

use crate::given::{Place, project};
use crate::roundtrip::noise;

/// How long others are raced with.
const RACE: Duration = Duration::from_secs(2);

fn given() -> (Place, Store, Project) {
    let place = Place::new();
    let store = Store::open(place.path("store")).unwrap();
    let project = project(&store, "p");
    (place, store, project)
}

fn find(project: &Project, directory: &Path) -> Image {
    let made = project.import_directory(directory, &ImportOptions::default()).unwrap();
    project.find(&made.image.into()).unwrap()
}

#[test]
fn what_is_no_file_is_data() {
    let (place, _, project) = given();
    let source = place.directory("source", &[]);
    drop(UnixListener::bind(source.join("socket")).unwrap());
    mknodat(CWD, source.join("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut wanted = vec![("/fifo", EntryKind::Fifo), ("/socket", EntryKind::Socket)];
    let device = rustix::fs::makedev(1, 3);
    if mknodat(CWD, source.join("null"), FileType::CharacterDevice, 0o600.into(), device).is_ok() {
        wanted.insert(1, ("/null", EntryKind::CharDevice));
    }
    let image = find(&project, &source);
    let entries = image.list(&TreePath::root()).unwrap();
    let found: Vec<_> = entries.iter().map(|entry| (entry.path.to_string(), entry.kind)).collect();
    let wanted: Vec<_> = wanted.into_iter().map(|(path, kind)| (path.to_owned(), kind)).collect();
    assert_eq!(found, wanted);
    let copy = place.path("copy");
    image.check_out(&copy, CheckoutOptions::default()).unwrap();
    assert!(!copy.join("null").exists(), "device nodes only where asked for");
}

/// Makes so many directories in each other, each with a name of 100 bytes, further down than any path can say.
fn nest(root: &Path, depth: usize) {
    let name = "d".repeat(100);
    let mut directory = openat(CWD, root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&directory, name.as_str(), 0o755.into()).unwrap();
        directory = openat(&directory, name.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
}

#[test]
fn directories_deeper_than_a_path() {
    let (place, store, project) = given();
    let source = place.directory("source", &[]);
    // In the tree a path that is just short enough, on the host one that is not.
    nest(&source, 40);
    let image = find(&project, &source);
    assert_eq!(image.info().entries, 41);
    let copy = place.path("copy");
    image.check_out(&copy, CheckoutOptions::default()).unwrap();
    assert!(!project.commit(&copy, &CommitOptions::default()).unwrap().is_new);

    let deeper = place.directory("deeper", &[]);
    nest(&deeper, 300);
    let error = project.import_directory(&deeper, &ImportOptions::default()).unwrap_err();
    assert!(error.to_string().len() < 10_000 && error.to_string().contains("4095 bytes"), "{error}");
    assert_eq!(project.images(&ListOptions::default()).unwrap().images.len(), 1);
    assert!(store.verify().unwrap().faults.is_empty());
}

/// Does `race` again and again on another thread while `work` is done again and again, for a while.
fn raced(race: impl Fn(u64) + Sync, mut work: impl FnMut(u64)) {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while !is_done.load(Ordering::Relaxed) {
                race(turn);
                turn += 1;
            }
        });
        let (begun, mut turn) = (Instant::now(), 0);
        while begun.elapsed() < RACE {
            work(turn);
            turn += 1;
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn files_that_grow_and_shrink_while_they_are_read() {
    let (place, store, project) = given();
    let source = place.directory("source", &[("still", b"still")]);
    let file = source.join("restless");
    fs::write(&file, noise(3 << 20, 1)).unwrap();
    let mut outcomes = [0, 0];
    raced(
        |turn| {
            let opened = fs::OpenOptions::new().write(true).open(&file).unwrap();
            opened.set_len((turn * 1_234_567) % (5 << 20)).unwrap();
        },
        |_| match project.import_directory(&source, &ImportOptions::default()) {
            Ok(_) => outcomes[0] += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                outcomes[1] += 1;
            }
        },
    );
    println!("{} imports, {} conflicts", outcomes[0], outcomes[1]);
    assert!(store.verify().unwrap().faults.is_empty());
}

#[test]
fn nothing_is_written_through_links_that_take_the_place_of_directories() {
    let (place, _, project) = given();
    let names: Vec<_> = (0..400).map(|file| format!("a/b/{}/file-{file}", file % 8)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let image = find(&project, &place.directory("source", &files));
    // It has what a way through a link would lead to.
    let canary = place.directory("canary", &[("b/3/precious", b"precious")]);
    // The destination's parent, and where it is while it is away.
    let (parent, away) = (place.path("parent"), place.path("away"));
    fs::create_dir_all(parent.join("inner")).unwrap();
    let (mut written, swapped) = (0, AtomicU64::new(0));
    let mut refused = BTreeMap::new();
    raced(
        |turn| {
            std::thread::sleep(Duration::from_micros(turn * 7_919 % 3_000));
            if turn / 100 % 2 == 1 {
                return;
            }
            if turn % 4 == 0 && fs::rename(&parent, &away).is_ok() {
                let _ = symlink(&canary, &parent);
                std::thread::yield_now();
                let _ = fs::remove_file(&parent);
                fs::rename(&away, &parent).unwrap();
            }
            // What is half-written there is called something, and has directories that others can take away.
            for entry in fs::read_dir(parent.join("inner")).into_iter().flatten().flatten() {
                let below = entry.path().join(["a", "a/b", "a/b/3"][usize::try_from(turn % 3).unwrap()]);
                // Not what an earlier link leads to.
                let is_there = fs::canonicalize(&below).is_ok_and(|real| real == below);
                if is_there && fs::rename(&below, entry.path().join(format!("taken-{turn}"))).is_ok() {
                    swapped.fetch_add(u64::from(symlink(&canary, &below).is_ok()), Ordering::Relaxed);
                }
            }
        },
        |turn| match image.check_out(parent.join(format!("inner/{turn}")), CheckoutOptions::default()) {
            Ok(_) => written += 1,
            Err(error) => *refused.entry(error.message().to_owned()).or_insert(0) += 1,
        },
    );
    println!("{written} checkouts, {refused:?}, {swapped:?} directories swapped");
    assert!(swapped.into_inner() > 0 && written + refused.values().sum::<u64>() > 5);
    let mut found = Vec::new();
    for directory in ["", "b", "b/3"] {
        let entries = fs::read_dir(canary.join(directory)).unwrap();
        found.extend(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
    }
    assert_eq!(found, ["b", "3", "precious"], "nothing is written outside, and nothing removed");
}
