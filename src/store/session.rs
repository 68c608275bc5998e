//! Write sessions: from the lease that opens one to the transaction that publishes it.
//!
//! Order of what reaches the disk, each step durable before the next:
//! 1. a transaction writes the lease and makes it the owner of an open pack (the row before the file);
//! 2. frames are appended and the pack is synced, and its folder where the file is new;
//! 3. packs that are full get a segment, synced and renamed into place;
//! 4. one transaction publishes the rest: frames, committed length, image, tags, and lets the lease go.
//!
//! A kill before 4 leaves a dead lease, whose pack is cut back (see `gate`); nothing before 4 is visible.

use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::catalog::record::{
    FrameRecord, ImageRecord, LeaseRecord, OriginRecord, PackRecord, PackState, SegmentRecord,
};
use crate::catalog::table::{Frames, Leases, Packs, Segments, Sequence, Sequences, key_bytes};
use crate::catalog::{Catalog, ReadTables, WriteTx};
use crate::disk::OpenMode;
use crate::error::{Error, Result, Subject};
use crate::id::{ImageId, LeaseId, ObjectId, PackId, SegmentId};
use crate::pack::frame::{PACK_HEAD_BYTES, pack_head};
use crate::pack::reader::ObjectReader;
use crate::pack::session::{OpenPack, PackHost, Session, SessionOptions, WrittenFrame, WrittenPack};
use crate::pack::{PACKS, pack_file, segment};
use crate::time::Moment;

use super::{Inner, holder};

/// The domain of packs whose objects all projects may share.
const SHARED_DOMAIN: u32 = 0;

/// A lease and its pack between two sessions of an exclusive process.
#[derive(Debug)]
pub(super) struct IdleSession {
    lease: LeaseId,
    pack: OpenPack,
}

/// What a session's writers ask the store for.
pub(crate) struct Host {
    store: Arc<Inner>,
    lease: LeaseId,
    /// The pack that the lease owns, while it is not being written.
    pack: Mutex<Option<OpenPack>>,
}

/// The session of one import or commit.
pub(crate) type WriteSession = Session<Host>;

impl Inner {
    /// Begins a session, and gives the view of existing objects that it deduplicates against.
    pub(super) fn begin_session(self: &Arc<Self>) -> Result<(WriteSession, ObjectReader)> {
        self.poison.check()?;
        let catalog = self.catalog()?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let idle = match idle {
            Some(idle) => idle,
            None => self.new_lease(&catalog)?,
        };
        let reader = self.reader(&catalog)?;
        let host = Host { store: Arc::clone(self), lease: idle.lease, pack: Mutex::new(Some(idle.pack)) };
        let options = SessionOptions {
            level: self.options.level,
            pack_bytes: self.options.pack_bytes,
            #[cfg(feature = "testing")]
            publish_first: self.options.publish_first,
        };
        Ok((Session::new(host, reader.clone(), options), reader))
    }

    fn new_lease(&self, catalog: &Catalog) -> Result<IdleSession> {
        let (lease, (pack, record)) = catalog.write(|tx| {
            let lease = LeaseId::new(tx.next(Sequence::Lease)?);
            let record = LeaseRecord { holder: holder::this_process(), since_ms: Moment::now().unix_ms() };
            tx.put::<Leases>(&lease, &record)?;
            Ok((lease, own_pack(tx, lease)?))
        })?;
        Ok(IdleSession { lease, pack: self.open_pack_file(pack, &record)? })
    }

