//! Publishing what sessions made: together, in one transaction behind one sync.
//!
//! Order of what reaches the disk, each step durable before the next:
//! 1. packs of large sessions were appended to and synced, full ones sealed, by the sessions themselves;
//! 2. frames that sessions held in memory are appended to one pack, which is synced, and its folder where it is new;
//! 3. one transaction publishes all of it: frames, committed lengths, images, tags, and lets leases go.
//!
//! Whoever comes while a publication is under way waits, and the first to go on publishes for all who wait. A session
//! whose closure fails leaves nothing and touches nobody else. If the transaction fails, none of them is published.

use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::WriteTx;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::id::{LeaseId, PackId};
use crate::pack::session::{HeldFrame, OpenPack, Unpublished, WrittenPack};

use super::gate::OpenCatalog;
#[cfg(feature = "testing")]
use super::options::Sabotage;
use super::packs::Indexed;
use super::session::WriteSession;
use super::{Engine, packs};

/// What sessions want published, and the right to do it.
#[derive(Default)]
pub(crate) struct Publications {
    waiting: Mutex<Vec<Publication>>,
    publishing: Mutex<()>,
}

#[cfg(any(test, feature = "testing"))]
impl Publications {
    /// Keeps everyone from publishing for as long as this is held.
    pub(crate) fn take_turn(&self) -> std::sync::MutexGuard<'_, ()> {
        lock(&self.publishing)
    }

    /// How many wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }
}

impl std::fmt::Debug for Publications {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publications").finish_non_exhaustive()
    }
}

/// What one session wants published.
struct Publication {
    /// Frames that are to be written.
    held: Vec<HeldFrame>,
    change: Change,
    outcome: Outcome,
}

/// What a session does in the transaction, besides its frames; gives packs whose files may go afterwards.
type Change = Box<dyn FnOnce(&mut WriteTx) -> Result<Vec<PackId>> + Send>;

