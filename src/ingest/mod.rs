//! Bringing file content in: batches of neighbouring files, read, cut, hashed and compressed on every core.
//!
//! One thread takes a batch through all stages, and only the append to the pack is serial. What is held in memory
//! is a read buffer and the frames begun by each thread, and of an archive the few batches that are waiting, whatever
//! the input.

mod archive;
mod budget;
mod capture;
mod listed;
mod queue;
mod scan;

pub(crate) use archive::{ArchiveTree, LayerMember, read_archive, read_layer};
pub(crate) use budget::Budget;
pub(crate) use capture::{Captured, Everything, Judge, Wanted};
pub(crate) use listed::capture_listed;
pub(crate) use scan::{Scan, Scanned};

#[cfg(test)]
mod tests;
