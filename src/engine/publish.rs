//! Publishing what sessions made: together, in one transaction behind one sync.
//!
//! Order of what reaches the disk, each step durable before the next:
//! 1. packs of large sessions were appended to and synced, full ones sealed, by the sessions themselves;
//! 2. frames that sessions held in memory are appended to one pack, which is synced, and its folder where it is new; state
//!    files are written;
//! 3. one transaction publishes all of it: frames, committed lengths, images, tags, and lets leases go.
//!
//! A session that comes while a publication is under way waits, and the first to go on publishes for all that wait. What the
//! transaction would do is tried out before step 2: a session whose change fails writes nothing, and leaves the others as they are. The
//! transaction itself only changes rows, so it can be run again. Files that it names are written under the [turn](Turn):
//! no other thread chooses a pack, numbers a state file or removes strays meanwhile. If the transaction fails, none of them is
//! published.

use std::sync::{Arc, Mutex};

use crate::catalog::WriteTx;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::id::{LeaseId, PackId};
use crate::pack::session::{BufferedFrame, OpenPack, Unpublished, WrittenPack};
use crate::sync::lock;

use super::gate::{OpenCatalog, Turn};
#[cfg(feature = "testing")]
use super::options::Sabotage;
use super::packs::Indexed;
use super::session::WriteSession;
use super::state_files::StateFile;
use super::{Engine, packs};

/// What sessions want published, and the right to do it.
#[derive(Default)]
pub(crate) struct Publications {
    waiting: Mutex<Vec<Publication<'static>>>,
    publishing: Mutex<()>,
}

#[cfg(any(test, feature = "testing"))]
impl Publications {
    /// Keeps everyone from publishing for as long as this is held.
    pub(crate) fn pause(&self) -> std::sync::MutexGuard<'_, ()> {
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
struct Publication<'c> {
    /// Frames that are to be written.
    held: Vec<BufferedFrame>,
    /// A state file that is to be written.
    state: Option<Arc<StateFile>>,
    change: Change<'c>,
    outcome: Outcome,
}

/// What a session does in the transaction, besides its frames; gives packs whose files may go afterwards.
type Change<'c> = Box<dyn Fn(&mut WriteTx) -> Result<Vec<PackId>> + Send + 'c>;

/// How a publication ended; none while it waits.
type Outcome = Arc<Mutex<Option<Result<()>>>>;

impl Engine {
    /// Publishes what a session wrote together with what `closure` does, in one transaction, before which `state` is written.
    /// If it fails, nothing of the session remains.
    pub(crate) fn publish<T: Send + 'static>(
        &self,
        session: WriteSession,
        state: Option<Arc<StateFile>>,
        closure: impl Fn(&mut WriteTx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.publish_with(session, state, closure, Self::publish_in_turn)
    }

    /// The same in a transaction that nobody shares: for what reads objects that the transaction must find published.
    pub(crate) fn publish_alone<T: Send>(
        &self,
        session: WriteSession,
        closure: impl Fn(&mut WriteTx) -> Result<T> + Send,
    ) -> Result<T> {
        self.publish_with(session, None, closure, |store, publication| {
            let outcome = Arc::clone(&publication.outcome);
            let _publishing = lock(&store.publications.publishing);
            store.publish_all(store.catalog()?, vec![publication]);
            outcome_of(&outcome)
        })
    }

