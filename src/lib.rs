//! layerstone

pub mod archive;
pub mod error;
pub mod format;
pub mod id;
pub mod object;
pub mod path;
pub mod tree;

pub use error::{Error, ErrorKind, Result, Subject};
pub use path::TreePath;
