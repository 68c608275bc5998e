//! layerstone

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

pub use error::{Error, ErrorKind, Result, Subject};
pub use name::{ImageRef, OciReference, ProjectName, TagName};
pub use path::TreePath;
pub use store::{
    CheckoutOptions, CheckoutReport, CommitOptions, Difference, DifferenceKind, EntryInfo, EntryKind,
    Expected, Image, ImageInfo, ImageKind, ImagePage, ImportOptions, LayerInfo, LazyImage, ListOptions,
    Project, ProjectInfo, RemoveReport, Resolved, Scope, Store, StoreOptions, WriteReport,
};
pub use time::Moment;

/// What tests of this crate, and of its users, look at.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::disk::recording::{DiskLog, DiskOperation};
}

/// The README's examples, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
