//! Checkouts and imports on file systems that can't hold every time: whole seconds, or bounds. Needs root, and what
//! `.ci/run` installs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstone::id::ImageId;
use layerstone::tree::Timestamp;
use layerstone::{
    CheckoutOptions, CheckoutReport, CommitOptions, Image, ImportOptions, Project, SharedFiles, Sharing,
    Store, WorkspaceOptions,
};

use crate::given::{Place, project, read, set_mtime};
use crate::reflink::Mounted;
use crate::system;

/// Whole seconds, signed 32 bits of them.
const WHOLE_SECONDS: &[&str] = &["mkfs.ext4", "-q", "-I", "128"];
/// Nanoseconds, from 1901 to 2446.
const EXT4: &[&str] = &["mkfs.ext4", "-q", "-I", "256"];
/// Nanoseconds, from 1901 to 2038.
const XFS: &[&str] = &["mkfs.xfs", "-q", "-m", "bigtime=0"];

/// As old as a change on a file system with whole seconds must be to be trusted.
const SETTLED: Duration = Duration::from_millis(4_100);

struct Given {
    project: Project,
    image: Image,
    mounted: Mounted,
    _place: Place,
}

fn at(seconds: i64, nanos: u32) -> Timestamp {
    Timestamp { seconds, nanos }
}

/// A file system, and an image with times of every kind.
fn given(make: &[&str]) -> Option<Given> {
    if !system::is_on() {
        return None;
    }
    let place = Place::new();
    let mounted = Mounted::new(&place, make)?;
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let empty = place.directory("empty", &[]);
    let empty = project.import_directory(&empty, &ImportOptions::default()).unwrap().image;
    let edit = project.find(&empty.into()).unwrap().edit().at(at(1_700_000_000, 123_456_789));
    let edit = edit.mkdir("d").write("d/nanos", "nanos").write("d/whole", vec![7; 100_000]);
    let edit = edit.symlink("d/link", "nanos").write("first", "linked").hard_link("second", "first");
    let edit = [
        ("before-1901", at(-3_000_000_000, 5)),
        ("before-1970", at(-5, 250_000_000)),
        ("after-2038", at(3_000_000_000, 1)),
        ("after-2446", at(20_000_000_000, 999_999_999)),
        ("after-2514", at(40_000_000_000, 1)),
    ]
    .into_iter()
    .fold(edit, |edit, (name, time)| edit.write(name, name).touch(name, time));
    let edit = edit.touch("d/whole", at(1_600_000_000, 0)).touch("d", at(1_650_000_000, 7));
    let image = edit.touch("/", at(1_660_000_000, 999_999_999)).commit(&CommitOptions::default()).unwrap();
    let image = project.find(&image.image.into()).unwrap();
    Some(Given { project, image, mounted, _place: place })
}

impl Given {
    fn check_out(&self, name: &str) -> (PathBuf, CheckoutReport) {
        let directory = self.mounted.path(name);
        let report = self.image.check_out(&directory, CheckoutOptions::default()).unwrap();
        (directory, report)
    }

    /// The paths in which an image differs from the first.
    fn changes(&self, image: ImageId) -> Vec<String> {
        let changes = self.image.diff(&self.project.find(&image.into()).unwrap()).unwrap();
        changes.map(|change| change.unwrap().path.to_string()).collect()
    }

    /// Commits an unchanged directory, which must be the image, and gives the paths that were read for it.
    fn examined(&self, directory: &Path) -> u64 {
        let report = self.project.commit(directory, &CommitOptions::default()).unwrap();
        assert_eq!(self.changes(report.image), Vec::<String>::new());
        assert_eq!((report.image, report.is_new), (self.image.id(), false));
        report.examined
    }
}

