//! What users hold: stores, projects, images.
//!
//! A [`Store`] is a directory. Its catalog is guarded by a lock that covers one call (see `gate`), so any number
//! of processes share a store; what takes long (reading a source, writing a checkout) happens outside the lock,
//! under a lease.

mod archive;
mod ballast;
mod checkout;
mod closure;
mod commit;
pub(crate) mod dump;
mod edit;
mod format_file;
mod gate;
mod gc;
mod holder;
mod holds;
mod identity;
mod image;
mod import;
mod index;
mod known;
#[cfg(feature = "testing")]
mod late;
mod limits;
mod lineage;
mod links;
mod list;
mod look;
mod merge;
mod options;
mod packs;
mod project;
mod publish;
pub(crate) mod repair;
mod resolve;
mod session;
#[cfg(feature = "testing")]
pub(crate) mod simulate;
mod surroundings;
mod tags;
mod upkeep;
mod verify;
mod workspace;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::catalog::{CATALOG_FILE, Catalog, NEW_CATALOG_FILE, Poison, ReadTx, WriteTx};
use crate::disk::{Disk, LOCK_FILE, MemoryDisk, RealDisk, UnsyncedDisk};
use crate::error::{Error, Remedy, Result, Subject};
use crate::format::FORMAT_VERSION;
use crate::host::source::SourceTree;
use crate::ingest::{Walk, WalkRules};
use crate::pack::hold::Hold;
use crate::pack::reader::{ObjectReader, PackReader};
use crate::pack::{PACKS, SEGMENTS};
use crate::path::escape_bytes;
use crate::task::Task;

pub use archive::ExportOptions;
use ballast::BALLAST_FILE;
pub use checkout::{CheckoutOptions, CheckoutReport, SharedFiles, Sharing};
pub use commit::{CommitOptions, OverlayMarks};
use dump::{DUMP_FILE, NEW_DUMP_FILE};
pub use edit::Edit;
use format_file::{FORMAT_FILE, FormatFile, NEW_FORMAT_FILE};
use gate::{Gate, OpenCatalog};
pub use gc::{GcOptions, GcReport};
use holds::{GENERATIONS, Holds};
pub use image::{Image, ImageInfo, ImageKind, LayerInfo, LazyImage};
pub use import::{ImportOptions, WriteReport};
use index::IndexCache;
pub use limits::ProjectLimits;
pub use lineage::{Ancestor, LineageNode};
pub use list::{ImagePage, ListOptions};
pub use look::{Difference, DifferenceKind, EntryInfo, EntryKind};
pub use merge::MergeOutcome;
#[cfg(feature = "testing")]
pub use options::Sabotage;
pub use options::{Durability, StoreOptions};
pub use project::{Project, ProjectInfo};
use publish::Publications;
pub use repair::{CatalogState, FoundImage, RepairOptions, RepairReport, SalvagedImage};
pub use resolve::{Resolved, Scope};
use surroundings::Surroundings;
pub use tags::{Expected, RemoveReport};
use upkeep::Upkeep;
pub use verify::{DamagedImage, LostPath, VerifyReport};
pub use workspace::{LeftOver, Workspace, WorkspaceInfo, WorkspaceKind, WorkspaceOptions};

/// The folder of the state files of directories.
pub(crate) const DIRECTORIES: &str = "directories";
/// What the creation of a store makes, besides what a file system of its own begins with.
const CREATED: [&str; 13] = [
    LOCK_FILE,
    PACKS,
    SEGMENTS,
    DIRECTORIES,
    GENERATIONS,
    BALLAST_FILE,
    NEW_CATALOG_FILE,
    CATALOG_FILE,
    NEW_DUMP_FILE,
    DUMP_FILE,
    NEW_FORMAT_FILE,
    FORMAT_FILE,
    "lost+found",
];

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
pub struct Store(Arc<Inner>);

/// A store as the handles of one task see it.
#[derive(Debug)]
pub(crate) struct Inner {
    shared: Arc<Shared>,
    task: Task,
}

/// An open store, which all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    location: PathBuf,
    disk: Arc<dyn Disk>,
    packs: Arc<PackReader>,
    gate: Arc<Gate>,
    poison: Poison,
    options: StoreOptions,
    /// None in memory.
    workspaces: Option<workspace::Folder>,
    index: Arc<IndexCache>,
    holds: Holds,
    publications: Publications,
    upkeep: Upkeep,
    surroundings: Surroundings,
    /// Time and counter of the last image id given out here.
    last_image: Mutex<u64>,
}

