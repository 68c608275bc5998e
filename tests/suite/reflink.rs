//! Checkouts on file systems that can share blocks: an XFS and a btrfs in files, on loop devices. Needs root, and what
//! `.ci/run` installs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstone::testing::DiskLog;
use layerstone::{
    CheckoutOptions, CheckoutReport, CommitOptions, Image, ImportOptions, SharedFiles, Sharing, Store,
    StoreOptions,
};

use crate::compare::assert_equal;
use crate::given::Place;
use crate::roundtrip::{noise, write_everything};
use crate::system;

/// A file system of its own, for as long as this lives.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// None where the machine has no loop devices.
    pub(crate) fn new(place: &Place, make: &[&str]) -> Option<Self> {
        Self::sized(place, 512 << 20, make)
    }

    pub(crate) fn sized(place: &Place, bytes: u64, make: &[&str]) -> Option<Self> {
        if !Path::new("/dev/loop-control").exists() {
            println!("not run: there are no loop devices");
            return None;
        }
        let (image, at) = (place.path("file-system"), place.path("mounted"));
        fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        fs::create_dir(&at).unwrap();
        run(make[0], make[1..].iter().map(AsRef::as_ref).chain([image.as_os_str()]));
        run("mount", ["-o".as_ref(), "loop".as_ref(), image.as_os_str(), at.as_os_str()]);
        Some(Self(at))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn used_bytes(&self) -> u64 {
        run("sync", ["-f".as_ref(), self.0.as_os_str()]);
        let found = rustix::fs::statvfs(&self.0).unwrap();
        (found.f_blocks - found.f_bfree) * found.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", [self.0.as_os_str()]);
    }
}

fn run<'a>(program: &str, words: impl IntoIterator<Item = &'a OsStr>) -> String {
    let output =
        Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const FILES: u64 = 60;
/// What they and the largest file of `write_everything` hold at least.
const CONTENT_BYTES: u64 = 40_000_000;

/// Files of 30 MB in all that neither compress nor repeat, beside one of everything.
fn write_source(source: &Path) {
    write_everything(source);
    for number in 0..FILES {
        fs::write(source.join(format!("large-{number:02}")), noise(500_000, number)).unwrap();
    }
}

/// Bytes that were read of packs.
fn pack_bytes_read(log: &DiskLog) -> u64 {
    let reads = log.take_reads();
    reads.iter().filter(|read| read.name.starts_with("packs/")).map(|read| read.bytes).sum()
}

fn checkouts_share_blocks(make: &[&str]) {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let Some(mounted) = Mounted::new(&place, make) else { return };
    let source = place.directory("source", &[]);
    write_source(&source);
    let log = DiskLog::default();
    let store = || {
        let store = Store::open_recorded(place.path("store"), StoreOptions::default(), &log).unwrap();
        store.default_project().unwrap()
    };
    let id = store().import_directory(&source, &ImportOptions::default()).unwrap().image;
    let check_out = |name: &str| -> (CheckoutReport, u64, u64) {
        // Opened anew: nothing is in memory.
        let image: Image = store().find(&id.into()).unwrap();
        let used_bytes = mounted.used_bytes();
        let _ = log.take_reads();
        let shared = SharedFiles { directory: mounted.path("cache"), sharing: Sharing::Reflink };
        let options = CheckoutOptions { shared: Some(shared), ..CheckoutOptions::default() };
        let report = image.check_out(mounted.path(name), options).unwrap();
        assert_equal(&source, &mounted.path(name));
        (report, mounted.used_bytes().saturating_sub(used_bytes), pack_bytes_read(&log))
    };
    let (first, written_bytes, read_bytes) = check_out("first");
    assert!(first.files_shared == 0 && written_bytes.min(read_bytes) > CONTENT_BYTES, "{first:?}");
    let (second, written_bytes, read_bytes) = check_out("second");
    assert!(second.files_shared > FILES, "{second:?}");
    assert!(written_bytes < CONTENT_BYTES / 4, "{written_bytes} bytes for names and inodes");
    assert!(read_bytes < 1_000_000, "{read_bytes} bytes: nodes and lists, no contents");
    let extents = run("filefrag", ["-v".as_ref(), mounted.path("second/large-07").as_os_str()]);
    assert!(extents.contains("shared"), "{extents}");

    // They are private all the same, and so are their states.
    let changed = fs::File::options().write(true).open(mounted.path("second/large-07")).unwrap();
    changed.write_all_at(b"changed in place", 100_000).unwrap();
    assert_equal(&source, &mounted.path("first"));
    let (third, ..) = check_out("third");
    assert_eq!(third.files_shared, second.files_shared);
    let project = store();
    for (name, examined) in [("first", 0), ("second", 1), ("third", 0)] {
        let report = project.commit(mounted.path(name), &CommitOptions::default()).unwrap();
        assert_eq!(report.is_new, examined > 0);
        assert!(report.examined <= examined + 1, "{name}, whose root was renamed: {report:?}");
        let again = place.path(&format!("{name}-again"));
        let image = project.find(&report.image.into()).unwrap();
        image.check_out(&again, CheckoutOptions::default()).unwrap();
        assert_equal(&mounted.path(name), &again);
    }
    drop(changed);
    a_damaged_file_is_replaced(&mounted, &check_out);
}

/// A file of the cache that was written to is neither taken nor kept.
fn a_damaged_file_is_replaced(mounted: &Mounted, check_out: &impl Fn(&str) -> (CheckoutReport, u64, u64)) {
    let list = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> =
        list(&mounted.path("cache")).flat_map(|folder| list(&folder).collect::<Vec<_>>()).collect();
    for (path, is_cut) in files.iter().take(6).zip([true, false].into_iter().cycle()) {
        let file = fs::File::options().write(true).open(path).unwrap();
        if is_cut { file.set_len(7).unwrap() } else { file.write_all_at(b"damage", 3).unwrap() }
    }
    let (all, ..) = check_out("after-damage");
    let (repaired, ..) = check_out("repaired");
    assert_eq!(repaired.files_shared, all.files_shared + 6);
}

#[test]
fn checkouts_on_xfs_share_blocks() {
    checkouts_share_blocks(&["mkfs.xfs", "-q", "-m", "reflink=1"]);
}

#[test]
fn checkouts_on_btrfs_share_blocks() {
    checkouts_share_blocks(&["mkfs.btrfs", "-q"]);
}
