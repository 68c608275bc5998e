//! Room that is kept for making room: a catalog that copies on write needs some to delete, and a collection to begin.
//!
//! A file of [`BALLAST_BYTES`] is allocated when the store is made. Only removals and collections give it up, when the disk is
//! full, and then try again; it is allocated anew after a collection. While it is not there and there is no room for it,
//! nothing is imported or committed: that would take the room which the next collection needs.

use std::io;

use crate::disk::OpenMode;
use crate::error::{Error, Result, Subject};
use crate::layout::BALLAST_FILE;

use super::Engine;

/// Some transactions of a catalog, and the segments that a collection writes before it frees anything.
const BALLAST_BYTES: u64 = 1 << 20;
/// How often it is given up for one thing.
const RELEASES: usize = 3;

impl Engine {
    /// Allocates the ballast where there is none and there is room.
    pub(crate) fn allocate_ballast(&self) {
        let _ = self.try_allocate_ballast();
    }

    /// Fails with *disk full* if the ballast was given up and there is no room for it. A file system that can't allocate has
    /// none.
    pub(crate) fn require_ballast(&self) -> Result<()> {
        let io = |error| {
            let subject = Subject::Store(self.location.clone());
            Error::io(subject, "keep room for a collection; remove images, and collect", error)
        };
        let allocated = self.try_allocate_ballast().map_err(io);
        allocated.or_else(|error| if error.is_disk_full() { Err(error) } else { Ok(()) })
    }

    fn try_allocate_ballast(&self) -> io::Result<()> {
        match self.disk.open(BALLAST_FILE, OpenMode::Read).and_then(|file| file.len()) {
            // Whoever was to allocate it was killed.
            Ok(0) => self.disk.remove(BALLAST_FILE)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            there => return there.map(drop),
        }
        let file = self.disk.open(BALLAST_FILE, OpenMode::CreateNew)?;
        file.allocate(BALLAST_BYTES).inspect_err(|_| drop(self.disk.remove(BALLAST_FILE)))
    }

    /// Runs what frees room; if the disk is full, once more with the ballast's, and again if somebody who began to import
    /// allocated it anew meanwhile.
    pub(crate) fn freeing<T>(&self, run: impl Fn() -> Result<T>) -> Result<T> {
        let mut tried = run();
        for _ in 0..RELEASES {
            match &tried {
                Err(error) if error.is_disk_full() && self.release_ballast() => tried = run(),
                _ => break,
            }
        }
        tried
    }

    fn release_ballast(&self) -> bool {
        self.disk.exists(BALLAST_FILE).unwrap_or(false) && self.disk.remove(BALLAST_FILE).is_ok()
    }
}
