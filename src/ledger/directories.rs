//! What the store remembers of directories that it wrote or read: a row for each, found by the device and inode, and a state
//! (see `host::state`), so that what is as it was need not be read again.
//!
//! A state is a compressed file (see `engine::state_files`) and, as long as they are small, the segments that came since as
//! rows. A checkout's file is durable before it counts: it alone knows what could not be set. That of an
//! imported directory only saves time, and one that is lost or damaged is no loss.
//!
//! The file of a checkout begins with a zstd frame that readers skip, which has its row as it was then: should the catalog be
//! lost, a repair names the checkout by it. The row itself can't come back so, since segments may have come after it.

use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::record::{DirectoryRecord, DirectoryUse, ImageRecord, ImageVersion};
use crate::catalog::table::{Directories, DirectoryAppended, DirectoryPlaces, Sequence, key_bytes};
use crate::catalog::{Direction, ReadTables, WriteTx};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result, Subject};
use crate::host::source::SourceTree;
use crate::host::stat::Stat;
use crate::host::state::State;
use crate::id::{DirectoryId, ImageId, ProjectId};
use crate::layout::state_file;
use crate::time::Moment;

use crate::engine::Engine;
use crate::engine::state_files::{self, StateFile};

/// Rows that are looked at for abandoned directories when one is added: more than one, so their number falls.
const LOOKED_AT: usize = 64;

/// What the store remembers of a directory.
pub(crate) struct KnownDirectory {
    pub(crate) id: DirectoryId,
    pub(crate) record: DirectoryRecord,
}

/// What an import or a commit learned of the directory that it read.
pub(crate) struct StateUpdate {
    /// Where it is, and what it is to the store.
    pub(crate) place: DirectoryPlace,
    pub(crate) change: StateChange,
    /// Others that are no longer there.
    pub(crate) abandoned: Vec<KnownDirectory>,
}

/// A directory of the host, and what it is to the store.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryPlace {
    pub(crate) usage: DirectoryUse,
    pub(crate) project: ProjectId,
    /// Its absolute path.
    pub(crate) directory: Vec<u8>,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) born_ns: u64,
}

/// What becomes of a state.
pub(crate) enum StateChange {
    /// A segment is added to what was known.
    Append(KnownDirectory, Vec<u8>),
    /// All of it is written anew; what was known of a directory that is not new goes.
    Whole(Option<KnownDirectory>, Arc<StateFile>),
}

impl DirectoryPlace {
    /// The directory at this path, which has this metadata.
    pub(crate) fn new(
        usage: DirectoryUse,
        project: ProjectId,
        directory: &Path,
        stat: &Stat,
    ) -> Result<Self> {
        let absolute = std::path::absolute(directory)
            .map_err(|error| Error::io(Subject::Host(directory.to_owned()), "find it", error))?;
        let directory = absolute.into_os_string().into_vec();
        Ok(Self { usage, project, directory, device: stat.device, inode: stat.inode, born_ns: born_ns(stat) })
    }

    /// The row of this directory, seen now and equal to an image.
    pub(crate) fn record(&self, equal: &ImageVersion, now: Moment) -> DirectoryRecord {
        let Self { usage, project, ref directory, device, inode, born_ns } = *self;
        DirectoryRecord {
            usage,
            project,
            base: equal.image,
            base_root: equal.root,
            base_layer: equal.layer,
            directory: directory.clone(),
            device,
            inode,
            born_ns,
            state_bytes: 0,
            unpacked_state_bytes: 0,
            appended: 0,
            appended_bytes: 0,
            seen_ms: now.unix_ms(),
        }
    }
}

impl KnownDirectory {
    /// What is known of the directory with this metadata, as far as it is put to this use.
    pub(crate) fn find(tx: &impl ReadTables, stat: &Stat, usage: DirectoryUse) -> Result<Option<Self>> {
        let place = ((stat.device, stat.inode), usage);
        let Some(id) = tx.get::<DirectoryPlaces>(&place)? else { return Ok(None) };
        let record = tx.get::<Directories>(&id)?;
        Ok(record.filter(|record| record.born_ns == born_ns(stat)).map(|record| Self { id, record }))
    }

    fn damaged(&self, what: &str) -> Error {
        let message = format!("the store's state of this checkout {what}; commit it naming its base");
        Error::corrupt(Subject::Host(self.path()), message)
    }

    /// Where the directory was when it was last seen.
    pub(crate) fn path(&self) -> PathBuf {
        std::ffi::OsStr::from_bytes(&self.record.directory).into()
    }