fn times_that_do_not_fit_are_no_changes(make: &[&str], times_unset: u64) {
    let Some(given) = given(make) else { return };
    let (directory, report) = given.check_out("checkout");
    assert_eq!(report.times_unset, times_unset, "{make:?}");
    given.examined(&directory);
    // What a commit has read is remembered in the same way.
    given.examined(&directory);
    std::thread::sleep(SETTLED);
    given.examined(&directory);
    assert_eq!(given.examined(&directory), 0, "{make:?}: what has been quiet for a while is trusted");

    // A change is a change, and of what was not changed the image's own times stay.
    fs::write(directory.join("d/nanos"), "changed").unwrap();
    set_mtime(&directory.join("after-2446"), 1_234_567_890, 0);
    let made = given.project.commit(&directory, &CommitOptions::default()).unwrap();
    assert_eq!(given.changes(made.image), ["/after-2446", "/d/nanos"], "{make:?}");
    let image = given.project.find(&made.image.into()).unwrap();
    assert_eq!(read(&image, "d/nanos").unwrap(), b"changed");
}

#[test]
fn whole_seconds_are_no_changes() {
    times_that_do_not_fit_are_no_changes(WHOLE_SECONDS, 11);
}

#[test]
fn times_beyond_the_bounds_of_ext4_are_no_changes() {
    times_that_do_not_fit_are_no_changes(EXT4, 3);
}

#[test]
fn times_beyond_the_bounds_of_xfs_are_no_changes() {
    times_that_do_not_fit_are_no_changes(XFS, 4);
}

#[test]
fn caches_on_whole_seconds_cost_no_times() {
    let Some(given) = given(WHOLE_SECONDS) else { return };
    for (sharing, cache) in [(Sharing::HardLink, "links"), (Sharing::Reflink, "blocks")] {
        for turn in ["first", "second"] {
            let directory = given.mounted.path(&format!("{cache}-{turn}"));
            let shared = SharedFiles { directory: given.mounted.path(cache), sharing };
            let options = CheckoutOptions { shared: Some(shared), ..CheckoutOptions::default() };
            let report = given.image.check_out(&directory, options).unwrap();
            // Only what has all of its attributes is shared as an inode.
            assert_eq!(report.files_shared, u64::from((sharing, turn) == (Sharing::HardLink, "second")));
            given.examined(&directory);
        }
    }
}

#[test]
fn workspaces_on_whole_seconds_lose_no_times() {
    let Some(given) = given(WHOLE_SECONDS) else { return };
    let project = project(&Store::open(given.mounted.path("store")).unwrap(), "p");
    let mut tar = Vec::new();
    given.image.export(&mut tar, &layerstone::ExportOptions::default()).unwrap();
    let image = project.import_tar(&tar[..], &ImportOptions::default()).unwrap().image;
    let image = project.find(&image.into()).unwrap();
    let workspace = image.create_workspace(&WorkspaceOptions::default()).unwrap();
    let report = workspace.commit(&CommitOptions::default()).unwrap();
    assert_eq!((report.image, report.is_new), (image.id(), false), "{:?}", workspace.info());
    fs::write(workspace.path().unwrap().join("d/nanos"), "changed").unwrap();
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap();
    let changes = image.diff(&project.find(&made.image.into()).unwrap()).unwrap();
    let changes: Vec<_> = changes.map(|change| change.unwrap().path.to_string()).collect();
    assert_eq!(changes, ["/d/nanos"]);
}

#[test]
fn checkouts_on_whole_seconds_are_trusted_by_the_second_commit_after_a_while() {
    let Some(given) = given(WHOLE_SECONDS) else { return };
    let (directory, _) = given.check_out("checkout");
    std::thread::sleep(SETTLED);
    assert!(given.examined(&directory) > 0, "it appeared within the second");
    assert_eq!(given.examined(&directory), 0);
}

#[test]
fn imports_from_whole_seconds_are_trusted_after_a_while() {
    let Some(given) = given(WHOLE_SECONDS) else { return };
    let (directory, _) = given.check_out("source");
    let import = || given.project.import_directory(&directory, &ImportOptions::default()).unwrap();
    let first = import();
    assert!(import().examined > 0, "too young to be trusted");
    std::thread::sleep(SETTLED);
    import();
    let last = import();
    assert_eq!((last.image, last.examined), (first.image, 0));
}
