//! How a store is opened.

use std::time::Duration;

use crate::task::Task;

/// What a store promises of that for which it returned `Ok`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// It is there after a power cut.
    #[default]
    Synced,
    /// It is there after the process was killed. A power cut or a crash of the system may take it, and leave the store
    /// damaged: only for stores that can be made again.
    Unsynced,
}

/// How a store's write order is broken on purpose, so that a test which must notice can show that it does.
#[cfg(feature = "testing")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Frames are written only after the catalog names them.
    PublishFirst,
    /// What a session wrote is published without the index's rows of it.
    LeaveOutIndex,
}

/// How a store is opened and what it may use. [`StoreOptions::open`] opens one.
///
/// ```no_run
/// use layerstone::StoreOptions;
/// let store = StoreOptions::default().exclusive(true).open("/var/lib/layerstone")?;
/// # Ok::<(), layerstone::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct StoreOptions {
    pub(crate) create: bool,
    pub(crate) lock_timeout: Duration,
    pub(crate) exclusive: bool,
    pub(crate) durability: Durability,
    pub(crate) level: i32,
    pub(crate) pack_bytes: u64,
    pub(crate) row_objects: u64,
    pub(crate) held_bytes: usize,
    pub(crate) cache_bytes: u64,
    pub(crate) threads: usize,
    pub(crate) directory_grace: Duration,
    pub(crate) workspace_cache_bytes: u64,
    pub(crate) task: Task,
    #[cfg(feature = "testing")]
    pub(crate) sabotage: Option<Sabotage>,
    #[cfg(feature = "testing")]
    pub(crate) upkeep_when_waited_for: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            create: true,
            lock_timeout: Duration::from_secs(30),
            exclusive: false,
            durability: Durability::Synced,
            level: 3,
            pack_bytes: 128 << 20,
            row_objects: 2 << 10,
            held_bytes: 4 << 20,
            cache_bytes: 32 << 20,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            directory_grace: Duration::from_secs(60 * 60),
            workspace_cache_bytes: 4 << 30,
            task: Task::unobserved(),
            #[cfg(feature = "testing")]
            sabotage: None,
            #[cfg(feature = "testing")]
            upkeep_when_waited_for: false,
        }
    }
}

impl StoreOptions {
    /// Whether [`open`](Self::open) makes the store where there is none, in a directory that is absent or empty and lies in one
    /// that is there. Otherwise that is [`NotFound`](crate::ErrorKind::NotFound). Default: on.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// How long a call waits for another process before it gives [`Locked`](crate::ErrorKind::Locked).
    /// Default: 30 seconds.
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.lock_timeout = limit;
        self
    }

    /// Generations the store until the last handle is dropped, instead of for one call at a time: faster, and other
    /// processes wait. Default: off.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// What is promised of that for which the store returned `Ok`. Default: [`Synced`](Durability::Synced).
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The zstd level of new frames, 1 to 19. Default: 3.
    pub fn level(mut self, level: i32) -> Self {
        self.level = level.clamp(1, 19);
        self
    }

    /// Bytes at which a pack is sealed. Default: 128 MiB.
    pub fn pack_bytes(mut self, bytes: u64) -> Self {
        self.pack_bytes = bytes.max(1);
        self
    }

    /// Objects of one pack that are found through rows of the catalog, which every process that opens the store reads,
    /// before they are moved to a segment of the index. Default: 2,048.
    pub fn row_objects(mut self, objects: u64) -> Self {
        self.row_objects = objects.max(1);
        self
    }

    /// Bytes of new frames that an import or commit holds in memory before it takes a pack of its own. One that stays
    /// below is written and published together with all that end at the same time. Default: 4 MiB.
    pub fn held_bytes(mut self, bytes: usize) -> Self {
        self.held_bytes = bytes;
        self
    }

    /// Bytes of decoded frames kept for readers. Default: 32 MiB.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// For how long a directory that was checked out or imported is remembered when it is no longer where it was: removed,
    /// or moved. A checkout that was moved is known again by its first commit from the new place; a forgotten one can still
    /// be committed by naming its base. Default: one hour.
    pub fn directory_grace(mut self, grace: Duration) -> Self {
        self.directory_grace = grace;
        self
    }

    /// Bytes on the disk of prepared files that stay when no workspace uses them, so that the next workspace on the same images
    /// costs nothing: at most those of four images, and at most so many. Default: 4 GiB.
    pub fn workspace_cache_bytes(mut self, bytes: u64) -> Self {
        self.workspace_cache_bytes = bytes;
        self
    }

    /// The task of opening the store, and of the calls of the handle that opening gives: see [`Store::with_task`]. Default:
    /// none.
    ///
    /// [`Store::with_task`]: crate::Store::with_task
    pub fn task(mut self, task: &Task) -> Self {
        self.task = task.clone();
        self
    }

    /// Breaks the write order on purpose.
    #[cfg(feature = "testing")]
    pub fn sabotage(mut self, sabotage: Sabotage) -> Self {
        self.sabotage = Some(sabotage);
        self
    }

    /// Does in the caller's thread, and only when it is waited for, what the store does in the background otherwise: so
    /// that the same calls give the same operations.
    #[cfg(feature = "testing")]
    pub fn upkeep_when_waited_for(mut self) -> Self {
        self.upkeep_when_waited_for = true;
        self
    }

    /// Threads for one import, commit or checkout. Default: the machine's parallelism.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }
}
