//! Checkouts: images as directories of the host, and what the store remembers of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::catalog::record::{DirectoryUse, ImageVersion};
use crate::error::{Error, Result, Subject};
use crate::host::checkout::{Checkout, ContentSource, FileCache, Item, WriteOptions, Written};
pub use crate::host::checkout::{SharedFiles, Sharing};
use crate::host::file_time;
use crate::host::source::FilePiece;
use crate::host::stat::Stat;
use crate::host::state::is_settled;
use crate::id::PackId;
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::task::Phase;
use crate::tree::content::{ContentReader, Piece};
use crate::tree::{self, Content, Entry, Timestamp, Xattrs};

use super::image::Image;
use crate::engine::Engine;
use crate::engine::state_files::StateFile;
use crate::ledger::directories::DirectoryPlace;

/// How long a checkout waits at most for its last files to be settled.
const LONGEST_SETTLE: Duration = Duration::from_millis(100);

/// What a checkout writes and promises.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CheckoutOptions {
    /// Make device nodes.
    pub devices: bool,
    /// Set every extended attribute; otherwise only ACLs, `user.*` and `security.capability`.
    pub all_xattrs: bool,
    /// Make the directory durable before it appears.
    pub fsync: bool,
    /// Take files from a cache and leave them there.
    pub shared: Option<SharedFiles>,
}

/// What a checkout wrote, and what it left out or could not set. What is counted here is remembered, and no later
/// commit takes it for a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckoutReport {
    /// Paths written.
    pub entries: u64,
    /// Bytes of file content, each hard link group once.
    pub bytes: u64,
    /// Paths whose owner or group is another, for lack of privilege.
    pub owners_unset: u64,
    /// Paths whose mode is another, for lack of privilege.
    pub modes_unset: u64,
    /// Paths whose modification time is another, since the file system can't hold theirs.
    pub times_unset: u64,
    /// Paths that lack extended attributes.
    pub xattrs_unset: u64,
    /// Paths that were not made: device nodes.
    pub omitted: u64,
    /// Files that were taken from [`CheckoutOptions::shared`] instead of being written.
    pub files_shared: u64,
    /// Why the store could not remember the checkout, where it could not: a commit of it must name its
    /// [base](crate::CommitOptions::base), reads all of it, and takes what is counted here for changes.
    pub untracked: Option<String>,
}

/// What becomes of a checkout that the store can't remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unremembered {
    /// It appears all the same, and the report says so.
    Appears,
    /// It fails.
    Fails,
}

impl Image {
    /// Writes the image as real files to `directory`, which must be absent or an empty directory; it appears whole or
    /// not at all. A later [`commit`](crate::Project::commit) of that directory costs what was changed in it. From a store that
    /// can't be written (read-only, full, another user's) the image is written all the same, and the
    /// [report](CheckoutReport::untracked) says that the store does not know the directory.
    ///
    /// Errors: [`AlreadyExists`](crate::ErrorKind::AlreadyExists) where something is there;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) where stored bytes are damaged; [`Invalid`](crate::ErrorKind::Invalid) where
    /// others may write to the directory of [shared files](SharedFiles), or can't share it with the checkout.
    pub fn check_out(&self, directory: impl AsRef<Path>, options: CheckoutOptions) -> Result<CheckoutReport> {
        let directory = absolute(directory.as_ref())?;
        self.project.store.check_is_outside(&directory)?;
        self.check_out_to(&directory, options, Unremembered::Appears)
    }

