//! Stores and directories to test with.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use layerstone::id::ImageId;
use layerstone::{
    Image, ImageRef, ImportOptions, Phase, Project, ProjectName, Store, TagName, Task, TreePath,
};
use tempfile::TempDir;

/// Any name, reference or path from its text.
pub(crate) fn parse<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn project(store: &Store, name: &str) -> Project {
    let name: ProjectName = parse(name);
    if name.is_public() { store.project(&name).unwrap() } else { store.create_project(&name).unwrap() }
}

pub(crate) fn reference(text: &str) -> ImageRef {
    parse(text)
}

pub(crate) fn tags(names: &[&str]) -> Vec<TagName> {
    names.iter().map(|name| parse(name)).collect()
}

/// A place for a test's store, sources and checkouts.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new directory with these files.
    pub(crate) fn directory(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let root = self.path(name);
        fs::create_dir(&root).unwrap();
        write_files(&root, files);
        root
    }

    /// Imports a directory with one file of this content: each content is an image of its own.
    pub(crate) fn import(&self, project: &Project, content: &str, names: &[&str]) -> ImageId {
        let root = self.path("imported");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir(&root).unwrap();
        fs::write(root.join("content"), content).unwrap();
        for path in [root.join("content"), root.clone()] {
            set_mtime(&path, 1_000_000_000, 0);
        }
        let options = ImportOptions { tags: tags(names), ..ImportOptions::default() };
        project.import_directory(&root, &options).unwrap().image
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        unmount_below(self.folder.path());
    }
}

/// Unmounts what a test has mounted: workspaces stay mounted until they end, and a test that fails ends none.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // The last first: it may lie in another.
    let targets = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1));
    for target in targets.filter(|target| Path::new(target).starts_with(folder)) {
        let _ = std::process::Command::new("umount").arg(target).status();
    }
}

pub(crate) fn write_files(root: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

pub(crate) fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A file's content as the image has it.
pub(crate) fn read(image: &Image, path: &str) -> layerstone::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut stream = image.read_file(&TreePath::parse(path.as_bytes()).unwrap())?;
    // What the stream reports is the store's own error.
    stream.read_to_end(&mut bytes).map_err(|error| error.downcast::<layerstone::Error>().unwrap())?;
    Ok(bytes)
}

/// A task that is cancelled when it is counted once more than so often.
pub(crate) fn cancelled_after(counts: u64) -> Task {
    let left = AtomicU64::new(counts);
    Task::watched(move |task| {
        let progress = task.progress();
        // How much there is to read is only what was there before.
        let is_within = progress.total.is_none_or(|total| progress.done <= total);
        assert!(is_within || progress.phase == Phase::Reading, "{progress:?}");
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            task.cancel();
        }
    })
}
