//! What the store remembers of checkouts: a row for each, found by the device and inode of its directory, and a state
//! file (see `host::state`).
//!
//! A state file is made and appended to inside the transaction that makes its bytes count. So whoever holds the lock and
//! finds a file without a row, or bytes beyond the length in the row, knows that they are a killed process's.

use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::catalog::record::{CheckoutRecord, ImageRecord};
use crate::catalog::table::{CheckoutRoots, Checkouts, Sequence};
use crate::catalog::{Direction, ReadTables, WriteTx};
use crate::disk::OpenMode;
use crate::error::{Error, Result, Subject};
use crate::host::source::SourceTree;
use crate::host::stat::Stat;
use crate::host::state::State;
use crate::id::{CheckoutId, ImageId};
use crate::store::{CHECKOUTS, Inner};
use crate::time::Moment;

/// Rows that are looked at for abandoned checkouts when a checkout is made: more than one, so their number falls.
const LOOKED_AT: usize = 64;

/// What the store remembers of a directory.
pub(in crate::store) struct KnownCheckout {
    pub(in crate::store) id: CheckoutId,
    pub(in crate::store) record: CheckoutRecord,
}

/// What a commit learned of the directory that it read.
pub(in crate::store) struct StateUpdate {
    pub(in crate::store) checkout: KnownCheckout,
    /// Where the directory is now.
    pub(in crate::store) directory: Vec<u8>,
    pub(in crate::store) news: StateNews,
}

/// What becomes of a state file.
pub(in crate::store) enum StateNews {
    /// A segment is appended.
    Segment(Vec<u8>),
    /// All of it is written anew.
    Whole(Vec<u8>),
}

impl KnownCheckout {
    /// The checkout in the directory with this metadata.
    pub(in crate::store) fn find(tx: &impl ReadTables, stat: &Stat) -> Result<Option<Self>> {
        let Some(id) = tx.get::<CheckoutRoots>(&(stat.device, stat.inode))? else { return Ok(None) };
        let record = tx.get::<Checkouts>(&id)?;
        Ok(record.filter(|record| record.born_ns == born_ns(stat)).map(|record| Self { id, record }))
    }

