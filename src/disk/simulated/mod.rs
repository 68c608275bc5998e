//! A disk in memory that fails on demand and can lose its power.
//!
//! [`SimulatedDisk`] is what a running process sees: its page cache. It logs every operation that changes something, with
//! its bytes. [`Media`] replays such a log and knows, at each place in it, what is durable and what is not; a
//! [`DiskImage`] is what a crash at that place may leave, and a new disk can begin with it. [`Fault`]s make calls fail,
//! [`Omissions`] leave out what makes things durable, and [`Damage`] is done to images. Processes can take [`Turn`]s.

mod chance;
mod damage;
mod disk;
mod fault;
mod kept;
mod media;
mod pages;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use chance::Chance;
pub use damage::Damage;
pub use disk::SimulatedDisk;
pub use fault::{DiskCall, Fault, FaultKind};
pub use kept::Kept;
pub use media::{Choice, Media, Pick};
use pages::Pages;
pub use turn::Turn;

/// A file, whatever its names are.
pub type FileNumber = u64;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A folder.
    Folder,
    /// A file.
    File(FileNumber),
}

/// One operation that changed files or made changes durable, or a mark between them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SimulatedOperation {
    /// A file was made.
    Create {
        /// Its name.
        name: String,
        /// The file.
        file: FileNumber,
    },
    /// Bytes were written.
    Write {
        /// The file.
        file: FileNumber,
        /// Where.
        offset: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// A file was cut or extended.
    SetLen {
        /// The file.
        file: FileNumber,
        /// Its new length.
        bytes: u64,
    },
    /// A file's bytes were made durable.
    Sync {
        /// The file.
        file: FileNumber,
    },
    /// A sync of a file failed: what was not durable never will be.
    LoseUnsynced {
        /// The file.
        file: FileNumber,
    },
    /// A file got another name.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// A file got a further name.
    Link {
        /// The name.
        name: String,
        /// The file.
        file: FileNumber,
    },
    /// A name was removed.
    Remove {
        /// It.
        name: String,
    },
    /// A folder was made.
    CreateDir {
        /// Its name.
        name: String,
    },
    /// The names in a folder were made durable.
    SyncDir {
        /// The folder.
        folder: String,
    },
    /// Whoever uses the disk got so far.
    Mark(u64),
}

/// What a disk silently does not do, so that a test which must notice can show that it does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Omissions {
    /// Syncs of packs.
    pub pack_syncs: bool,
    /// Syncs of these folders.
    pub folder_syncs: &'static [&'static str],
    /// That others hold a file.
    pub holds: bool,
}

/// Files and folders at one time. Copies share their pages.
#[derive(Clone, Debug, Default)]
pub struct DiskImage {
    folders: BTreeSet<String>,
    files: BTreeMap<String, Pages>,
}

impl DiskImage {
    /// Equal for equal images, and for others by chance only.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let folders = self.folders.iter().map(|name| (name, 0));
        let files = self.files.iter().map(|(name, pages)| (name, pages.fingerprint()));
        let mut text = Vec::new();
        for (name, fingerprint) in folders.chain(files) {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(&fingerprint.to_le_bytes());
        }
        pages::fingerprint(&text)
    }

    /// Bytes of a file; none of one that is not there.
    #[must_use]
    pub fn len_of(&self, name: &str) -> u64 {
        self.files.get(name).map_or(0, Pages::len)
    }

    /// The names of its files, ascending.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}

/// The folder that a name is in.
fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}