    fn open_state(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>> {
        let open = || {
            let file = disk.open(&state_file(self.id), OpenMode::Read)?;
            if file.len()? < self.record.state_bytes {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            Ok(file)
        };
        open().map_err(|error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => self.damaged("is missing"),
            std::io::ErrorKind::UnexpectedEof => self.damaged("is cut short"),
            _ => Error::io(Subject::Host(self.path()), "read the store's state of it", error),
        })
    }

    /// Fails with *corrupt* unless the state has as many bytes as it must.
    pub(crate) fn measure_state(&self, disk: &dyn Disk) -> Result<()> {
        self.open_state(disk).map(drop)
    }

    /// What the state says, its file and the segments that came since.
    pub(crate) fn load_state(
        &self,
        disk: &dyn Disk,
        appended: impl Iterator<Item = Vec<u8>>,
    ) -> Result<State> {
        let mut packed = vec![0; usize::try_from(self.record.state_bytes).unwrap_or(usize::MAX)];
        let read = self.open_state(disk)?.read_at(&mut packed, 0);
        read.map_err(|error| Error::io(Subject::Host(self.path()), "read the store's state of it", error))?;
        state_files::row_in(self.id, &packed).map_err(|_| self.damaged("has a damaged row"))?;
        let unpacked_bytes = usize::try_from(self.record.unpacked_state_bytes).unwrap_or(usize::MAX);
        let unpacked = zstd::bulk::decompress(&packed, unpacked_bytes);
        let mut bytes = unpacked.map_err(|_| self.damaged("can't be unpacked"))?;
        bytes.extend(appended.flatten());
        State::load(&bytes).map_err(|error| self.damaged(&error.to_string()))
    }

    /// The image that the directory equalled.
    pub(crate) fn base(&self) -> ImageId {
        self.record.base
    }

    /// Whether its directory is certainly not where it was.
    fn is_abandoned(&self) -> bool {
        let directory = Path::new(std::ffi::OsStr::from_bytes(&self.record.directory));
        match SourceTree::open(directory).and_then(|tree| tree.root_stat()) {
            Ok(stat) => {
                (stat.device, stat.inode, born_ns(&stat))
                    != (self.record.device, self.record.inode, self.record.born_ns)
            }
            Err(error) => error.is_not_found(),
        }
    }
}

/// Removes what the catalog knows of a directory, but for its place.
fn remove_rows(tx: &mut WriteTx, id: DirectoryId) -> Result<()> {
    for (key, _) in tx.collect::<DirectoryAppended>(&key_bytes(&id))? {
        tx.remove::<DirectoryAppended>(&key)?;
    }
    tx.remove::<Directories>(&id).map(drop)
}

/// Returns the checkout whose state a file has, if the file says so and the checkout is still there.
pub(crate) fn checkout_of(disk: &dyn Disk, id: DirectoryId) -> std::io::Result<Option<KnownDirectory>> {
    let known = state_files::row_of(disk, id)?.map(|record| KnownDirectory { id, record });
    Ok(known.filter(|known| is_precious(known.record.usage) && !known.is_abandoned()))
}

/// Whether a lost state is a loss.
pub(crate) fn is_precious(usage: DirectoryUse) -> bool {
    usage == DirectoryUse::Checkout
}

impl Engine {
    /// Records a directory with a new state file, and gives the one that it replaces, whose file may go once this is
    /// durable.
    pub(crate) fn add_directory(
        tx: &mut WriteTx,
        record: DirectoryRecord,
        state: &StateFile,
    ) -> Result<Option<DirectoryId>> {
        let (id, state_bytes, unpacked_state_bytes) = state.take_number(tx)?;
        let record = DirectoryRecord { state_bytes, unpacked_state_bytes, ..record };
        let place = ((record.device, record.inode), record.usage);
        // The inode was another directory's before, which is gone, or is this one's with an older state.
        let old = tx.get::<DirectoryPlaces>(&place)?;
        if let Some(old) = old {
            remove_rows(tx, old)?;
        }
        tx.put::<DirectoryPlaces>(&place, &id)?;
        tx.put::<Directories>(&id, &record)?;
        Ok(old)
    }

