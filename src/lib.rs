//! layerstone keeps file-system images: import one, check it out, change it, commit only the change, name it, compare it.
//!
//! A [`Store`] is a directory that any number of processes share. A [`Project`] of it owns images and tags; the public scope
//! (`public`) is read by all projects, and a project's tag shadows the public tag of the same name. An [`Image`] is immutable.
//! Every failure is an [`Error`] with a [kind](ErrorKind) that says what the caller can do.
//!
//! ```
//! use layerstone::{CommitOptions, CheckoutOptions, ImageRef, ImportOptions, Store};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let work = std::env::temp_dir().join(format!("layerstone-doc-{}", std::process::id()));
//! std::fs::create_dir_all(work.join("source"))?;
//! std::fs::write(work.join("source/motd"), "hello")?;
//!
//! let store = Store::in_memory()?;
//! let (public, project) = (store.project(&"public".parse()?)?, store.create_project(&"demo".parse()?)?);
//! let options = ImportOptions { tags: vec!["os:1".parse()?], ..Default::default() };
//! let base = public.import_directory(work.join("source"), &options)?;
//!
//! let os: ImageRef = "os:1".parse()?;
//! project.find(&os)?.check_out(work.join("copy"), CheckoutOptions::default())?;
//! std::fs::write(work.join("copy/motd"), "bye")?;
//! let options = CommitOptions { tags: vec!["os:1".parse()?], ..Default::default() };
//! let changed = project.commit(work.join("copy"), &options)?;
//!
//! assert_eq!(project.resolve(&os)?.id, changed.image);
//! assert_eq!(public.resolve(&os)?.id, base.image);
//! assert_eq!(project.find(&os)?.info().parent, Some(base.image));
//! # std::fs::remove_dir_all(work)?;
//! # Ok(()) }
//! ```

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

#[cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, unused_imports, reason = "public through `testing`")
)]
mod archive;
mod catalog;
mod chunk;
mod disk;
mod engine;
pub mod error;
mod format;
mod host;
pub mod id;
mod ingest;
mod json;
pub mod layer;
mod layout;
mod ledger;
mod maintenance;
pub mod name;
pub mod object;
mod pack;
pub mod path;
mod store;
mod sync;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod threads;
mod time;
pub mod tree;

pub use archive::{GaveWay, Limits as ImportLimits};
pub use catalog::is_panic_contained;
pub use error::{Error, ErrorKind, FoundMarks, Remedy, Result, Subject};
pub use ingest::{Changing, Excludes, NotKept, SourceReport, TarOptions};
pub use maintenance::{
    CatalogState, DamagedImage, FoundImage, GcOptions, GcReport, LostPath, RepairOptions, RepairReport,
    SalvagedImage, VerifyReport,
};
pub use name::{ImageRef, OciReference, ProjectName, TagName, WorkspaceName};
pub use path::TreePath;
pub use store::{
    Ancestor, CheckoutOptions, CheckoutReport, CommitOptions, Difference, DifferenceKind, Durability, Edit,
    EntryInfo, EntryKind, Expected, ExportOptions, Image, ImageInfo, ImageKind, ImagePage, ImportOptions,
    LayerInfo, LazyImage, LeftOver, LineageNode, ListOptions, MergeOutcome, OverlayMarks, Project,
    ProjectInfo, ProjectLimits, RemoveReport, Resolved, Scope, SharedFiles, Sharing, Store, StoreOptions,
    Workspace, WorkspaceInfo, WorkspaceKind, WorkspaceOptions, WriteReport,
};
pub use task::{Phase, Progress, Task};
pub use time::Moment;

/// The README's examples, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
