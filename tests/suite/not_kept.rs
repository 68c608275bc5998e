//! What an image can't have of the directory that it is made of is said. Flags need a file system that has them, and root:
//! those tests run where `LAYERSTONE_SYSTEM_TESTS=1` is set.

use std::path::Path;
use std::process::Command;

use layerstone::{CheckoutOptions, CommitOptions, ImportOptions, NotKept, Store, TreePath};

use crate::given::{Place, project};
use crate::system;

fn run(program: &str, words: &[&str], path: &Path) {
    let output = Command::new(program).args(words).arg(path).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A new file system in a file, mounted.
fn mounted(place: &Place, name: &str, mkfs: &str, words: &[&str]) -> std::path::PathBuf {
    let image = place.path(&format!("{name}.image"));
    std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    run(mkfs, words, &image);
    let target = place.directory(name, &[]);
    run("mount", &["-o", "loop", image.to_str().unwrap()], &target);
    target
}

fn not_kept(what: &'static str, paths: u64, example: &str) -> NotKept {
    NotKept { what: what.into(), paths, example: TreePath::parse(example.as_bytes()).unwrap() }
}

#[test]
fn flags_that_no_image_has_are_counted_at_each_import() {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let store = Store::open(place.path("store")).unwrap();
    let project = project(&store, "p");
    let source = mounted(&place, "source", "mkfs.ext4", &["-q", "-I", "256"]);
    crate::given::write_files(
        &source,
        &[("a/fixed", b"x"), ("a/log", b"x"), ("b", b"x"), ("c", b"x"), ("plain", b"x")],
    );
    let flags = [("+i", "a/fixed"), ("+a", "a/log"), ("+d", "b"), ("+d", "c"), ("+P", "project")];
    std::fs::create_dir(source.join("project")).unwrap();
    for (flag, name) in flags {
        run("chattr", &[flag], &source.join(name));
    }
    // Flags that change nothing that a program sees are not said.
    run("chattr", &["+A"], &source.join("plain"));
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let expected = [
        not_kept("append-only", 1, "a/log"),
        not_kept("immutable", 1, "a/fixed"),
        not_kept("no-dump", 2, "b"),
        not_kept("project-id", 1, "project"),
    ];
    for _ in 0..2 {
        let report = project.import_directory(&source, &ImportOptions::default()).unwrap();
        assert_eq!(report.source.not_kept, expected);
    }
    run("chattr", &["-ia"], &source.join("a/fixed"));
    run("chattr", &["-a"], &source.join("a/log"));
}

#[test]
fn a_commit_says_what_no_image_has_too() {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let store = Store::open(place.path("store")).unwrap();
    let project = project(&store, "p");
    let disk = mounted(&place, "disk", "mkfs.btrfs", &["-q"]);
    let source = place.directory("source", &[("a", b"a")]);
    let base = project.import_directory(&source, &ImportOptions::default()).unwrap();
    assert_eq!(base.source.not_kept, []);
    let copy = disk.join("copy");
    project.find(&base.image.into()).unwrap().check_out(&copy, CheckoutOptions::default()).unwrap();
    std::fs::create_dir(copy.join("database")).unwrap();
    run("chattr", &["+C"], &copy.join("database"));
    let report = project.commit(&copy, &CommitOptions::default()).unwrap();
    assert_eq!(report.source.not_kept, [not_kept("no-copy-on-write", 1, "database")]);
}

#[test]
fn records_of_a_tar_that_no_image_has_are_counted_by_their_keys() {
    use crate::raw_tar::{archive, file, pax};
    let flags = pax(&[("SCHILY.fflags", b"nodump,uchg"), ("atime", b"1.5"), ("mtime", b"2.5")]);
    let label = pax(&[("RHT.security.selinux", b"system_u:object_r:etc_t:s0")]);
    let tar = archive(&[flags.clone(), file("a", b"a"), flags, file("b", b"b"), label, file("c", b"c")]);
    let store = Store::in_memory().unwrap();
    let project = project(&store, "p");
    let report = project.import_tar(&tar[..], &ImportOptions::default()).unwrap();
    let expected =
        [not_kept("PAX record SCHILY.fflags", 2, "a"), not_kept("PAX record RHT.security.selinux", 1, "c")];
    assert_eq!(report.source.not_kept, expected);
    let edit = project.find(&report.image.into()).unwrap().edit().apply_tar(&tar[..]);
    let layer = edit.commit(&CommitOptions::default()).unwrap();
    assert_eq!(layer.source.not_kept, expected);
}