impl Deref for Inner {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

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
        let real = RealDisk::open_or_create(path).map_err(|error| unusable(path, error))?;
        let disk = crate::disk::recording::RecordingDisk::new(Arc::new(real), log.clone());
        Self::on_disk(Arc::new(disk), Some(path.to_owned()), options, Surroundings::default())
    }

    /// A store on a simulated disk and machine.
    #[cfg(feature = "testing")]
    pub fn open_simulated(
        disk: &crate::disk::simulated::SimulatedDisk,
        machine: &Arc<simulate::SimulatedMachine>,
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
    pub(crate) fn scratch_session(&self) -> Result<session::WriteSession> {
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
        let workspaces = directory.as_deref().map(workspace::Folder::new);
        let location = directory.unwrap_or_else(|| PathBuf::from(":memory:"));
        let disk: Arc<dyn Disk> = match options.durability {
            Durability::Synced => disk,
            Durability::Unsynced => Arc::new(UnsyncedDisk(disk)),
        };
        let poison = Poison::default();
        let packs = Arc::new(PackReader::new(Arc::clone(&disk), options.cache_bytes));
        let gate = Arc::new(Gate::new(
            Arc::clone(&disk),
            location.clone(),
            poison.clone(),
            options.lock_timeout,
            surroundings.clone(),
        ));
        let index = Arc::new(IndexCache::new(Arc::clone(&disk)));
        let upkeep = Upkeep::new(
            Arc::clone(&disk),
            Arc::clone(&gate),
            Arc::clone(&index),
            options.clone(),
            surroundings.clone(),
        );
        let task = options.task.clone();
        let shared = Arc::new(Shared {
            location,
            disk,
            packs,
            gate,
            poison,
            options,
            workspaces,
            index,
            holds: Holds::default(),
            publications: Publications::default(),
            upkeep,
            surroundings,
            last_image: Mutex::default(),
        });
        let store = Self(Arc::new(Inner { shared, task }));
        store.0.prepare()?;
        if store.0.options.exclusive {
            store.0.gate.hold(&store.0.task)?;
        }
        Ok(store)
    }

    /// Returns a handle on the same store whose calls, and those of all handles that come from it, are of this task.
    #[must_use]
    pub fn with_task(&self, task: &Task) -> Self {
        Self(self.0.with_task(task))
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
        self.0.publications.take_turn()
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
}

/// The directory of a store, which is made where it is missing if `create` says so.
fn store_directory(path: &Path, create: bool) -> Result<RealDisk> {
    let subject = || Subject::Store(path.to_owned());
    let is_absent = match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        other => {
            if !other.map_err(|error| unusable(path, error))?.is_dir() {
                return Err(Error::invalid(subject(), "is not a directory; name a store or a new directory"));
            }
            false
        }
    };
    if is_absent && !create {
        return Err(no_store(path));
    }
    RealDisk::open_or_create(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let message =
                "the directory that it is to lie in does not exist; make that first, or name another";
            Error::not_found(subject(), message)
        }
        _ => unusable(path, error),
    })
}

fn no_store(path: &Path) -> Error {
    let error = Error::not_found(Subject::Store(path.to_owned()), "no store at this path");
    error.with_remedy(Remedy::CreateStore)
}

fn unusable(path: &Path, error: std::io::Error) -> Error {
    Error::io(Subject::Store(path.to_owned()), "use this directory", error)
}

/// A failure in a folder that every store has: one that is not found was lost.
fn folder_error(store: &Path, folder: &str, action: &str, error: std::io::Error) -> Error {
    let subject = Subject::Store(store.to_owned());
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::corrupt(subject, format!("its folder '{folder}' is missing; repair the store"))
        }
        _ => Error::io(subject, action, error),
    }
}

impl StoreOptions {
    /// Opens the store in this directory with these options. Where there is none it is made, unless
    /// [`create`](Self::create) is off; a new store's directory can be entered by its owner alone, whatever the umask. Who
    /// wants to share it opens the directory to others afterwards.
    ///
    /// Errors: [`NotFound`](crate::ErrorKind::NotFound) where there is no store and none is to be made, or the directory that
    /// it would lie in is missing; [`Invalid`](crate::ErrorKind::Invalid) for a directory with other files in it;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a store of another format.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        let disk = store_directory(path, self.create)?;
        let location = path.canonicalize().map_err(|error| unusable(path, error))?;
        Store::on_disk(Arc::new(disk), Some(location), self, Surroundings::default())
    }
}

impl Inner {
    fn with_task(&self, task: &Task) -> Arc<Self> {
        Arc::new(Self { shared: Arc::clone(&self.shared), task: task.clone() })
    }

    /// Returns a view of the store that can't be cancelled, to undo what was begun.
    fn without_task(&self) -> Arc<Self> {
        self.with_task(&Task::unobserved())
    }

    /// Makes the store on first use and checks its format on every other. The file `format` comes last: a store that
    /// has it was whole once.
    fn prepare(&self) -> Result<()> {
        let io = |error| unusable(&self.location, error);
        if !self.disk.exists(FORMAT_FILE).map_err(io)? {
            self.check_is_new()?;
            if !self.options.create {
                return Err(no_store(&self.location));
            }
            // Before anything is in it; a directory that was there, too: its permissions were not meant for a store.
            self.disk.make_private().map_err(io)?;
            // Under the lock, so that two first uses at once do not meet half of each other's.
            let _lock = self.gate.lock(&self.task)?;
            if !self.disk.exists(FORMAT_FILE).map_err(io)? {
                for folder in [PACKS, SEGMENTS, DIRECTORIES, GENERATIONS] {
                    self.disk.create_dir(folder).map_err(io)?;
                }
                Catalog::create(&*self.disk)?;
                let catalog = Catalog::open(&*self.disk, Poison::default())?;
                dump::write(&*self.disk, &catalog, self.surroundings.now())?;
                format_file::write_unfinished(&*self.disk).map_err(io)?;
                self.allocate_ballast();
            }
        }
        self.check_format()
    }