    /// Opens the file of a pack that this process owns; a new one is made.
    fn open_pack_file(&self, id: PackId, record: &PackRecord) -> Result<OpenPack> {
        let io = |action| move |error| Error::io(Subject::Pack(id), action, error);
        if record.committed_bytes > 0 {
            let file =
                self.disk.open(&pack_file(id), OpenMode::Write).map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => Error::corrupt(Subject::Pack(id), "its file is missing"),
                    _ => io("open it")(error),
                })?;
            let found = file.len().map_err(io("measure it"))?;
            if found < record.committed_bytes {
                let message = format!("it has {found} of {} committed bytes", record.committed_bytes);
                return Err(Error::corrupt(Subject::Pack(id), message));
            }
            return Ok(OpenPack { id, file, end: record.committed_bytes, objects: record.objects });
        }
        let file = self.disk.open(&pack_file(id), OpenMode::CreateNew).map_err(io("create it"))?;
        file.write_at(&pack_head(id, record.domain), 0).map_err(io("write its head"))?;
        self.disk.sync_dir(PACKS).map_err(|error| {
            self.poison.set();
            Error::io(Subject::Pack(id), "sync its folder", error)
        })?;
        Ok(OpenPack { id, file, end: PACK_HEAD_BYTES as u64, objects: 0 })
    }

    /// A new image's id: later than every id that was given out before, by whichever process.
    pub(super) fn next_image_id(&self, tx: &impl ReadTables) -> Result<ImageId> {
        let mut last = self.last_image.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = tx.last(Sequence::Image)?.max(*last);
        *last = (Moment::now().unix_ms() << COUNTER_BITS).max(floor + 1);
        Ok(image_id(*last))
    }

    /// Publishes what a session wrote together with what `closure` does, in one transaction. If it fails, nothing
    /// of the session remains.
    pub(super) fn publish<T>(
        &self,
        session: WriteSession,
        closure: impl FnOnce(&mut WriteTx) -> Result<T>,
    ) -> Result<T> {
        #[cfg(feature = "testing")]
        let held_back = session.held_back();
        let (host, mut written) = session.finish()?;
        if let Some(full) = written.take_if(|written| written.objects() >= self.options.pack_objects) {
            host.seal_pack(full)?;
        }
        let keep = self.options.exclusive && written.is_some();
        let outcome = self.catalog()?.write(|tx| {
            if tx.get::<Leases>(&host.lease)?.is_none() {
                return Err(Error::conflict(
                    Subject::Catalog,
                    "this session's lease was taken back; try again",
                ));
            }
            if let Some(written) = &written {
                publish_frames(tx, written, keep.then_some(host.lease))?;
            }
            let value = closure(tx)?;
            let unused = if keep { Vec::new() } else { release(tx, host.lease)? };
            Ok((value, unused))
        });
        #[cfg(feature = "testing")]
        for (file, offset, bytes) in held_back.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            std::thread::sleep(std::time::Duration::from_millis(2));
            file.write_at(&bytes, offset)
                .map_err(|error| Error::io(Subject::Catalog, "write late", error))?;
        }
        let outcome = outcome.map(|(value, unused)| {
            self.remove_packs(&unused);
            value
        });
        match (outcome, written) {
            (Ok(value), Some(written)) if keep => {
                let objects = written.objects();
                let idle = IdleSession { lease: host.lease, pack: OpenPack { objects, ..written.pack } };
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
                Ok(value)
            }
            (Ok(value), _) => Ok(value),
            (Err(error), written) => {
                self.let_go(host, written);
                Err(error)
            }
        }
    }

    /// Ends a session of which nothing is to remain.
    pub(super) fn abandon(&self, session: WriteSession) {
        let (host, written) = session.dismantle();
        self.let_go(host, written);
    }

    /// Cuts back what was written and releases the lease. An error here changes nothing that was promised: the
    /// next process to open the store finds the lease dead and does the same.
    fn let_go(&self, host: Host, written: Option<WrittenPack>) {
        let unwritten = host.pack.into_inner().unwrap_or_else(PoisonError::into_inner);
        let committed = written.map(WrittenPack::into_committed).or(unwritten);
        let cut = committed.as_ref().map_or(Ok(()), |pack| pack.file.set_len(pack.end));
        match committed {
            Some(pack) if cut.is_ok() && self.options.exclusive => {
                let idle = IdleSession { lease: host.lease, pack };
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
            }
            _ => {
                self.release_leases(&[host.lease]);
            }
        }
    }

    /// Releases leases. An error leaves dead ones behind, which a later opener takes back.
    fn release_leases(&self, leases: &[LeaseId]) {
        let released = self.catalog().and_then(|catalog| {
            catalog.write(|tx| {
                let packs = leases.iter().map(|lease| release(tx, *lease)).collect::<Result<Vec<_>>>()?;
                Ok(packs.concat())
            })
        });
        self.remove_packs(&released.unwrap_or_default());
    }

    /// Removes the files of packs that have no row any more. One that stays is a stray, which recovery removes.
    fn remove_packs(&self, packs: &[PackId]) {
        for pack in packs {
            let _ = self.disk.remove(&pack_file(*pack));
        }
    }
}

impl Drop for Inner {
    /// Releases the leases that an exclusive process kept. An error leaves dead leases, which the next opener takes
    /// back.
    fn drop(&mut self) {
        let idle = std::mem::take(self.idle.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !idle.is_empty() {
            self.release_leases(&idle.iter().map(|idle| idle.lease).collect::<Vec<_>>());
        }
    }
}

/// Makes the lease the owner of a free open pack, or of a new one.
fn own_pack(tx: &mut WriteTx, lease: LeaseId) -> Result<(PackId, PackRecord)> {
    let packs = tx.collect::<Packs>(&[])?;
    let free = packs
        .into_iter()
        .filter(|(_, record)| record.state == PackState::Open && record.owner.is_none())
        .max_by_key(|(_, record)| record.committed_bytes);
    let (pack, mut record) = if let Some(free) = free {
        free
    } else {
        let number = tx.next(Sequence::Pack)?;
        let pack =
            u32::try_from(number).map_err(|_| Error::unsupported(Subject::Catalog, "has too many packs"))?;
        let domain = SHARED_DOMAIN;
        let record =
            PackRecord { state: PackState::Open, committed_bytes: 0, objects: 0, owner: None, domain };
        (PackId::new(pack), record)
    };
    record.owner = Some(lease);
    tx.put::<Packs>(&pack, &record)?;
    Ok((pack, record))
}

/// Lets go of everything a lease holds, and gives the packs that were never published: their rows are gone, and
/// their files may go once the transaction is durable.
fn release(tx: &mut WriteTx, lease: LeaseId) -> Result<Vec<PackId>> {
    let mut unused = Vec::new();
    for (pack, record) in tx.collect::<Packs>(&[])? {
        if record.owner != Some(lease) {
            continue;
        }
        if record.committed_bytes == 0 {
            tx.remove::<Packs>(&pack)?;
            unused.push(pack);
        } else {
            tx.put::<Packs>(&pack, &PackRecord { owner: None, ..record })?;
        }
    }
    tx.remove::<Leases>(&lease)?;
    Ok(unused)
}

fn publish_frames(tx: &mut WriteTx, written: &WrittenPack, owner: Option<LeaseId>) -> Result<()> {
    for frame in &written.frames {
        let record = FrameRecord { frame_bytes: frame.frame_bytes, objects: frame.objects.clone() };
        tx.put::<Frames>(&(written.pack.id, frame.offset), &record)?;
    }
    let record = PackRecord {
        state: PackState::Open,
        committed_bytes: written.pack.end,
        objects: written.objects(),
        owner,
        domain: SHARED_DOMAIN,
    };
    tx.put::<Packs>(&written.pack.id, &record)?;
    tx.next(Sequence::Index).map(drop)
}

impl PackHost for Host {
    fn open_pack(&self) -> Result<OpenPack> {
        if let Some(pack) = self.pack.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(pack);
        }
        let (pack, record) = self.store.catalog()?.write(|tx| own_pack(tx, self.lease))?;
        self.store.open_pack_file(pack, &record)
    }

