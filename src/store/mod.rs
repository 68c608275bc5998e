//! The face of the crate: stores, projects, images and workspaces, as their users hold them.
//!
//! A [`Store`] is a directory, and each call on it takes and releases the store's lock (see `engine`), so any number of
//! processes share a store. What takes long (reading a source, writing a checkout) happens outside the lock.

mod archive;
mod checkout;
mod commit;
mod edit;
mod image;
mod import;
mod limits;
mod lineage;
mod links;
mod list;
mod look;
mod merge;
mod project;
mod resolve;
#[cfg(feature = "testing")]
pub(crate) mod simulate;
mod tags;
pub(crate) mod workspace;

use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(any(test, feature = "testing"))]
use crate::catalog::ReadTx;
use crate::disk::{Disk, MemoryDisk};
#[cfg(feature = "testing")]
use crate::engine::SimulatedMachine;
#[cfg(test)]
use crate::engine::session::WriteSession;
use crate::engine::{Engine, Surroundings, dump, store_directory, unusable};
use crate::error::Result;
#[cfg(test)]
use crate::pack::reader::ObjectReader;
use crate::task::Task;

#[cfg(feature = "testing")]
pub use crate::engine::Sabotage;
pub use crate::engine::{Durability, StoreOptions};
pub use archive::ExportOptions;
pub use checkout::{CheckoutOptions, CheckoutReport, SharedFiles, Sharing};
pub use commit::{CommitOptions, OverlayMarks};
pub use edit::Edit;
pub use image::{Image, ImageInfo, ImageKind, LayerInfo, LazyImage};
pub use import::{ImportOptions, WriteReport};
pub use limits::ProjectLimits;
pub use lineage::{Ancestor, LineageNode};
pub use list::{ImagePage, ListOptions};
pub use look::{Difference, DifferenceKind, EntryInfo, EntryKind};
pub use merge::MergeOutcome;
pub use project::{Project, ProjectInfo};
pub use resolve::{Resolved, Scope};
pub use tags::{Expected, RemoveReport};
pub use workspace::{LeftOver, Workspace, WorkspaceInfo, WorkspaceKind, WorkspaceOptions};

/// A store of images. Cheap to clone; all clones are the same store.
///
/// ```
/// use layerstone::{Store, TagName};
/// # fn main() -> layerstone::Result<()> {
/// let store = Store::in_memory()?;
/// let project = store.create_project(&"demo".parse()?)?;
/// assert!(project.find(&"ubuntu".parse()?).unwrap_err().is_not_found());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Store(pub(crate) Arc<Engine>);

