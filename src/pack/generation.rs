//! What keeps packs from being removed while somebody may read them.

use crate::disk::LockGuard;

/// A generation of the store that somebody works in: packs that are condemned later stay until this is dropped.
#[derive(Debug)]
pub(crate) struct GenerationGuard {
    generation: u64,
    /// None where the store may only be read: then packs may go meanwhile, and reads fail.
    _guard: Option<Box<dyn LockGuard>>,
}

impl GenerationGuard {
    pub(crate) fn new(generation: u64, guard: Option<Box<dyn LockGuard>>) -> Self {
        Self { generation, _guard: guard }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}
