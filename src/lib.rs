//! layerstone

#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_lossless,
        clippy::single_range_in_vec_init,
        clippy::large_stack_arrays,
        clippy::maybe_infinite_iter,
        clippy::unnecessary_wraps,
        reason = "test data is small and chosen"
    )
)]

pub mod archive;
mod catalog;
pub mod chunk;
mod disk;
pub mod error;
pub mod format;
mod host;
pub mod id;
mod ingest;
pub mod layer;
pub mod name;
pub mod object;
mod pack;
pub mod path;
mod store;
mod threads;
mod time;
pub mod tree;

/// What tests of a store need: a record of what it does to its own files.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::disk::recording::{DiskLog, DiskOperation};
}

pub use error::{Error, ErrorKind, Result, Subject};
pub use name::{ImageRef, OciReference, ProjectName, TagName};
pub use path::TreePath;
pub use store::{
    CheckoutOptions, CheckoutReport, CommitOptions, Difference, DifferenceKind, EntryInfo, EntryKind,
    Expected, Image, ImageInfo, ImageKind, ImagePage, ImportOptions, LayerInfo, LazyImage, ListOptions,
    Project, ProjectInfo, RemoveReport, Resolved, Scope, Store, StoreOptions, WriteReport,
};
pub use time::Moment;

/// The README's examples, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