impl Store {
    /// Opens the store in this directory, or makes it there, with the default [`StoreOptions`]: see [`StoreOptions::open`].
    /// [`StoreOptions::create`] says whether one is made.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        StoreOptions::default().open(path)
    }

    /// A store in memory: as good as another until it is dropped.
    pub fn in_memory() -> Result<Self> {
        Self::on_disk(Arc::new(MemoryDisk::default()), None, StoreOptions::default(), Surroundings::default())
    }

    /// A store in this directory whose operations on its own files are recorded in `log`.
    #[cfg(any(test, feature = "testing"))]
    pub fn open_recorded(
        path: impl AsRef<Path>,
        options: StoreOptions,
        log: &crate::disk::recording::DiskLog,
    ) -> Result<Self> {
        let path = path.as_ref();
        let real = crate::disk::RealDisk::open_or_create(path).map_err(|error| unusable(path, error))?;
        let disk = crate::disk::recording::RecordingDisk::new(Arc::new(real), log.clone());
        Self::on_disk(Arc::new(disk), Some(path.to_owned()), options, Surroundings::default())
    }

    /// A store on a simulated disk and machine.
    #[cfg(feature = "testing")]
    pub fn open_simulated(
        disk: &crate::disk::simulated::SimulatedDisk,
        machine: &Arc<SimulatedMachine>,
        options: StoreOptions,
    ) -> Result<Self> {
        let surroundings = Surroundings { simulated: Some(Arc::clone(machine)) };
        Self::on_disk(Arc::new(disk.clone()), None, options, surroundings)
    }

    /// Reads all objects that there are now.
    #[cfg(test)]
    pub(crate) fn object_reader(&self) -> Result<ObjectReader> {
        let catalog = self.0.catalog()?;
        self.0.reader(&catalog, &self.0.hold(&catalog)?)
    }

    /// A session that nothing comes of.
    #[cfg(test)]
    pub(crate) fn scratch_session(&self) -> Result<WriteSession> {
        let hold = self.0.hold(&*self.0.catalog()?)?;
        self.0.begin_session(&hold).map(|(session, _)| session)
    }

    /// Bytes of the catalog's keys and values.
    #[cfg(any(test, feature = "testing"))]
    pub fn catalog_bytes(&self) -> Result<u64> {
        self.0.read(ReadTx::stored_bytes)
    }

    fn on_disk(
        disk: Arc<dyn Disk>,
        directory: Option<PathBuf>,
        options: StoreOptions,
        surroundings: Surroundings,
    ) -> Result<Self> {
        Engine::open(disk, directory, options, surroundings).map(Self)
    }

    /// Returns a handle on the same store whose calls, and those of all handles that come from it, are of this task.
    #[must_use]
    pub fn with_task(&self, task: &Task) -> Self {
        Self(self.0.with_task(task))
    }

    /// Writes the catalog's dump now: what [`Store::repair`] goes by if the catalog is lost. The store does so by itself
    /// about every minute in which it is changed, and whenever its rows have doubled, so this is for before something
    /// risky, and after removing what must not come back.
    ///
    /// Errors: [`Corrupt`](crate::ErrorKind::Corrupt) where the catalog is damaged, or older than its dump; the dump that is
    /// there stays then.
    pub fn dump_catalog(&self) -> Result<()> {
        let catalog = self.0.catalog()?;
        dump::write(&*self.0.disk, &catalog, self.0.surroundings.now())
    }

    /// Waits until what the store does in the background is done: sealing packs that are full, and merging the index.
    /// Dropping the last handle waits too.
    pub fn wait_for_upkeep(&self) {
        self.0.upkeep.wait();
    }

    /// Keeps everyone from publishing for as long as the result lives: those who want to wait.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn hold_publications(&self) -> impl Sized + '_ {
        self.0.publications.pause()
    }

    /// How many wait to be published.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn waiting_publications(&self) -> usize {
        self.0.publications.waiting()
    }

    /// The directory of the store.
    #[must_use]
    pub fn location(&self) -> &Path {
        &self.0.location
    }

    /// Returns whether a directory is the store's own, or in it, workspaces left aside: files that a program writes there may
    /// replace what the store needs, and a collection removes them.
    #[must_use]
    pub fn owns(&self, directory: impl AsRef<Path>) -> bool {
        self.0.owns(directory.as_ref())
    }
}

impl StoreOptions {
    /// Opens the store in this directory with these options. Where there is none it is made, unless
    /// [`create`](Self::create) is off; where that fails, nothing is left. A new store's directory can be entered by its owner alone, whatever the umask. Who
    /// wants to share it opens the directory to others afterwards.
    ///
    /// Errors: [`NotFound`](crate::ErrorKind::NotFound) where there is no store and none is to be made, or the directory that
    /// it would lie in is missing; [`Invalid`](crate::ErrorKind::Invalid) for a directory with other files in it;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a store of another format.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        let is_new = !path.exists();
        let disk = store_directory(path, self.create)?;
        let location = path.canonicalize().map_err(|error| unusable(path, error))?;
        Store::on_disk(Arc::new(disk), Some(location), self, Surroundings::default()).inspect_err(|_| {
            // It is empty again, unless somebody else has made a store there meanwhile.
            let _ = is_new.then(|| std::fs::remove_dir(path));
        })
    }
}

#[cfg(test)]
mod tests;
