//! What things cost, in counts that no machine changes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use layerstone::testing::{DiskLog, DiskOperation};
use layerstone::{CheckoutOptions, CommitOptions, ImportOptions, Store, StoreOptions};

use crate::given::Place;
use crate::roundtrip::noise;
use crate::system;

fn is_pack(name: &str) -> bool {
    name.starts_with("packs/")
}

/// Every fourth of some files: small ones, and some of several pieces.
fn write_files(root: &Path, generation: u64) {
    for number in (generation..300).step_by(4) {
        let folder = root.join(format!("{:02}", number / 20));
        fs::create_dir_all(&folder).unwrap();
        let len = if number / 4 % 3 == 0 { 400_000 } else { 9_000 };
        fs::write(folder.join(format!("{number:03}")), noise(len, number)).unwrap();
    }
}

#[test]
fn a_checkout_reads_each_frame_once() {
    let place = Place::new();
    let log = DiskLog::default();
    // A cache that holds three of the largest frames: it is the order that makes it enough. One thread, so that no two
    // need the same frame at the same time.
    let options = || StoreOptions::default().cache_bytes(7 << 20).threads(1);
    let store = Store::open_recorded(place.path("store"), options(), &log).unwrap();
    let project = store.default_project().unwrap();
    let source = place.directory("source", &[]);
    write_files(&source, 0);
    let mut newest = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let copy = place.path("copy");
    project.find(&newest.into()).unwrap().check_out(&copy, CheckoutOptions::default()).unwrap();
    // What a commit adds lies behind all else in the pack, and between all else in the tree: neighbours are of four
    // commits, in as many frames.
    for generation in 1..4 {
        write_files(&copy, generation);
        newest = project.commit(&copy, &CommitOptions::default()).unwrap().image;
    }
    let frames = log.take();
    let frames = frames.iter().filter(|operation| {
        matches!(operation, DiskOperation::Write { name, offset, .. } if is_pack(name) && *offset > 0)
    });
    let frames = frames.count();
    drop(project);
    drop(store);

    let store = Store::open_recorded(place.path("store"), options(), &log).unwrap();
    let image = store.default_project().unwrap().find(&newest.into()).unwrap();
    let _ = log.take_reads();
    image.check_out(place.path("again"), CheckoutOptions::default()).unwrap();
    let reads: Vec<_> = log.take_reads().into_iter().filter(|read| is_pack(&read.name)).collect();
    let distinct: BTreeSet<_> = reads.iter().collect();
    assert!(distinct.len() <= frames, "{} of {frames}", distinct.len());
    // Frames of contents are large here, and those of nodes and lists small.
    let (contents, structure): (Vec<_>, Vec<_>) = reads.iter().partition(|read| read.bytes > 64 << 10);
    let count = |reads: &[_]| (reads.len(), reads.iter().collect::<BTreeSet<_>>().len());
    let (times, frames) = count(&contents);
    assert!(frames > 15 && times == frames, "{times} reads of {frames} frames of contents");
    // A list is looked into for the place of its first chunk, and read again when its file is written.
    let (times, frames) = count(&structure);
    assert!(times <= 2 * frames, "{times} reads of {frames} frames of nodes and lists");
}

/// Bytes that a store reads to be opened and to commit one changed file.
fn read_by_a_commit(place: &Place, log: &DiskLog, turn: u64) -> u64 {
    let options = StoreOptions::default().row_objects(100);
    let store = Store::open_recorded(place.path("store"), options, log).unwrap();
    let project = store.default_project().unwrap();
    fs::write(place.path("copy/changed"), noise(2_000, turn)).unwrap();
    let _ = log.take_reads();
    project.commit(place.path("copy"), &CommitOptions::default()).unwrap();
    let read = log.take_reads().iter().map(|read| read.bytes).sum();
    store.wait_for_upkeep();
    read
}

#[test]
fn the_last_of_many_short_lived_commits_reads_as_little_as_the_first() {
    let place = Place::new();
    let log = DiskLog::default();
    let source = place.directory("source", &[("changed", b"at first")]);
    let store = Store::open(place.path("store")).unwrap();
    let project = store.default_project().unwrap();
    let image = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let image = project.find(&image.into()).unwrap();
    image.check_out(place.path("copy"), CheckoutOptions::default()).unwrap();
    drop((image, project, store));
    let read: Vec<_> = (0..300).map(|turn| read_by_a_commit(&place, &log, turn)).collect();
    // Not the largest: what the thread for upkeep has read by then is in it too.
    let median = |reads: &[u64]| {
        let mut reads = reads.to_vec();
        reads.sort_unstable();
        reads[reads.len() / 2]
    };
    let (first, last) = (median(&read[..100]), median(&read[200..]));
    assert!(last <= 2 * first, "{first} bytes by one of the first hundred, {last} by one of the last");
    let count = |folder: &str| fs::read_dir(place.path("store").join(folder)).unwrap().count();
    assert_eq!(count("packs"), 1);
    assert!((1..=6).contains(&count("segments")), "{} segments", count("segments"));
}

