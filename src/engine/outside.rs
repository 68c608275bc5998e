//! The store's own directory among the directories of the host: imports leave it out, and nothing is written into it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::{Error, Result, Subject};
use crate::host::source::SourceTree;
use crate::ingest::{Walk, WalkRules};
use crate::layout::WORKSPACES;

use super::Engine;

impl Engine {
    /// Returns the device and inode of the store's directory, none in memory.
    fn own_directory(&self) -> Option<(u64, u64)> {
        let source = SourceTree::open(&self.location).ok()?;
        source.root_stat().ok().map(|stat| (stat.device, stat.inode))
    }

    /// Returns a way through a directory of the host, around the store's own.
    pub(crate) fn walk<'s>(&self, source: &'s SourceTree, rules: WalkRules) -> Walk<'s> {
        Walk::new(source, rules, self.own_directory(), self.options.threads)
    }

    /// Refuses a destination in the store's own directory.
    pub(crate) fn check_is_outside(&self, destination: &Path) -> Result<()> {
        let folder = destination.parent().and_then(|folder| folder.canonicalize().ok());
        if folder.is_some_and(|folder| folder.starts_with(&self.location)) {
            let message = "lies in the store; name a directory outside";
            return Err(Error::invalid(Subject::Host(destination.to_owned()), message));
        }
        Ok(())
    }

    /// Refuses to read one of the store's own directories, which change under whoever reads them.
    pub(crate) fn check_is_no_part(&self, source: &Path) -> Result<()> {
        if !self.owns(source) {
            return Ok(());
        }
        let message = "is the store, or a part of it; name a directory outside";
        Err(Error::invalid(Subject::Host(source.to_owned()), message))
    }

    /// Whether a directory is the store's, or in it. Workspaces lie there, too, and are their users'.
    pub(crate) fn owns(&self, directory: &Path) -> bool {
        let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
        let (Some(store), Ok(path)) = (identity(&self.location), directory.canonicalize()) else {
            return false;
        };
        let Some(above) = path.ancestors().find(|above| identity(above) == Some(store)) else { return false };
        let in_workspaces = path.strip_prefix(above.join(WORKSPACES));
        !in_workspaces.is_ok_and(|rest| rest.iter().count() > 1)
    }
}