/// How a publication ended; none while it waits.
type Outcome = Arc<Mutex<Option<Result<()>>>>;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Publishes what a session wrote together with what `closure` does, in one transaction. If it fails, nothing
    /// of the session remains.
    pub(crate) fn publish<T: Send + 'static>(
        &self,
        session: WriteSession,
        closure: impl FnOnce(&mut WriteTx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.publish_with(session, closure, Self::publish_in_turn)
    }

    /// The same in a transaction that nobody shares: for what reads objects that the transaction must find published.
    pub(crate) fn publish_alone<T: Send + 'static>(
        &self,
        session: WriteSession,
        closure: impl FnOnce(&mut WriteTx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.publish_with(session, closure, |store, publication| {
            let outcome = Arc::clone(&publication.outcome);
            let _turn = lock(&store.publications.publishing);
            store.publish_all(store.catalog()?, vec![publication]);
            told(&outcome)
        })
    }

    fn publish_with<T: Send + 'static>(
        &self,
        session: WriteSession,
        closure: impl FnOnce(&mut WriteTx) -> Result<T> + Send + 'static,
        publish: impl FnOnce(&Self, Publication) -> Result<()>,
    ) -> Result<T> {
        let (host, unpublished) = session.finish()?;
        let lease = host.lease.get().copied();
        let (held, pack) = match unpublished {
            Unpublished::Held(frames) => (frames, None),
            Unpublished::Pack(pack) => (Vec::new(), pack.map(Arc::new)),
        };
        // So many rows would make a large transaction.
        let is_many = |pack: &&Arc<WrittenPack>| pack.new_objects() >= self.options.row_objects;
        let indexed = match pack.as_ref().filter(is_many).map(|pack| host.index(pack)).transpose() {
            Ok(indexed) => indexed,
            Err(error) => {
                self.let_go(&host, pack.and_then(Arc::into_inner));
                return Err(error);
            }
        };
        let reliance = match host.reliance().prepare() {
            Ok(reliance) => reliance,
            Err(error) => {
                self.let_go(&host, pack.and_then(Arc::into_inner));
                return Err(error);
            }
        };
        let (value, written) = (Arc::new(Mutex::new(None)), pack.clone());
        let publication = Publication {
            held,
            change: Box::new({
                let value = Arc::clone(&value);
                move |tx| {
                    reliance.revive(tx)?;
                    let unused = publish_own(tx, lease, written.as_deref(), indexed)?;
                    *lock(&value) = Some(closure(tx)?);
                    Ok(unused)
                }
            }),
            outcome: Outcome::default(),
        };
        match publish(self, publication) {
            Ok(()) => lock(&value).take().ok_or_else(unknown_outcome),
            Err(error) => {
                self.let_go(&host, pack.and_then(Arc::into_inner));
                Err(error)
            }
        }
    }

    fn publish_in_turn(&self, publication: Publication) -> Result<()> {
        let outcome = Arc::clone(&publication.outcome);
        lock(&self.publications.waiting).push(publication);
        let turn = lock(&self.publications.publishing);
        if lock(&outcome).is_none() {
            let opened = self.catalog();
            let mut waiting = lock(&self.publications.waiting);
            match opened {
                // It is this one's to give up, and the others' to go on.
                Err(error) if error.kind() == ErrorKind::Cancelled => {
                    waiting.retain(|waiting| !Arc::ptr_eq(&waiting.outcome, &outcome));
                    return Err(error);
                }
                Err(error) => {
                    let all = std::mem::take(&mut *waiting);
                    for waiting in all {
                        *lock(&waiting.outcome) = Some(Err(error.clone()));
                    }
                }
                Ok(catalog) => {
                    let all = std::mem::take(&mut *waiting);
                    drop(waiting);
                    self.publish_all(catalog, all);
                }
            }
        }
        drop(turn);
        told(&outcome)
    }

    /// Publishes for all of them, and tells each how it ended.
    fn publish_all(&self, catalog: Arc<OpenCatalog>, publications: Vec<Publication>) {
        let told: Vec<_> = publications.iter().map(|publication| Arc::clone(&publication.outcome)).collect();
        let mut failed = vec![None; told.len()];
        #[cfg(feature = "testing")]
        let late = super::late::LateWrites::default();
        let publish = || -> Result<()> {
            let unused = catalog.write(|tx| {
                let (mut held, mut unused) = (Vec::new(), Vec::new());
                for (publication, failed) in publications.into_iter().zip(&mut failed) {
                    match tx.attempt(publication.change) {
                        Ok(packs) => {
                            unused.extend(packs);
                            held.extend(publication.held);
                        }
                        Err(error) => *failed = Some(error),
                    }
                }
                if failed.iter().all(Option::is_some) {
                    return Err(Error::conflict(Subject::Catalog, "nothing is to be published"));
                }
                let write = |pack: OpenPack| {
                    #[cfg(feature = "testing")]
                    let pack = match self.options.sabotage {
                        Some(Sabotage::PublishFirst) => late.instead_of(pack),
                        _ => pack,
                    };
                    WrittenPack::new(pack)
                };
                self.publish_held(tx, held, write)?;
                Ok(unused)
            })?;
            self.remove_packs(&unused);
            self.upkeep.begin(&catalog);
            Ok(())
        };
        let published = publish();
        drop(catalog);
        #[cfg(feature = "testing")]
        late.write();
        if let Err(error) = published {
            for failed in failed.iter_mut().filter(|failed| failed.is_none()) {
                *failed = Some(error.clone());
            }
        }
        for (told, failed) in told.iter().zip(failed) {
            *lock(told) = Some(failed.map_or(Ok(()), Err));
        }
    }

    /// Writes frames that were held in memory to a pack, and publishes them.
    fn publish_held(
        &self,
        tx: &mut WriteTx,
        held: Vec<HeldFrame>,
        write: impl FnOnce(OpenPack) -> WrittenPack,
    ) -> Result<()> {
        if held.is_empty() {
            return Ok(());
        }
        let (pack, record) = packs::free_pack(tx, &self.options)?;
        let mut written = write(packs::open_pack_file(&*self.disk, pack, &record)?);
        if let Err(error) = held.into_iter().try_for_each(|frame| written.append(frame).map(drop)) {
            // On a full disk it would take the room that others could use.
            written.cut_back();
            return Err(error);
        }
        written.sync().inspect_err(|_| self.poison.set())?;
        #[cfg(feature = "testing")]
        if self.options.sabotage == Some(Sabotage::LeaveOutIndex) {
            written.frames.clear();
        }
        packs::publish_frames(tx, &written)
    }
}

/// Publishes what a large session has in a pack of its own.
fn publish_own(
    tx: &mut WriteTx,
    lease: Option<LeaseId>,
    written: Option<&WrittenPack>,
    indexed: Option<Indexed>,
) -> Result<Vec<PackId>> {
    let Some(lease) = lease else { return Ok(Vec::new()) };
    packs::check_lease(tx, lease)?;
    if let Some(written) = written {
        match indexed {
            Some(indexed) => packs::publish_indexed(tx, written, indexed)?,
            None => packs::publish_frames(tx, written)?,
        }
    }
    packs::release(tx, lease)
}

/// How a publication ended.
fn told(outcome: &Outcome) -> Result<()> {
    lock(outcome).take().unwrap_or_else(|| Err(unknown_outcome()))
}

fn unknown_outcome() -> Error {
    let message = "whoever was to publish this ended before it was done; look whether it is there";
    Error::new(ErrorKind::Poisoned, Subject::Catalog, message)
}
