//! Directory to image to directory: every byte and attribute comes back, and commits find every change.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use layerstone::{
    CheckoutOptions, CommitOptions, DifferenceKind, ErrorKind, ImportOptions, Project, Store, WriteReport,
};

use crate::compare::assert_equal;
use crate::given::{Place, parse, project, read, set_mtime, tags};

/// Bytes that neither compress nor repeat.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A directory with one of everything that an unprivileged user can make.
pub(crate) fn write_everything(root: &Path) {
    let odd_names: [&[u8]; 8] =
        [b"plain", b"with space", b"new\nline", b"\xff\xfe not UTF-8", b"-dash", b"*", b"\x01", b"\xc3\xa9"];
    for (i, name) in odd_names.iter().enumerate() {
        fs::write(root.join(OsStr::from_bytes(name)), noise(i * 10, i as u64)).unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(&[b'n'; 255])), "the longest name").unwrap();
    for (seed, len) in [0, 1, 63, 64, 65, 65_535, 65_536, 65_537, 10 << 20].into_iter().enumerate() {
        fs::write(root.join(format!("bytes-{len}")), noise(len, seed as u64)).unwrap();
    }
    write_sparse(&root.join("sparse"), 50 << 20);
    fs::create_dir_all(root.join("a/deep/er/directory")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::hard_link(root.join("plain"), root.join("a/linked")).unwrap();
    fs::hard_link(root.join("plain"), root.join("a/deep/linked")).unwrap();
    fs::hard_link(root.join("bytes-65537"), root.join("a/deep/er/other")).unwrap();
    symlink("../plain", root.join("a/relative")).unwrap();
    symlink("/nowhere/at/all", root.join("a/dangling")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\n"), root.join("a/odd")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), fifo, 0o622.into(), 0).unwrap();
    fs::create_dir(root.join("many")).unwrap();
    for i in 0..2_000 {
        fs::write(root.join(format!("many/file-{i}")), format!("{}", i % 100)).unwrap();
    }
    for (name, value) in [("user.one", &b"1"[..]), ("user.empty", b""), ("user.long", &[7; 1000])] {
        for path in ["with space", "a"] {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(root.join(path), name, value, flags).unwrap();
        }
    }
    for (path, mode) in [
        ("bytes-1", 0o4755),
        ("bytes-63", 0o2711),
        ("bytes-64", 0),
        ("empty", 0o1777),
        ("a/deep", 0o500),
        ("many", 0o2775),
    ] {
        set_mode(&root.join(path), mode);
    }
    for (path, seconds, nanos) in [
        ("bytes-0", 0, 1),
        ("bytes-65", 1, 999_999_999),
        ("a/dangling", 1_234_567_890, 123_456_789),
        ("fifo", 4_000_000_000, 5),
        ("bytes-1", -5, 500),
        ("empty", 1_000_000_000, 0),
    ] {
        set_mtime(&root.join(path), seconds, nanos);
    }
}

fn write_sparse(path: &Path, len: u64) {
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    file.write_all_at(b"island", 20 << 20).unwrap();
    file.write_all_at(&noise(100_000, 9), 30 << 20).unwrap();
}

/// A store, an imported directory and a checkout of it.
struct Given {
    place: Place,
    project: Project,
    imported: WriteReport,
    directory: PathBuf,
}

impl Given {
    fn new(write: impl FnOnce(&Path)) -> Self {
        let place = Place::new();
        let store = Store::open(place.path("store")).unwrap();
        let project = project(&store, "p");
        let source = place.directory("source", &[]);
        write(&source);
        let imported = project.import_directory(&source, &ImportOptions::default()).unwrap();
        let given = Self { directory: place.path("checkout"), place, project, imported };
        given.check_out(&given.imported, "checkout");
        given
    }

    fn check_out(&self, report: &WriteReport, name: &str) -> PathBuf {
        let directory = self.place.path(name);
        let image = self.project.find(&report.image.into()).unwrap();
        let written = image.check_out(&directory, CheckoutOptions::default()).unwrap();
        assert_eq!(written.entries, report.entries);
        assert_eq!(written.bytes, report.bytes);
        let unset = (written.owners_unset, written.modes_unset, written.xattrs_unset, written.omitted);
        assert_eq!(unset, (0, 0, 0, 0));
        directory
    }

    fn commit(&self) -> WriteReport {
        self.project.commit(&self.directory, &CommitOptions::default()).unwrap()
    }
}

fn few_files(root: &Path) {
    for name in ["content", "mode", "deleted", "to-directory", "linked", "quiet"] {
        fs::write(root.join(name), format!("the file {name}")).unwrap();
    }
    fs::create_dir(root.join("directory")).unwrap();
    fs::write(root.join("directory/inner"), "inner").unwrap();
    symlink("content", root.join("link")).unwrap();
}

#[test]
fn everything_comes_back() {
    let given = Given::new(write_everything);
    assert_equal(&given.place.path("source"), &given.directory);
    let sparse = fs::metadata(given.directory.join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes: {} blocks", sparse.blocks());

    let again = given.project.import_directory(&given.directory, &ImportOptions::default()).unwrap();
    assert_eq!((again.image, again.stored_bytes), (given.imported.image, 0), "a checkout imports as itself");
}

#[test]
fn an_unchanged_checkout_is_its_own_image_and_is_not_read() {
    let given = Given::new(write_everything);
    let report = given.commit();
    assert_eq!((report.image, report.is_new), (given.imported.image, false));
    assert_eq!((report.new_bytes, report.stored_bytes), (0, 0));
    assert!(
        report.examined <= 1,
        "putting it in place touches the root, and nothing else: {}",
        report.examined
    );
}

#[test]
fn every_kind_of_change_is_committed() {
    let given = Given::new(few_files);
    let at = |name: &str| given.directory.join(name);
    fs::write(at("content"), "other").unwrap();
    set_mode(&at("mode"), 0o4700);
    fs::remove_file(at("deleted")).unwrap();
    fs::hard_link(at("linked"), at("directory/another")).unwrap();
    fs::remove_file(at("to-directory")).unwrap();
    fs::create_dir(at("to-directory")).unwrap();
    fs::write(at("to-directory/new"), "new").unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("mode", at("link")).unwrap();
    let options =
        CommitOptions { tags: tags(&["next"]), comment: "six changes".into(), ..CommitOptions::default() };
    let report = given.project.commit(&given.directory, &options).unwrap();
    assert!(report.is_new);

    assert_equal(&given.directory, &given.check_out(&report, "elsewhere"));
    assert_equal(&given.place.path("source"), &given.check_out(&given.imported, "before"));
    let image = given.project.find(&parse("next")).unwrap();
    assert_eq!(image.id(), report.image);
    assert_eq!(image.info().parent, Some(given.imported.image));
    assert_eq!(image.info().comment, "six changes");
    let before = given.project.find(&given.imported.image.into()).unwrap();
    let removed: Vec<_> = before
        .diff(&image)
        .unwrap()
        .map(Result::unwrap)
        .filter(|difference| difference.kind == DifferenceKind::Removed)
        .map(|difference| difference.path.to_string())
        .collect();
    assert_eq!(removed, ["/deleted"]);
    let steps = image.history().unwrap();
    assert_eq!((steps.len(), steps[0].removed, steps[0].added), (2, 1, 2));

    let again = given.commit();
    assert_eq!((again.image, again.is_new), (report.image, false), "the checkout is one of the new image");
}

#[test]
fn a_directory_may_become_anything_and_a_group_may_fall_apart() {
    let given = Given::new(|root| {
        few_files(root);
        for name in ["g1", "directory/g2", "g3"] {
            fs::hard_link(root.join("linked"), root.join(name)).unwrap();
        }
    });
    let at = |name: &str| given.directory.join(name);
    fs::remove_dir_all(at("directory")).unwrap();
    symlink("content", at("directory")).unwrap();
    fs::remove_file(at("g1")).unwrap();
    let first = given.commit();
    assert_equal(&given.directory, &given.check_out(&first, "first"));
    fs::remove_file(at("g3")).unwrap();
    fs::write(at("g3"), "on its own").unwrap();
    fs::remove_file(at("directory")).unwrap();
    fs::write(at("directory"), "a file").unwrap();
    let second = given.commit();
    assert_equal(&given.directory, &given.check_out(&second, "second"));
    let info = given.project.find(&second.image.into()).unwrap().info().clone();
    assert_eq!(info.parent, Some(first.image));
}

#[test]
fn an_edit_that_hides_behind_its_time_is_found() {
    let given = Given::new(few_files);
    let path = given.directory.join("quiet");
    let metadata = fs::metadata(&path).unwrap();
    for round in 0..5 {
        let bytes = format!("the f1le qui{round}t");
        assert_eq!(bytes.len() as u64, metadata.len());
        // In place, so that the inode stays too.
        File::options().write(true).open(&path).unwrap().write_all_at(bytes.as_bytes(), 0).unwrap();
        set_mtime(&path, metadata.mtime(), metadata.mtime_nsec());
        let report = given.commit();
        assert!(report.is_new, "round {round}");
        let image = given.project.find(&report.image.into()).unwrap();
        assert_eq!(read(&image, "quiet").unwrap(), bytes.as_bytes());
    }
}

#[test]
fn a_copy_is_committed_on_a_named_base() {
    let given = Given::new(few_files);
    let copy = given.place.path("copy");
    assert!(
        std::process::Command::new("cp")
            .arg("-a")
            .args([&given.directory, &copy])
            .status()
            .unwrap()
            .success()
    );
    let without = given.project.commit(&copy, &CommitOptions::default()).unwrap_err();
    assert_eq!(without.kind(), ErrorKind::Invalid);
    let options = CommitOptions { base: Some(given.imported.image.into()), ..CommitOptions::default() };
    let unchanged = given.project.commit(&copy, &options).unwrap();
    assert_eq!((unchanged.image, unchanged.is_new), (given.imported.image, false));
    fs::write(copy.join("content"), "changed").unwrap();
    fs::remove_file(copy.join("deleted")).unwrap();
    let report = given.project.commit(&copy, &options).unwrap();
    assert_equal(&copy, &given.check_out(&report, "elsewhere"));
    let info = given.project.find(&report.image.into()).unwrap().info().clone();
    assert_eq!(info.parent, Some(given.imported.image));
}

#[test]
fn a_checkout_never_mixes_with_what_is_there() {
    let given = Given::new(few_files);
    let image = given.project.find(&given.imported.image.into()).unwrap();
    let options = CheckoutOptions::default();
    let error = image.check_out(&given.directory, options.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_equal(&given.place.path("source"), &given.directory);
    let empty = given.place.directory("empty", &[]);
    image.check_out(&empty, options).unwrap();
    assert_equal(&given.place.path("source"), &empty);
    let left = fs::read_dir(given.place.path("")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.as_bytes().starts_with(b".layerstone")), "{names:?}");
}

#[test]
fn the_store_can_not_be_imported_into_itself() {
    let given = Given::new(few_files);
    let import = |name| given.project.import_directory(given.place.path(name), &ImportOptions::default());
    let around = import("").unwrap();
    assert_eq!(around.source.store.unwrap().to_string(), "/store");
    assert_eq!(around.entries, 1 + 2 * given.imported.entries);
    assert_eq!(import("store").unwrap_err().kind(), ErrorKind::Invalid);
}