    fn publish_with<'c, T: Send + 'c>(
        &self,
        session: WriteSession,
        state: Option<Arc<StateFile>>,
        closure: impl Fn(&mut WriteTx) -> Result<T> + Send + 'c,
        publish: impl FnOnce(&Self, Publication<'c>) -> Result<()>,
    ) -> Result<T> {
        let (host, unpublished) = session.finish()?;
        let lease = host.lease.get().copied();
        let (held, pack) = match unpublished {
            Unpublished::Held(frames) => (frames, None),
            Unpublished::Pack(pack) => (Vec::new(), pack.map(Arc::new)),
        };
        // So many rows would make a large transaction.
        let is_many = |pack: &&Arc<WrittenPack>| pack.new_objects() >= self.options.row_objects;
        let indexed = pack.as_ref().filter(is_many).map(|pack| host.index(pack)).transpose();
        let prepared = indexed.and_then(|indexed| Ok((indexed, host.reliance().prepare()?)));
        let (indexed, reliance) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.release(&host, pack.and_then(Arc::into_inner));
                return Err(error);
            }
        };
        let (value, written) = (Arc::new(Mutex::new(None)), pack.clone());
        let publication = Publication {
            held,
            state,
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
                self.release(&host, pack.and_then(Arc::into_inner));
                Err(error)
            }
        }
    }

    fn publish_in_turn(&self, publication: Publication<'static>) -> Result<()> {
        let outcome = Arc::clone(&publication.outcome);
        lock(&self.publications.waiting).push(publication);
        let publishing = lock(&self.publications.publishing);
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
        drop(publishing);
        outcome_of(&outcome)
    }

    /// Publishes for all of them, and gives each its outcome.
    fn publish_all(&self, catalog: Arc<OpenCatalog>, mut batch: Vec<Publication<'_>>) {
        #[cfg(feature = "testing")]
        let late = super::late::LateWrites::default();
        let write = |pack: OpenPack| {
            #[cfg(feature = "testing")]
            let pack = match self.options.sabotage {
                Some(Sabotage::PublishFirst) => late.instead_of(pack),
                _ => pack,
            };
            WrittenPack::new(pack)
        };
        let published = self.publish_batch(&catalog, &mut batch, write);
        drop(catalog);
        #[cfg(feature = "testing")]
        late.write();
        let failed = published.unwrap_or_else(|error| vec![Some(error); batch.len()]);
        for (publication, failed) in batch.iter().zip(failed) {
            *lock(&publication.outcome) = Some(failed.map_or(Ok(()), Err));
        }
    }

    /// Publishes what can be in one transaction, and gives the error of each publication that can't.
    fn publish_batch(
        &self,
        catalog: &OpenCatalog,
        batch: &mut [Publication<'_>],
        write: impl FnOnce(OpenPack) -> WrittenPack,
    ) -> Result<Vec<Option<Error>>> {
        let _span = tracing::debug_span!("publish", sessions = batch.len()).entered();
        let turn = &self.gate.take_turn();
        Self::number_state_files(
            turn,
            catalog,
            batch.iter().filter_map(|publication| publication.state.as_deref()),
        )?;
        let mut failed = vec![None; batch.len()];
        let writes_files =
            |publication: &Publication<'_>| !publication.held.is_empty() || publication.state.is_some();
        if batch.iter().any(writes_files) {
            failed = catalog.try_out(|tx| Ok(change_all(tx, batch, &failed).0))?;
        }
        let mut held = Vec::new();
        for (publication, failed) in batch.iter_mut().zip(&mut failed).filter(|(_, failed)| failed.is_none())
        {
            let written =
                publication.state.as_ref().map_or(Ok(()), |state| self.create_state_file(turn, state));
            *failed = written.err();
            if failed.is_none() {
                held.append(&mut publication.held);
            }
        }
        if failed.iter().all(Option::is_some) {
            return Ok(failed);
        }
        let written = self.write_held(turn, catalog, held, write)?;
        let (failed, unused) = catalog.write(|tx| {
            let (failed, unused) = change_all(tx, batch, &failed);
            // What was written for them is behind what counts, and cut off by whoever adds to that pack next.
            if failed.iter().any(Option::is_none) {
                written.as_ref().map_or(Ok(()), |written| packs::publish_frames(tx, written))?;
            }
            Ok((failed, unused))
        })?;
        let refused = failed.iter().flatten().count();
        tracing::debug!(refused, "published");
        self.remove_packs(&unused);
        self.upkeep.begin(catalog);
        Ok(failed)
    }

    /// Appends frames that were held in memory to a pack, durable before they are published.
    fn write_held(
        &self,
        _turn: &Turn<'_>,
        catalog: &OpenCatalog,
        held: Vec<BufferedFrame>,
        write: impl FnOnce(OpenPack) -> WrittenPack,
    ) -> Result<Option<WrittenPack>> {
        if held.is_empty() {
            return Ok(None);
        }
        let (pack, record) = catalog.read(|tx| packs::free_pack(tx, &self.options))?;
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
        Ok(Some(written))
    }
}

/// Makes the changes of all publications that have not failed, each whole or not at all. Gives the error of each that has,
/// and the packs whose files may go.
fn change_all(
    tx: &mut WriteTx,
    batch: &[Publication<'_>],
    failed: &[Option<Error>],
) -> (Vec<Option<Error>>, Vec<PackId>) {
    let mut unused = Vec::new();
    let change = |(publication, failed): (&Publication<'_>, &Option<Error>)| {
        failed.clone().or_else(|| match tx.attempt(&publication.change) {
            Ok(packs) => {
                unused.extend(packs);
                None
            }
            Err(error) => Some(error),
        })
    };
    let failed = batch.iter().zip(failed).map(change).collect();
    (failed, unused)
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
fn outcome_of(outcome: &Outcome) -> Result<()> {
    lock(outcome).take().unwrap_or_else(|| Err(unknown_outcome()))
}

fn unknown_outcome() -> Error {
    let message = "whoever was to publish this ended before it was done; look whether it is there";
    Error::new(ErrorKind::Poisoned, Subject::Catalog, message)
}