    /// A directory becomes a store only if it has nothing but what an unfinished creation leaves: a mistyped name
    /// must not litter somebody's files, and what lost its `format` must not be taken for new.
    fn check_is_new(&self) -> Result<()> {
        let io = |error| unusable(&self.location, error);
        let subject = || Subject::Store(self.location.clone());
        let names = self.disk.list("").map_err(io)?;
        if let Some(foreign) = names.iter().find(|name| !CREATED.contains(&name.as_str())) {
            let foreign = escape_bytes(foreign.as_bytes());
            // Names that nobody else gives.
            let was_store = names.iter().any(|name| name == CATALOG_FILE || name == DUMP_FILE);
            let advice = if was_store {
                "a store that lost its file 'format' is made whole again by a repair"
            } else {
                "name a store or a new directory"
            };
            let message = format!("is no store, and not empty: it has '{foreign}'; {advice}");
            return Err(Error::invalid(subject(), message));
        }
        let has_packs =
            names.iter().any(|name| name == PACKS) && !self.disk.list(PACKS).map_err(io)?.is_empty();
        // Another process may just have finished.
        if has_packs && !self.disk.exists(FORMAT_FILE).map_err(io)? {
            return Err(Error::corrupt(
                subject(),
                "its file 'format' is missing, but it has packs; repair the store",
            ));
        }
        Ok(())
    }

    fn check_format(&self) -> Result<()> {
        let io = |error| unusable(&self.location, error);
        let FormatFile { version, unfinished } = FormatFile::read(&*self.disk).map_err(io)?;
        if let Some(line_bytes) = unfinished {
            format_file::finish(&*self.disk, line_bytes).map_err(io)?;
        }
        let subject = || Subject::Store(self.location.clone());
        match version {
            Some(FORMAT_VERSION) => Ok(()),
            Some(newer) => Err(Error::unsupported(
                subject(),
                format!(
                    "it has format {newer}, and this version of layerstone reads format {FORMAT_VERSION}; use a version that knows {newer}"
                ),
            )),
            None => Err(Error::corrupt(subject(), "its file 'format' does not say a store format")),
        }
    }

    /// The device and inode of the store's directory, none in memory.
    fn own_directory(&self) -> Option<(u64, u64)> {
        let source = SourceTree::open(&self.location).ok()?;
        source.root_stat().ok().map(|stat| (stat.device, stat.inode))
    }

    /// A way through a directory of the host, around the store's own.
    fn walk<'s>(&self, source: &'s SourceTree, rules: WalkRules) -> Walk<'s> {
        Walk::new(source, rules, self.own_directory(), self.options.threads)
    }

    /// Refuses a destination in the store's own directory.
    fn check_is_outside(&self, destination: &Path) -> Result<()> {
        let folder = destination.parent().and_then(|folder| folder.canonicalize().ok());
        if folder.is_some_and(|folder| folder.starts_with(&self.location)) {
            let message = "lies in the store; name a directory outside";
            return Err(Error::invalid(Subject::Host(destination.to_owned()), message));
        }
        Ok(())
    }

    /// The catalog, for one call: the lock is held for as long as this is.
    fn catalog(&self) -> Result<Arc<OpenCatalog>> {
        self.gate.open(&self.task)
    }

    fn read<T>(&self, closure: impl FnOnce(&ReadTx) -> Result<T>) -> Result<T> {
        self.catalog()?.read(closure)
    }

    /// Runs `closure` in a transaction, and then what is due in the background.
    fn write<T>(&self, closure: impl FnOnce(&mut WriteTx) -> Result<T>) -> Result<T> {
        let catalog = self.catalog()?;
        let value = catalog.write(closure)?;
        self.upkeep.begin(&catalog);
        Ok(value)
    }

    /// Reads objects as the catalog has them now. What was found under `hold` stays.
    fn reader(&self, catalog: &Catalog, hold: &Arc<Hold>) -> Result<ObjectReader> {
        let (view, has_condemned) = self.index.view(catalog)?;
        self.packs.close(view.withdrawn());
        if has_condemned {
            // Of those that went since, nothing may be left to tell.
            self.packs.close(catalog.read(|tx| packs::not_sealed_or_open(tx, self.packs.open_packs()))?);
        }
        Ok(ObjectReader::new(view, Arc::clone(&self.packs), Arc::clone(hold)).with_task(&self.task))
    }
}

#[cfg(test)]
mod tests;
