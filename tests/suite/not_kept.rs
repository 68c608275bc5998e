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
        &[("a/fixed", b"x"), ("a/log", b"x"), ("b", b"x"), ("c", b"x"), ("many", b"x"), ("plain", b"x")],
    );
    let flags = [
        ("+i", "a/fixed"),
        ("+a", "a/log"),
        ("+d", "b"),
        ("+d", "c"),
        ("+P", "project"),
        ("+ASstux", "many"),
        ("+ADT", "project"),
    ];
    std::fs::create_dir(source.join("project")).unwrap();
    for (flag, name) in flags {
        run("chattr", &[flag], &source.join(name));
    }
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let always = [
        not_kept("append-only", 1, "a/log"),
        not_kept("immutable", 1, "a/fixed"),
        not_kept("no-access-times", 1, "project"),
        not_kept("no-dump", 2, "b"),
        not_kept("project-id", 1, "project"),
        not_kept("synchronous-directory", 1, "project"),
        not_kept("top-directory", 1, "project"),
    ];
    // Of files that are not read again only what costs nothing is known.
    let when_read = [
        not_kept("direct-access", 1, "many"),
        not_kept("no-tail-merging", 1, "many"),
        not_kept("secure-removal", 1, "many"),
        not_kept("synchronous", 1, "many"),
        not_kept("undeletable", 1, "many"),
    ];
    let mut expected = [&always[..], &when_read].concat();
    expected.iter_mut().filter(|kind| kind.what == "no-access-times").for_each(|kind| {
        *kind = not_kept("no-access-times", 2, "many");
    });
    expected.sort_by(|a, b| a.what.cmp(&b.what));
    for expected in [&expected[..], &always] {
        let report = project.import_directory(&source, &ImportOptions::default()).unwrap();
        assert_eq!(report.source.not_kept, expected);
    }
    run("chattr", &["+c"], &mounted(&place, "compressed", "mkfs.btrfs", &["-q"]));
    std::fs::write(place.path("compressed/file"), "x").unwrap();
    let report = project.import_directory(place.path("compressed"), &ImportOptions::default()).unwrap();
    assert_eq!(report.source.not_kept, [not_kept("compressed", 2, "")]);
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

#[test]
fn every_command_that_reads_a_directory_says_what_no_image_has() {
    let Some(cli) = crate::run::small() else { return };
    let expected = "1 path is left out of dumps (chattr +d), which no image keeps: /etc/noted";
    let said = |words: &[&str]| {
        let output = cli.run(words);
        let notes = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && notes.lines().any(|line| line == expected), "{words:?}: {notes}");
    };
    let note = |path: &Path| {
        std::fs::create_dir_all(path.join("etc")).unwrap();
        std::fs::write(path.join("etc/noted"), "text").unwrap();
        run("chattr", &["+d"], &path.join("etc/noted"));
    };
    note(&cli.path("tree"));
    said(&["import", "tree", "--tag", "noted"]);
    for words in [&["--copy"][..], &[]] {
        cli.ok(&[&["workspace", "create", "small", "--name", "w", "-q"], words].concat());
        note(Path::new(cli.ok(&["workspace", "path", "w"]).trim_end()));
        said(&["workspace", "commit", "w", "--keep"]);
        said(&["workspace", "commit", "w", "--tag", "again"]);
    }
    cli.ok(&["checkout", "small", "work"]);
    note(&cli.path("work"));
    said(&["commit", "work"]);
    std::fs::copy("/usr/bin/chattr", cli.path("tree/bin/chattr")).unwrap();
    let libraries = Command::new("ldd").arg("/usr/bin/chattr").output().unwrap();
    for word in String::from_utf8(libraries.stdout).unwrap().split_whitespace() {
        if let Some(library) = word.strip_prefix('/') {
            let to = cli.path("tree").join(library);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(word, to).unwrap();
        }
    }
    std::fs::remove_file(cli.path("tree/etc/noted")).unwrap();
    cli.ok(&["import", "tree", "--tag", "chattr", "-q"]);
    let script = "echo x > /etc/noted; chattr +d /etc/noted";
    said(&["run", "chattr", "--", "sh", "-c", script]);
    said(&["run", "chattr", "-q", "--", "sh", "-c", script]);
}
