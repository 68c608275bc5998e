//! What a directory takes on the disk.

use std::collections::HashSet;
use std::path::Path;

use crate::error::Result;
use crate::path::TreePath;

use super::source::SourceTree;
use super::stat::FileKind;

/// The bytes that the file system allocated for what is in a directory, each inode once, without what is mounted there or
/// can't be read.
pub(crate) fn allocated_bytes(path: &Path) -> Result<u64> {
    let tree = SourceTree::open(path)?;
    let mut bytes = 0;
    let mut linked = HashSet::new();
    let mut directories = vec![TreePath::root()];
    while let Some(path) = directories.pop() {
        let Ok(Some(directory)) = tree.directory(&path) else { continue };
        for listed in directory.list().unwrap_or_default() {
            let Ok(Some(found)) = directory.find(&listed.name) else { continue };
            let is_counted = found.is_linked() && !linked.insert((found.stat.device, found.stat.inode));
            if found.stat.is_mount_point || is_counted {
                continue;
            }
            bytes += found.stat.allocated_bytes;
            if found.stat.kind == FileKind::Directory {
                directories.push(found.path);
            }
        }
    }
    Ok(bytes)
}
