//! layerstone

pub mod archive;
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
pub use store::*;
pub use time::Moment;

/// The README's examples, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
