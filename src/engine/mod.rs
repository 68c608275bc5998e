//! An open store that knows no project: the lock, the catalog, packs and their index, sessions and publication.
//!
//! The [catalog](Engine::catalog) is open for one call, under a lock (see `gate`), so any number of processes share a store.
//! A [session](session) takes new objects outside the lock, and [`publish`](Engine::publish) makes them count, together with
//! the rows that the caller adds, in one transaction. A reader keeps the generation in which it began (see `generations`), so
//! that a collection removes nothing that it may read.

mod background;
mod ballast;
pub(crate) mod closure;
pub(crate) mod condemned;
mod creation;
pub(crate) mod dump;
pub(crate) mod format_file;
pub(crate) mod gate;
pub(crate) mod generations;
pub(crate) mod image_id;
mod index_cache;
#[cfg(feature = "testing")]
mod late;
#[cfg(feature = "testing")]
mod machine;
mod options;
mod outside;
pub(crate) mod packs;
pub(crate) mod process;
mod publish;
pub(crate) mod session;
pub(crate) mod state_files;
mod surroundings;

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use crate::catalog::{Catalog, Poison, ReadTx, WriteTx};
use crate::disk::{Disk, UnsyncedDisk};
use crate::error::Result;
use crate::pack::generation::GenerationGuard;
use crate::pack::reader::{ObjectReader, PackReader};
use crate::task::Task;

use background::Upkeep;
use creation::folder_error;
pub(crate) use creation::{store_directory, unusable};
pub(crate) use gate::Gate;
use gate::OpenCatalog;
use generations::Generations;
use index_cache::IndexCache;
#[cfg(feature = "testing")]
pub use machine::SimulatedMachine;
#[cfg(feature = "testing")]
pub use options::Sabotage;
pub use options::{Durability, StoreOptions};
use publish::Publications;
pub(crate) use surroundings::Surroundings;

/// A store as the handles of one task see it.
#[derive(Debug)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
    pub(crate) task: Task,
}

/// An open store, which all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The store's directory, `:memory:` for one in memory.
    pub(crate) location: PathBuf,
    pub(crate) is_in_memory: bool,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) packs: Arc<PackReader>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) poison: Poison,
    pub(crate) options: StoreOptions,
    pub(crate) index: Arc<IndexCache>,
    pub(crate) holds: Generations,
    pub(crate) publications: Publications,
    pub(crate) upkeep: Upkeep,
    pub(crate) surroundings: Surroundings,
    /// Why no overlay can be mounted in the store's directory, once that was tried.
    pub(crate) why_no_overlay: Arc<OnceLock<Option<String>>>,
    /// Time and counter of the last image id given out here.
    last_image: Mutex<u64>,
}

impl Deref for Engine {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Engine {
    /// Opens the store on this disk, and makes it there on first use.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        directory: Option<PathBuf>,
        options: StoreOptions,
        surroundings: Surroundings,
    ) -> Result<Arc<Self>> {
        let is_in_memory = directory.is_none();
        let location = directory.unwrap_or_else(|| PathBuf::from(":memory:"));
        let disk: Arc<dyn Disk> = match options.durability {
            Durability::Synced => disk,
            Durability::Unsynced => Arc::new(UnsyncedDisk(disk)),
        };
        let _span = tracing::debug_span!("open", store = ?location).entered();
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
            is_in_memory,
            disk,
            packs,
            gate,
            poison,
            options,
            index,
            holds: Generations::default(),
            publications: Publications::default(),
            upkeep,
            surroundings,
            why_no_overlay: Arc::default(),
            last_image: Mutex::default(),
        });
        let engine = Arc::new(Self { shared, task });
        engine.prepare()?;
        if engine.options.exclusive {
            engine.gate.hold(&engine.task)?;
        }
        Ok(engine)
    }

    /// Returns a view of the same store whose calls are of this task.
    pub(crate) fn with_task(&self, task: &Task) -> Arc<Self> {
        Arc::new(Self { shared: Arc::clone(&self.shared), task: task.clone() })
    }

    /// Returns a view of the store that can't be cancelled, to undo what was begun.
    pub(crate) fn without_task(&self) -> Arc<Self> {
        self.with_task(&Task::unobserved())
    }

    /// Returns the catalog, for one call: the lock is held for as long as this is.
    pub(crate) fn catalog(&self) -> Result<Arc<OpenCatalog>> {
        self.gate.open(&self.task)
    }

    /// Runs `closure` in a transaction that reads.
    pub(crate) fn read<T>(&self, closure: impl Fn(&ReadTx) -> Result<T>) -> Result<T> {
        self.catalog()?.read(closure)
    }

    /// Runs `closure` in a transaction, and then what is due in the background.
    pub(crate) fn write<T>(&self, closure: impl Fn(&mut WriteTx) -> Result<T>) -> Result<T> {
        let catalog = self.catalog()?;
        let value = catalog.write(closure)?;
        self.upkeep.begin(&catalog);
        Ok(value)
    }

    /// Returns a reader of the objects that the catalog has now. Everything that it finds stays as long as `hold`.
    pub(crate) fn reader(&self, catalog: &Catalog, hold: &Arc<GenerationGuard>) -> Result<ObjectReader> {
        let (view, has_condemned) = self.index.view(catalog)?;
        self.packs.close(view.withdrawn());
        if has_condemned {
            // Packs that are gone since must not be read from an open file.
            self.packs.close(catalog.read(|tx| packs::not_sealed_or_open(tx, self.packs.open_packs()))?);
        }
        Ok(ObjectReader::new(view, Arc::clone(&self.packs), Arc::clone(hold)).with_task(&self.task))
    }
}
