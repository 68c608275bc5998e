//! Room that is kept for making room: a catalog that copies on write needs some to delete, and a collection to begin.
//!
//! A file of [`BALLAST_BYTES`] is allocated when the store is made. Only removals and collections give it up, when the disk is
//! full, and then try again; it is allocated anew after a collection.

use crate::disk::OpenMode;
use crate::error::Result;

use super::Inner;

pub(super) const BALLAST_FILE: &str = "ballast";

/// Some transactions of a catalog, and the segments that a collection writes before it frees anything.
const BALLAST_BYTES: u64 = 1 << 20;

impl Inner {
    /// Allocates the ballast where there is none and there is room: without it the store works all the same.
    pub(super) fn allocate_ballast(&self) {
        if self.disk.exists(BALLAST_FILE).unwrap_or(true) {
            return;
        }
        let allocated =
            self.disk.open(BALLAST_FILE, OpenMode::CreateNew).and_then(|file| file.allocate(BALLAST_BYTES));
        if allocated.is_err() {
            let _ = self.disk.remove(BALLAST_FILE);
        }
    }

    /// Runs what frees room; if the disk is full, once more with the ballast's.
    pub(super) fn freeing<T>(&self, run: impl Fn() -> Result<T>) -> Result<T> {
        match run() {
            Err(error) if error.is_disk_full() && self.release_ballast() => run(),
            other => other,
        }
    }

    fn release_ballast(&self) -> bool {
        self.disk.exists(BALLAST_FILE).unwrap_or(false) && self.disk.remove(BALLAST_FILE).is_ok()
    }
}
