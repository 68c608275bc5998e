//! layerstone

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
pub use store::*;
pub use time::Moment;
