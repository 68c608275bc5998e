//! Checkouts: images as directories of the host, and what the store remembers of them.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::catalog::record::{CheckoutRecord, ImageRecord};
use crate::catalog::table::{CheckoutRoots, Checkouts, Sequence};
use crate::catalog::{ReadTables, WriteTx};
use crate::disk::OpenMode;
use crate::error::{Error, Result, Subject};
use crate::host::checkout::{Checkout, ContentSource, Item, WriteOptions, Written};
use crate::host::source::FilePiece;
use crate::host::stat::Stat;
use crate::host::state::{encode_segment, is_settled};
use crate::id::{CheckoutId, ImageId};
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::tree::content::{ContentReader, Piece};
use crate::tree::{self, Content, Entry, Timestamp, Xattrs};

use super::image::Image;
use super::{CHECKOUTS, Inner};

/// How long a checkout waits at most for its last files to be settled.
const LONGEST_SETTLE: Duration = Duration::from_millis(100);

/// What a checkout writes and promises.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct CheckoutOptions {
    /// Make device nodes.
    pub devices: bool,
    /// Set every extended attribute; otherwise only ACLs, `user.*` and `security.capability`.
    pub all_xattrs: bool,
    /// Make the directory durable before it appears.
    pub fsync: bool,
}

/// What a checkout wrote, and what it left out or could not set. What is counted here is remembered, and no later
/// commit takes it for a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckoutReport {
    /// Paths written.
    pub entries: u64,
    /// Bytes of file content, each hard link group once.
    pub bytes: u64,
    /// Paths whose owner or group is another, for lack of privilege.
    pub owners_unset: u64,
    /// Paths whose mode is another, for lack of privilege.
    pub modes_unset: u64,
    /// Paths that lack extended attributes.
    pub xattrs_unset: u64,
    /// Paths that were not made: device nodes.
    pub omitted: u64,
}

impl Image {
    /// Writes the image as real files to `directory`, which must be absent or an empty directory; it appears whole or
    /// not at all. A later [`commit`](crate::Project::commit) of that directory costs what was changed in it.
    ///
    /// Errors: [`AlreadyExists`](crate::ErrorKind::AlreadyExists) where something is there;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) where stored bytes are damaged.
    pub fn check_out(&self, directory: impl AsRef<Path>, options: CheckoutOptions) -> Result<CheckoutReport> {
        let directory = std::path::absolute(directory.as_ref())
            .map_err(|error| Error::io(Subject::Host(directory.as_ref().to_owned()), "find it", error))?;
        let checkout = Checkout::begin(&directory)?;
        let root = self.root()?;
        let items = tree::iter(&self.reader, &root)?
            .map(|entry| item(&self.reader, entry?))
            .collect::<Result<Vec<_>>>()?;
        let write = WriteOptions {
            devices: options.devices,
            all_xattrs: options.all_xattrs,
            threads: self.project.store.options.threads,
        };
        let written = checkout.write(&items, &self.reader, write)?;
        let observed = settle(&written);
        let stat = checkout.root_stat()?;
        self.remember(&directory, &stat, &written, observed)?;
        checkout.publish(options.fsync)?;
        Ok(report(&written, root.bytes()))
    }

    /// Records the checkout before it appears: a directory that is there is always known.
    fn remember(&self, directory: &Path, stat: &Stat, written: &Written, observed: Timestamp) -> Result<()> {
        let store = &self.project.store;
        let id = CheckoutId::new(store.catalog()?.write(|tx| tx.next(Sequence::Checkout))?);
        let state = encode_segment(observed, written.rows.iter(), &[]);
        store.create_state(id, &state)?;
        let record = CheckoutRecord {
            project: self.project.id,
            base: self.record.id,
            base_root: self.record.root,
            base_layer: self.record.layer,
            directory: directory.as_os_str().as_bytes().to_vec(),
            device: stat.device,
            inode: stat.inode,
            born_ns: born_ns(stat),
            state_bytes: state.len() as u64,
            created_ms: crate::time::Moment::now().unix_ms(),
        };
        let place = (stat.device, stat.inode);
        let replaced = store.catalog()?.write(|tx| {
            // The inode was another checkout's before, whose directory is gone.
            let old = tx.get::<CheckoutRoots>(&place)?;
            if let Some(old) = old {
                tx.remove::<Checkouts>(&old)?;
            }
            tx.put::<CheckoutRoots>(&place, &id)?;
            tx.put::<Checkouts>(&id, &record)?;
            Ok(old)
        })?;
        if let Some(old) = replaced {
            let _ = store.disk.remove(&state_file(old));
        }
        Ok(())
    }
}

/// What the store remembers of a directory.
pub(super) struct KnownCheckout {
    pub(super) id: CheckoutId,
    pub(super) record: CheckoutRecord,
}