    /// Makes the directory one that equals `image`. Gives those whose state files may go once this is durable.
    pub(crate) fn advance_directory(
        &self,
        tx: &mut WriteTx,
        update: &StateUpdate,
        image: &ImageRecord,
    ) -> Result<Vec<DirectoryId>> {
        let StateUpdate { place, change, abandoned } = update;
        let mut gone = self.forget_abandoned(tx, abandoned)?;
        let equal = ImageVersion::from(image);
        if let StateChange::Append(known, _) | StateChange::Whole(Some(known), _) = change
            && tx.get::<Directories>(&known.id)?.as_ref() != Some(&known.record)
        {
            // Of an imported directory the other's state is as good.
            if is_precious(place.usage) {
                let directory = std::ffi::OsStr::from_bytes(&place.directory);
                let message = "another commit of this directory came first; commit again";
                return Err(Error::conflict(Subject::Host(directory.into()), message));
            }
            return Ok(gone);
        }
        match change {
            StateChange::Append(known, segment) => {
                let DirectoryRecord { state_bytes, unpacked_state_bytes, appended, appended_bytes, .. } =
                    known.record;
                tx.put::<DirectoryAppended>(&(known.id, appended), segment)?;
                let record = DirectoryRecord {
                    state_bytes,
                    unpacked_state_bytes,
                    appended: appended + 1,
                    appended_bytes: appended_bytes + segment.len() as u64,
                    ..place.record(&equal, self.surroundings.now())
                };
                tx.put::<Directories>(&known.id, &record)?;
            }
            StateChange::Whole(_, state) => {
                gone.extend(Self::add_directory(tx, place.record(&equal, self.surroundings.now()), state)?);
            }
        }
        Ok(gone)
    }

    /// A few directories that nobody has seen for a while and that are not there any more. Which ones are
    /// looked at changes from time to time, so all of them are in the end.
    pub(crate) fn abandoned_directories(&self) -> Result<Vec<KnownDirectory>> {
        let grace_ms = u64::try_from(self.options.directory_grace.as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.surroundings.now().unix_ms();
        let mut candidates = self.read(|tx| {
            let mut candidates = Vec::new();
            let last = tx.last(Sequence::Directory)?;
            // A place that moves by more than a window with every checkout, and comes by everywhere.
            let start = last.wrapping_mul(LOOKED_AT as u64 + 1) % (last + 1);
            let mut looked_at = 0;
            for after in [start, 0] {
                tx.scan::<Directories>(
                    &[],
                    Some(&DirectoryId::new(after)),
                    Direction::Ascending,
                    |id, record| {
                        looked_at += 1;
                        if record.seen_ms <= now_ms.saturating_sub(grace_ms) || record.seen_ms > now_ms {
                            candidates.push(KnownDirectory { id, record });
                        }
                        let is_enough = looked_at >= LOOKED_AT;
                        Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
                    },
                )?;
            }
            Ok(candidates)
        })?;
        candidates.retain(KnownDirectory::is_abandoned);
        Ok(candidates)
    }

    /// Forgets directories that nobody changed since they were found; gives those whose state files may go.
    pub(crate) fn forget_directories<'k>(
        tx: &mut WriteTx,
        directories: impl IntoIterator<Item = &'k KnownDirectory>,
    ) -> Result<Vec<DirectoryId>> {
        let mut forgotten = Vec::new();
        for known in directories {
            if tx.get::<Directories>(&known.id)?.as_ref() != Some(&known.record) {
                continue;
            }
            remove_rows(tx, known.id)?;
            let place = ((known.record.device, known.record.inode), known.record.usage);
            if tx.get::<DirectoryPlaces>(&place)? == Some(known.id) {
                tx.remove::<DirectoryPlaces>(&place)?;
            }
            forgotten.push(known.id);
        }
        Ok(forgotten)
    }

    /// The same of those that were found abandoned. One that was seen in the future, before the clock was put right, counts as
    /// seen now.
    pub(crate) fn forget_abandoned(
        &self,
        tx: &mut WriteTx,
        abandoned: &[KnownDirectory],
    ) -> Result<Vec<DirectoryId>> {
        let now_ms = self.surroundings.now().unix_ms();
        let is_past = |known: &&KnownDirectory| known.record.seen_ms <= now_ms;
        let (past, future): (Vec<_>, Vec<_>) = abandoned.iter().partition(is_past);
        for KnownDirectory { id, record } in future {
            if tx.get::<Directories>(id)?.as_ref() == Some(record) {
                tx.put::<Directories>(id, &DirectoryRecord { seen_ms: now_ms, ..record.clone() })?;
            }
        }
        Self::forget_directories(tx, past)
    }

    /// Removes state files that no row names. One that stays is a stray, which recovery removes.
    pub(crate) fn remove_states(&self, ids: impl IntoIterator<Item = DirectoryId>) {
        for id in ids {
            let _ = self.disk.remove(&state_file(id));
        }
    }

    /// What a directory's state says.
    pub(crate) fn load_state(&self, known: &KnownDirectory) -> Result<State> {
        let appended = self.read(|tx| tx.collect::<DirectoryAppended>(&key_bytes(&known.id)))?;
        known.load_state(&*self.disk, appended.into_iter().map(|(_, segment)| segment))
    }
}

/// When a directory was made, in nanoseconds since 1970.
pub(crate) fn born_ns(stat: &Stat) -> u64 {
    let seconds = u64::try_from(stat.born.seconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(stat.born.nanos.into())
}