    /// The same to any absolute path.
    pub(super) fn check_out_to(
        &self,
        directory: &Path,
        options: CheckoutOptions,
        unremembered: Unremembered,
    ) -> Result<CheckoutReport> {
        let _span = tracing::info_span!("checkout", image = %self.id(), to = ?directory).entered();
        if let Some(shared) = &options.shared {
            self.project.store.check_is_outside(&absolute(&shared.directory)?)?;
        }
        let root = self.root()?;
        let task = &self.project.store.task;
        let checkout = Checkout::begin(directory, task)?;
        let shared = options.shared.map(|shared| FileCache::open(&shared, &checkout, options.all_xattrs));
        let mut cache = shared.transpose()?;
        let stage = task.begin(Phase::Writing, root.entries());
        let items = tree::iter(&self.reader, &root)?.map(|entry| item(&self.reader, entry?));
        let write = WriteOptions {
            devices: options.devices,
            all_xattrs: options.all_xattrs,
            threads: self.project.store.options.threads,
            cache: cache.as_ref().and_then(FileCache::useful),
        };
        let written = checkout.write(items, &self.reader, write)?;
        drop(stage);
        let observed = settle(&written);
        let stat = checkout.root_stat()?;
        let report = report(&written, root.bytes());
        let remembered =
            self.remember(directory, &stat, &StateFile::pack(&written.rows.finish(observed, &[]))?);
        let untracked = match remembered {
            Ok(()) => None,
            // Whatever kept the store from it, the image could be read.
            Err(error) if unremembered == Unremembered::Appears => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                Some(format!("{error}{}", cause.unwrap_or_default()))
            }
            Err(error) => return Err(error),
        };
        checkout.publish(options.fsync)?;
        if let Some(cache) = &mut cache {
            cache.keep();
        }
        Ok(CheckoutReport { untracked, ..report })
    }

    /// Records the checkout before it appears: a directory that is there is always known.
    fn remember(&self, directory: &Path, stat: &Stat, state: &StateFile) -> Result<()> {
        let store = &self.project.store;
        let place = DirectoryPlace::new(DirectoryUse::Checkout, self.project.id, directory, stat)?;
        let record = place.record(&ImageVersion::from(&self.record), store.surroundings.now());
        state.name_checkout(record.clone());
        let abandoned = store.abandoned_directories()?;
        let gone = store.write_with_state(Some(state), |tx| {
            let mut gone = store.forget_abandoned(tx, &abandoned)?;
            gone.extend(Engine::add_directory(tx, record.clone(), state)?);
            Ok(gone)
        })?;
        store.remove_states(gone);
        Ok(())
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::io(Subject::Host(path.to_owned()), "find it", error))
}

/// An entry as a checkout writes it.
pub(super) fn item(source: &ObjectReader, (path, entry): (TreePath, Entry)) -> Result<(TreePath, Item)> {
    let item = match entry {
        Entry::HardLink(first) => Item::HardLink(first),
        Entry::Inode(inode) => {
            let xattrs = Xattrs::read(source, &inode.xattrs)?;
            let xattrs = xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            Item::Inode(inode, xattrs)
        }
    };
    Ok((path, item))
}

/// Waits until a change made now would get a later time than every file that was written, and gives that moment.
/// Nobody else can reach the files yet, so their rows are true then.
fn settle(written: &Written) -> Timestamp {
    let deadline = Instant::now() + LONGEST_SETTLE;
    loop {
        let now = file_time();
        // A file system that keeps no fractions would take seconds: then the files are read by the next commit.
        if is_settled(written.newest_change, now) || Instant::now() >= deadline {
            return now;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn report(written: &Written, bytes: u64) -> CheckoutReport {
    CheckoutReport {
        entries: written.entries,
        bytes,
        owners_unset: written.owners_unset,
        modes_unset: written.modes_unset,
        times_unset: written.times_unset,
        xattrs_unset: written.xattrs_unset,
        omitted: written.omitted,
        files_shared: written.files_shared,
        untracked: None,
    }
}

impl ContentSource for ObjectReader {
    type Place = Option<(PackId, u64, u16)>;

    fn place(&self, content: &Content) -> Result<Self::Place> {
        let first = ContentReader::new(self, content).first_chunk()?;
        Ok(first.and_then(|first| self.find(&first)).map(|place| (place.pack, place.offset, place.slot)))
    }

    fn read(&self, content: &Content, take: &mut dyn FnMut(FilePiece<'_>) -> Result<()>) -> Result<()> {
        ContentReader::new(self, content).pieces().try_for_each(|piece| match piece? {
            Piece::Data(bytes) => take(FilePiece::Data(&bytes)),
            Piece::Hole(len) => take(FilePiece::Hole(len)),
        })
    }
}
