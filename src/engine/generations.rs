//! Who reads what: the generations that sessions and readers hold.
//!
//! A collection that condemns packs begins a new generation. Whoever began before may have found objects in them, so a pack
//! is removed only when nobody holds a generation older than its condemnation. A hold is a shared lock on a file of the
//! generation's number: it costs no write, is seen by every process whatever namespace it is in, and ends with the process.
//! It is taken, and looked at, only under the store's lock, and in one process by one thread at a time.

use std::io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::catalog::table::Sequence;
use crate::catalog::{Catalog, ReadTables};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::layout::{GENERATIONS, generation_file};
use crate::pack::generation::GenerationGuard;
use crate::sync::lock;

use super::{Engine, folder_error};

/// The newest hold of this process, which all who begin now share.
#[derive(Debug, Default)]
pub(crate) struct Generations(Mutex<Weak<GenerationGuard>>);

impl Generations {
    /// While this is kept, nobody in this process begins to hold anything.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Weak<GenerationGuard>> {
        lock(&self.0)
    }
}

impl Engine {
    /// Generations the generation of now. Taken before anything is looked for that must stay.
    pub(crate) fn hold(&self, catalog: &Catalog) -> Result<Arc<GenerationGuard>> {
        let mut newest = self.holds.lock();
        let generation = catalog.read(|tx| tx.last(Sequence::Generation))?;
        if let Some(hold) = newest.upgrade().filter(|hold| hold.generation() == generation) {
            return Ok(hold);
        }
        let guard = match self.disk.hold(&generation_file(generation)) {
            Ok(guard) => Some(guard),
            // Whoever may not write to the store can't keep others from it.
            Err(error)
                if !catalog.is_writable()
                    && matches!(error.kind(), NotFound | PermissionDenied | ReadOnlyFilesystem) =>
            {
                None
            }
            Err(error) => return Err(self.hold_error("hold a generation", error)),
        };
        let hold = Arc::new(GenerationGuard::new(generation, guard));
        *newest = Arc::downgrade(&hold);
        Ok(hold)
    }

    /// The oldest generation that anybody holds; the one of now if nobody does. Files of older ones go. It stays true while
    /// the holds are [locked](Generations::lock).
    pub(crate) fn oldest_held(&self, catalog: &Catalog) -> Result<u64> {
        let current = catalog.read(|tx| tx.last(Sequence::Generation))?;
        let disk: &dyn Disk = &*self.disk;
        let mut oldest = current;
        for name in disk.list(GENERATIONS).map_err(|error| self.hold_error("list generations", error))? {
            let Some(generation) = name.parse().ok().filter(|generation| *generation < current) else {
                continue;
            };
            let file = generation_file(generation);
            if disk.is_held(&file).map_err(|error| self.hold_error("look who holds a generation", error))? {
                oldest = oldest.min(generation);
            } else {
                // One that stays is looked at again.
                let _ = disk.remove(&file);
            }
        }
        Ok(oldest)
    }

    /// Whether anybody holds a generation, even that of now. It stays true that nobody does while the holds are
    /// [locked](Generations::lock).
    pub(crate) fn is_any_held(&self) -> Result<bool> {
        let names =
            self.disk.list(GENERATIONS).map_err(|error| self.hold_error("list generations", error))?;
        for generation in names.iter().filter_map(|name| name.parse().ok()) {
            let is_held = self.disk.is_held(&generation_file(generation));
            if is_held.map_err(|error| self.hold_error("look who holds a generation", error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whoever takes a hold makes its file if need be, so what is not found is the folder.
    pub(crate) fn hold_error(&self, action: &str, error: std::io::Error) -> Error {
        folder_error(&self.location, GENERATIONS, action, error)
    }
}