    fn seal_pack(&self, written: WrittenPack) -> Result<()> {
        let pack = written.pack.id;
        let catalog = self.store.catalog()?;
        let (number, earlier) = catalog
            .write(|tx| Ok((tx.next(Sequence::Segment)?, tx.collect::<Frames>(&key_bytes(&pack))?)))?;
        let number = u32::try_from(number)
            .map_err(|_| Error::unsupported(Subject::Catalog, "has too many index segments"))?;
        let earlier_frames = earlier.iter().map(|((_, offset), record)| WrittenFrame {
            offset: *offset,
            frame_bytes: record.frame_bytes,
            objects: record.objects.clone(),
        });
        let frames: Vec<_> = earlier_frames.chain(written.frames.iter().cloned()).collect();
        let rows: Vec<_> = frames.iter().flat_map(|frame| frame.rows(pack)).collect();
        let objects = rows.len() as u64;
        let id = SegmentId::new(number);
        segment::write(&*self.store.disk, id, rows).inspect_err(|_| self.poison())?;
        catalog.write(|tx| {
            for (key, _) in &earlier {
                tx.remove::<Frames>(key)?;
            }
            let state = PackState::Sealed;
            let committed_bytes = written.pack.end;
            let record = PackRecord { state, committed_bytes, objects, owner: None, domain: SHARED_DOMAIN };
            tx.put::<Packs>(&pack, &record)?;
            tx.put::<Segments>(&id, &SegmentRecord { objects, domain: SHARED_DOMAIN })?;
            tx.next(Sequence::Index).map(drop)
        })
    }

    fn poison(&self) {
        self.store.poison.set();
    }
}

/// Bits of an image id's time that count within a millisecond.
const COUNTER_BITS: u32 = 12;

/// A version 7 UUID of this time and counter; the rest is random.
pub(super) fn image_id(time_and_counter: u64) -> ImageId {
    let ms = time_and_counter >> COUNTER_BITS;
    let counter = time_and_counter & ((1 << COUNTER_BITS) - 1);
    let random = u128::from(Uuid::now_v7().as_u64_pair().1);
    let high = u128::from((ms << 16) | 0x7000 | counter);
    ImageId::from_uuid(Uuid::from_u128((high << 64) | random))
}

/// The time and counter in an image id.
pub(super) fn time_and_counter(id: ImageId) -> u64 {
    let (high, _) = id.as_uuid().as_u64_pair();
    ((high >> 16) << COUNTER_BITS) | (high & 0xfff)
}

/// When an image was made: its id says so.
pub(super) fn created(id: ImageId) -> Moment {
    Moment::from_unix_ms(time_and_counter(id) >> COUNTER_BITS)
}

/// Records that this image id was used.
pub(super) fn remember_image_id(tx: &mut WriteTx, id: ImageId) -> Result<()> {
    let newest = tx.last(Sequence::Image)?.max(time_and_counter(id));
    tx.put::<Sequences>(&Sequence::Image, &newest)
}

/// What makes two imports the same: the tree and the archive it came from; not tags, time or comment.
pub(super) fn identity(root: ObjectId, origin: OriginRecord) -> ObjectId {
    let mut parts = root.as_bytes().to_vec();
    match origin {
        OriginRecord::Directory => parts.push(0),
        OriginRecord::Tar(digest) => {
            parts.push(1);
            parts.extend_from_slice(&digest);
        }
        OriginRecord::Commit => parts.push(2),
    }
    ObjectId::from_bytes(blake3::derive_key("layerstone v1 image identity", &parts))
}

/// An image's identity.
pub(super) fn identity_of(image: &ImageRecord) -> ObjectId {
    identity(image.root, image.origin)
}
