//! layerstone

mod catalog;
mod disk;
pub mod error;
pub mod format;
mod host;
pub mod id;
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
pub use store::{Expected, Project, ProjectInfo, RemoveReport, Resolved, Scope, Store, StoreOptions};
pub use time::Moment;