    /// The image that the directory equalled.
    pub(in crate::store) fn base(&self) -> ImageId {
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

impl Inner {
    /// Records a new checkout and gives the ones that it replaces, whose state files may go once this is durable.
    pub(super) fn add_checkout(
        &self,
        tx: &mut WriteTx,
        record: &CheckoutRecord,
        state: &[u8],
    ) -> Result<Option<CheckoutId>> {
        let id = CheckoutId::new(tx.next(Sequence::Checkout)?);
        self.create_state(id, state)?;
        let place = (record.device, record.inode);
        // The inode was another checkout's before, whose directory is gone, or is this one's with an older state.
        let old = tx.get::<CheckoutRoots>(&place)?;
        if let Some(old) = old {
            tx.remove::<Checkouts>(&old)?;
        }
        tx.put::<CheckoutRoots>(&place, &id)?;
        tx.put::<Checkouts>(&id, record)?;
        Ok(old)
    }

    /// Makes the checkout one of `image`. Gives a checkout whose state file may go once this is durable.
    pub(in crate::store) fn advance_checkout(
        &self,
        tx: &mut WriteTx,
        update: &StateUpdate,
        image: &ImageRecord,
    ) -> Result<Option<CheckoutId>> {
        let StateUpdate { checkout, directory, news } = update;
        if tx.get::<Checkouts>(&checkout.id)?.as_ref() != Some(&checkout.record) {
            let directory = std::ffi::OsStr::from_bytes(directory);
            let message = "another commit of this directory came first; commit again";
            return Err(Error::conflict(Subject::Host(directory.into()), message));
        }
        let mut record = CheckoutRecord {
            base: image.id,
            base_root: image.root,
            base_layer: image.layer,
            directory: directory.clone(),
            seen_ms: Moment::now().unix_ms(),
            ..checkout.record.clone()
        };
        match news {
            StateNews::Segment(segment) => {
                self.append_state(checkout, segment)?;
                record.state_bytes += segment.len() as u64;
                tx.put::<Checkouts>(&checkout.id, &record)?;
                Ok(None)
            }
            StateNews::Whole(state) => {
                record.state_bytes = state.len() as u64;
                record.whole_state_bytes = record.state_bytes;
                self.add_checkout(tx, &record, state)
            }
        }
    }

    /// A few checkouts that nobody has seen for a while and whose directories are not there any more. Which ones are
    /// looked at changes from time to time, so all of them are in the end.
    pub(super) fn abandoned_checkouts(&self) -> Result<Vec<KnownCheckout>> {
        let grace_ms = u64::try_from(self.options.checkout_grace.as_millis()).unwrap_or(u64::MAX);
        let seen_before_ms = Moment::now().unix_ms().saturating_sub(grace_ms);
        let mut candidates = Vec::new();
        self.read(|tx| {
            let last = tx.last(Sequence::Checkout)?;
            // A place that moves by more than a window with every checkout, and comes by everywhere.
            let start = last.wrapping_mul(LOOKED_AT as u64 + 1) % (last + 1);
            let mut looked_at = 0;
            for after in [start, 0] {
                tx.scan::<Checkouts>(
                    &[],
                    Some(&CheckoutId::new(after)),
                    Direction::Ascending,
                    |id, record| {
                        looked_at += 1;
                        if record.seen_ms <= seen_before_ms {
                            candidates.push(KnownCheckout { id, record });
                        }
                        let is_enough = looked_at >= LOOKED_AT;
                        Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
                    },
                )?;
            }
            Ok(())
        })?;
        candidates.retain(KnownCheckout::is_abandoned);
        Ok(candidates)
    }

    /// Forgets checkouts that nobody changed since they were found; gives those whose state files may go.
    pub(super) fn forget_checkouts(tx: &mut WriteTx, abandoned: &[KnownCheckout]) -> Result<Vec<CheckoutId>> {
        let mut forgotten = Vec::new();
        for checkout in abandoned {
            if tx.get::<Checkouts>(&checkout.id)?.as_ref() != Some(&checkout.record) {
                continue;
            }
            tx.remove::<Checkouts>(&checkout.id)?;
            let place = (checkout.record.device, checkout.record.inode);
            if tx.get::<CheckoutRoots>(&place)? == Some(checkout.id) {
                tx.remove::<CheckoutRoots>(&place)?;
            }
            forgotten.push(checkout.id);
        }
        Ok(forgotten)
    }

    /// Removes state files that no row names. One that stays is a stray, which recovery removes.
    pub(in crate::store) fn remove_states(&self, ids: impl IntoIterator<Item = CheckoutId>) {
        for id in ids {
            let _ = self.disk.remove(&state_file(id));
        }
    }

    fn create_state(&self, id: CheckoutId, bytes: &[u8]) -> Result<()> {
        let name = state_file(id);
        let write = || {
            self.disk.remove(&name)?;
            let file = self.disk.open(&name, OpenMode::CreateNew)?;
            file.write_at(bytes, 0)?;
            file.sync()?;
            self.disk.sync_dir(CHECKOUTS)
        };
        write().map_err(|error| self.state_error("write a checkout's state", error))
    }

    fn append_state(&self, checkout: &KnownCheckout, segment: &[u8]) -> Result<()> {
        let write = || {
            let file = self.disk.open(&state_file(checkout.id), OpenMode::Write)?;
            file.write_at(segment, checkout.record.state_bytes)?;
            file.sync()
        };
        write().map_err(|error| self.state_error("write a checkout's state", error))
    }

    /// What a checkout's state file says.
    pub(in crate::store) fn load_state(&self, checkout: &KnownCheckout) -> Result<State> {
        let damaged = |what: String| {
            let directory = std::ffi::OsStr::from_bytes(&checkout.record.directory).into();
            let message = format!("the store's state of this checkout {what}; commit it naming its base");
            Error::corrupt(Subject::Host(directory), message)
        };
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
        let bytes = read().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => damaged("is missing".to_owned()),
            std::io::ErrorKind::UnexpectedEof => damaged("is cut short".to_owned()),
            _ => self.state_error("read a checkout's state", error),
        })?;
        State::load(&bytes).map_err(|error| damaged(error.to_string()))
    }

    fn state_error(&self, action: &str, error: std::io::Error) -> Error {
        Error::io(Subject::Store(self.location.clone()), action, error)
    }
}

pub(in crate::store) fn state_file(id: CheckoutId) -> String {
    format!("{CHECKOUTS}/{:010}.state", id.get())
}

/// When a directory was made, in nanoseconds since 1970.
pub(super) fn born_ns(stat: &Stat) -> u64 {
    let seconds = u64::try_from(stat.born.seconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(stat.born.nanos.into())
}
