//! layerstone

pub mod error;
pub mod format;
pub mod id;
pub mod name;
pub mod object;
pub mod path;
pub mod tree;

pub use error::{Error, ErrorKind, Result, Subject};
pub use name::{ImageRef, OciReference, ProjectName, TagName};
pub use path::TreePath;