/// Bytes of packs that a commit of the same 25 changed files writes to an image of so many files, and the raw bytes.
fn written_by_a_commit(files: usize) -> (u64, u64) {
    let project = Store::in_memory().unwrap().create_project(&"p".parse().unwrap()).unwrap();
    let place = Place::new();
    let empty = place.directory("empty", &[]);
    let base = project.import_directory(&empty, &ImportOptions::default()).unwrap().image;
    let edit = project.find(&base.into()).unwrap().edit();
    // What makes an image larger lies beside what the smaller one has.
    let name = |number: usize| {
        format!("/part-{}/d{:03}/e{:02}/{number}", number / 10_000, number % 500, number % 37)
    };
    let edit = (0..files).fold(edit, |edit, number| edit.write(name(number), format!("content {number}")));
    let image = edit.commit(&CommitOptions::default()).unwrap().image;
    let edit = project.find(&image.into()).unwrap().edit();
    let edit = (0..25).fold(edit, |edit, number| edit.write(name(number * 397), noise(2_000, number as u64)));
    let made = edit.commit(&CommitOptions::default()).unwrap();
    (made.stored_bytes, made.new_bytes)
}

#[test]
fn a_commit_to_an_image_ten_times_larger_writes_hardly_more() {
    let (few, few_raw) = written_by_a_commit(10_000);
    let (many, many_raw) = written_by_a_commit(100_000);
    assert!(many * 5 <= few * 6, "{few} bytes stored, and {many}");
    assert!(many_raw * 5 <= few_raw * 6, "{few_raw} raw bytes, and {many_raw}");
    // 25 files and their leaves, a branch or two above each.
    let files = 25 * 2_000;
    assert!(many_raw < files + 25 * 6_000, "{many_raw} raw bytes for {files} of files");
}

/// Files that are imported and checked out to count calls.
const FILES: usize = 2_000;

/// The system calls of these names that the program made.
fn trace(calls: &str, arguments: &[&std::ffi::OsStr]) -> Vec<String> {
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "signal=none", "-e"])
        .arg(format!("trace={calls}"))
        .arg(env!("CARGO_BIN_EXE_layerstone"))
        .args(arguments)
        .output()
        .expect("strace is installed");
    let trace = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{trace}");
    // A call that another thread's interrupted in the trace has two lines.
    let calls = trace.lines().filter(|line| line.contains('(') && !line.contains("resumed>"));
    calls.map(str::to_owned).collect()
}

fn count_calls(calls: &str, arguments: &[&std::ffi::OsStr]) -> usize {
    trace(calls, arguments).len()
}

#[test]
fn only_files_of_a_page_are_asked_for_writers() {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let source =
        place.directory("source", &[("page", &[1; 4096]), ("less", &[2; 4095]), ("more", &[3; 5000])]);
    let store = place.path("store");
    let words = ["--store", store.to_str().unwrap(), "import", source.to_str().unwrap()];
    let calls = trace("fcntl", &words.map(std::ffi::OsStr::new));
    let leases = calls.iter().filter(|call| call.contains("F_SETLEASE, F_RDLCK")).count();
    assert_eq!(leases, 2, "{calls:?}");
}

#[test]
fn a_file_costs_seven_system_calls_to_import_one_to_import_again_and_five_or_two_to_check_out() {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let source = place.directory("source", &[]);
    for number in 0..FILES {
        fs::write(source.join(format!("{number:04}")), noise(500, number as u64)).unwrap();
    }
    // Files that changed less than two seconds before an import are read by the next one too.
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let words = |words: &[&str]| words.iter().map(std::ffi::OsString::from).collect::<Vec<_>>();
    let store = place.path("store");
    let store = store.to_str().unwrap();
    let (from, to) = (source.to_str().unwrap(), place.path("copy"));
    // All but what threads and memory need, so that nothing a file might cost goes uncounted; and but for the `fcntl`
    // with which a debug build checks a descriptor that it closes.
    let calls = "!futex,brk,mmap,munmap,mprotect,madvise,sched_yield,getdents64,fcntl";
    let import = words(&["--store", store, "import", from, "--tag", "t"]);
    let import = count_calls(calls, &import.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    // What the rest of the program calls, whatever the number of files.
    let rest = 1_500;
    assert!((7 * FILES..7 * FILES + rest).contains(&import), "{import} calls to import {FILES} files");
    let again = words(&["--store", store, "import", from]);
    let again = count_calls(calls, &again.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    assert!((FILES..FILES + rest).contains(&again), "{again} calls to import {FILES} files again");
    let checkout = words(&["--store", store, "checkout", "t", to.to_str().unwrap()]);
    let checkout = count_calls(calls, &checkout.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    assert!((5 * FILES..5 * FILES + rest).contains(&checkout), "{checkout} calls to check out {FILES} files");

    let cache = place.path("cache");
    let check_out = |name: &str, calls: &str| {
        let to = place.path(name);
        let words =
            words(&["--store", store, "checkout", "t", to.to_str().unwrap(), "--sharing", "hard-link"]);
        let words = words.iter().map(AsRef::as_ref).chain(["--cache".as_ref(), cache.as_os_str()]);
        trace(calls, &words.collect::<Vec<_>>())
    };
    // What is in the cache is on the disk: or a power cut could leave files of the right size and time without content.
    let fresh = check_out("fresh", "syncfs,linkat");
    let synced = fresh.iter().position(|call| call.contains("syncfs("));
    assert_eq!(synced, Some(FILES), "each file is looked for, and none is left before");
    assert!(fresh.len() > 2 * FILES);
    let shared = check_out("shared", calls).len();
    assert!((2 * FILES..2 * FILES + rest).contains(&shared), "{shared} calls to link {FILES} files");
}
