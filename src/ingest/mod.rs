//! Bringing file content in: batches of neighbouring files, read, cut, hashed and compressed on every core.
//!
//! One thread takes a batch through all stages, and only the append to the pack is serial. What is held in memory
//! is a read buffer and the frames begun by each thread, and of an archive the few batches that are waiting, whatever
//! the input.

mod archive;
mod budget;
mod capture;
mod exclude;
mod listed;
mod queue;
mod report;
mod saved_image;
mod scan;
mod walk;

pub use archive::TarOptions;
pub(crate) use archive::{ArchiveTree, LayerMember, LayerTar, Tar, read_archive, read_layer};
pub(crate) use budget::Budget;
pub(crate) use capture::{ATTEMPTS, Captured, Everything, Judge, Wanted};
pub use exclude::Excludes;
pub(crate) use listed::{capture_listed, find_again};
pub use report::{NotKept, SourceReport};
pub(crate) use saved_image::refuse_directory as refuse_saved_image;
pub(crate) use scan::{Scan, Scanned};
pub use walk::Changing;
pub(crate) use walk::{Walk, WalkRules};

#[cfg(test)]
mod tests;
