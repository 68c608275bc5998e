//! Whether two directories are equal in everything that an image keeps.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// One path's attributes and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The least name of the same inode.
    first_name: PathBuf,
}

impl Seen {
    /// The same in one line.
    pub(crate) fn summary(&self) -> String {
        let Self { kind, mode, owner, mtime, content, xattrs, first_name } = self;
        let content = content.len();
        format!("{kind} {mode:o} {owner:?} {mtime:?} {content} bytes {xattrs:?} {first_name:?}")
    }
}

/// Everything below a directory, itself included, by path.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut paths = vec![PathBuf::new()];
    let mut pending = paths.clone();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                pending.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    let mut first_names = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for path in paths {
        let host = root.join(&path);
        let metadata = fs::symlink_metadata(&host).unwrap();
        let first_name = first_names.entry(metadata.ino()).or_insert(path.clone()).clone();
        seen.insert(path, look(&host, &metadata, first_name));
    }
    seen
}

fn look(host: &Path, metadata: &fs::Metadata, first_name: PathBuf) -> Seen {
    let kind = metadata.file_type();
    let (kind, content) = match kind {
        kind if kind.is_dir() => ("directory", Vec::new()),
        kind if kind.is_file() => ("file", fs::read(host).unwrap()),
        kind if kind.is_symlink() => {
            ("symlink", fs::read_link(host).unwrap().as_os_str().as_bytes().to_vec())
        }
        kind if kind.is_fifo() => ("fifo", Vec::new()),
        _ => ("other", metadata.rdev().to_le_bytes().to_vec()),
    };
    Seen {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        content,
        xattrs: user_xattrs(host),
        first_name,
    }
}

fn user_xattrs(host: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut buf = vec![0; 64 << 10];
    let Ok(len) = rustix::fs::llistxattr(host, &mut buf) else { return BTreeMap::new() };
    let names = buf[..len].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(host, name, &mut value).unwrap();
        value[..len].to_vec()
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// Fails, naming the paths, unless the directories are equal.
pub(crate) fn assert_equal(a: &Path, b: &Path) {
    let (a, b) = (snapshot(a), snapshot(b));
    let names = a.keys().chain(b.keys());
    let differing: std::collections::BTreeSet<_> =
        names.filter(|path| a.get(*path) != b.get(*path)).collect();
    let show = |seen: Option<&Seen>| {
        let short =
            seen.cloned().map(|seen| Seen { content: seen.content.into_iter().take(20).collect(), ..seen });
        format!("{short:?}")
    };
    let report: Vec<_> = differing
        .iter()
        .map(|path| format!("{}:\n  {}\n  {}", path.display(), show(a.get(*path)), show(b.get(*path))))
        .collect();
    assert!(report.is_empty(), "the directories differ:\n{}", report.join("\n"));
}