impl KnownCheckout {
    /// The checkout in the directory with this metadata.
    pub(super) fn find(tx: &impl ReadTables, stat: &Stat) -> Result<Option<Self>> {
        let Some(id) = tx.get::<CheckoutRoots>(&(stat.device, stat.inode))? else { return Ok(None) };
        let record = tx.get::<Checkouts>(&id)?;
        Ok(record.filter(|record| record.born_ns == born_ns(stat)).map(|record| Self { id, record }))
    }

    /// The image that the directory equalled.
    pub(super) fn base(&self) -> ImageId {
        self.record.base
    }
}

impl Inner {
    fn create_state(&self, id: CheckoutId, bytes: &[u8]) -> Result<()> {
        let name = state_file(id);
        let write = || {
            self.disk.remove(&name)?;
            let file = self.disk.open(&name, OpenMode::CreateNew)?;
            file.write_at(bytes, 0)?;
            file.sync()?;
            self.disk.sync_dir(CHECKOUTS)
        };
        write().map_err(|error| {
            Error::io(Subject::Store(self.location.clone()), "write a checkout's state", error)
        })
    }

    /// A state file's committed bytes.
    pub(super) fn read_state(&self, checkout: &KnownCheckout) -> Result<Vec<u8>> {
        let len = usize::try_from(checkout.record.state_bytes).unwrap_or(usize::MAX);
        let read = || -> std::io::Result<_> {
            let file = self.disk.open(&state_file(checkout.id), OpenMode::Read)?;
            if file.len()? < checkout.record.state_bytes {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let mut bytes = vec![0; len];
            file.read_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        read().map_err(|error| {
            Error::io(Subject::Store(self.location.clone()), "read a checkout's state", error)
        })
    }

    /// Makes the checkout one of `image`, with `segment` added to its state. The append is durable before the
    /// transaction that makes it count, and inside it, so that two commits of one directory can't mix theirs.
    pub(super) fn advance_checkout(
        &self,
        tx: &mut WriteTx,
        checkout: &KnownCheckout,
        image: &ImageRecord,
        segment: &[u8],
    ) -> Result<()> {
        if tx.get::<Checkouts>(&checkout.id)?.as_ref() != Some(&checkout.record) {
            let directory = std::ffi::OsStr::from_bytes(&checkout.record.directory);
            let message = "another commit of this directory came first; commit again";
            return Err(Error::conflict(Subject::Host(directory.into()), message));
        }
        let write = || {
            let file = self.disk.open(&state_file(checkout.id), OpenMode::Write)?;
            file.write_at(segment, checkout.record.state_bytes)?;
            file.sync()
        };
        write().map_err(|error| {
            Error::io(Subject::Store(self.location.clone()), "write a checkout's state", error)
        })?;
        let record = CheckoutRecord {
            base: image.id,
            base_root: image.root,
            base_layer: image.layer,
            state_bytes: checkout.record.state_bytes + segment.len() as u64,
            ..checkout.record.clone()
        };
        tx.put::<Checkouts>(&checkout.id, &record)
    }
}

fn state_file(id: CheckoutId) -> String {
    format!("{CHECKOUTS}/{:010}.state", id.get())
}

fn born_ns(stat: &Stat) -> u64 {
    let seconds = u64::try_from(stat.born.seconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(stat.born.nanos.into())
}

fn item(source: &ObjectReader, (path, entry): (TreePath, Entry)) -> Result<(TreePath, Item)> {
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
    let newest = written.rows.values().map(|row| row.ctime).max().unwrap_or_default();
    let deadline = Instant::now() + LONGEST_SETTLE;
    loop {
        let now = file_time();
        // A file system that keeps no fractions would take seconds: then the newest files are read by the next commit.
        if is_settled(newest, now) || Instant::now() >= deadline {
            return now;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The time that the kernel would give a file now.
pub(super) fn file_time() -> Timestamp {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Timestamp { seconds: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
}

fn report(written: &Written, bytes: u64) -> CheckoutReport {
    let mut report =
        CheckoutReport { entries: written.rows.len() as u64, bytes, ..CheckoutReport::default() };
    for row in written.rows.values() {
        report.owners_unset += u64::from(row.unset.owner.is_some());
        report.modes_unset += u64::from(row.unset.mode.is_some());
        report.xattrs_unset += u64::from(!row.unset.xattrs.is_empty());
        report.omitted += u64::from(row.unset.omitted);
    }
    report
}

impl ContentSource for ObjectReader {
    fn read(&self, content: &Content, take: &mut dyn FnMut(FilePiece<'_>) -> Result<()>) -> Result<()> {
        ContentReader::new(self, content).pieces().try_for_each(|piece| match piece? {
            Piece::Data(bytes) => take(FilePiece::Data(&bytes)),
            Piece::Hole(len) => take(FilePiece::Hole(len)),
        })
    }
}
