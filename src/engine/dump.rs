//! The catalog's dump: a file beside it with what packs can't tell, should the catalog be lost.
//!
//! ```text
//! dump = head row* check(32)
//! head (40 bytes) = "LSDUMP" version(1) 0(1) written-ms(8) newest-image(8) rows(8) 0(8)
//! row  = table(1) key-bytes(varint) key value-bytes(varint) value
//! ```
//! Numbers are little-endian; the check is BLAKE3 over all before it; keys and values are the catalog's, whose own checks are
//! looked at before they are written. `newest-image` is the time and counter of the newest image id: a catalog that has not
//! given it out is older than its dump.
//!
//! It is written when the store is made, then in the background after a change, if the last one is [old](Head::is_old) or
//! [outgrown](Head::is_outgrown), and by each collection that frees anything: under another name, synced, renamed, the folder
//! synced. Whoever writes it has the catalog open, and of the threads that share that one writes at a time.
//! What it says may be out of date, and only repair goes by its rows. Its head tells verification, and whoever opens the
//! catalog, that an older copy of that was put back.

use crate::catalog::table::{Images, Lineage, Projects, Sequence, Sequences, Table, Tags, Workspaces};
use crate::catalog::{Catalog, ReadTables, ReadTx};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result, Subject};
use crate::format::{DecodeError, Decoder, Encoder, checked};
use crate::id::ImageId;
use crate::layout::{DUMP_FILE, NEW_DUMP_FILE};
use crate::time::Moment;

use super::Engine;
use super::image_id::time_and_counter;

const MAGIC: &[u8; 6] = b"LSDUMP";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 40;
/// Bytes that are collected for one write.
const WRITE_BYTES: usize = 256 << 10;

/// The tables in a dump, by their numbers. The others follow from them and from packs, or are caches.
const DUMPED: [&str; 6] =
    [Sequences::NAME, Projects::NAME, Images::NAME, Tags::NAME, Lineage::NAME, Workspaces::NAME];

/// Milliseconds for which a dump is new.
const NEW_MS: u64 = 60_000;

impl Engine {
    /// Writes the dump again if it may lack an image whose id is no later than the newest that it knows: without a catalog
    /// that one would be taken for removed. Where it can't be written now, the next change does.
    pub(crate) fn dump_late_image(&self, image: ImageId) {
        let may_lack = |head: Head| head.newest_image >= time_and_counter(image);
        if matches!(read_head(&*self.disk), Ok(Ok(head)) if may_lack(head)) {
            let catalog = self.catalog();
            let _ = catalog.and_then(|catalog| write(&*self.disk, &catalog, self.surroundings.now()));
        }
    }
}

fn failed(action: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::io(Subject::Catalog, action, error)
}

fn damaged(error: DecodeError) -> Error {
    Error::corrupt(Subject::Catalog, format!("its dump '{DUMP_FILE}' {error}")).with_source(error)
}

/// How a dump begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    written_ms: u64,
    /// The time and counter of the newest image.
    pub(crate) newest_image: u64,
    rows: u64,
}

impl Head {
    fn encode(self) -> Vec<u8> {
        let mut head = Encoder::default();
        head.raw(MAGIC).u8(VERSION).u8(0);
        for number in [self.written_ms, self.newest_image, self.rows, 0] {
            head.raw(&number.to_le_bytes());
        }
        head.0
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        if decoder.raw(6)? != MAGIC || decoder.u8()? != VERSION || decoder.u8()? != 0 {
            return Err(DecodeError::UnknownTag);
        }
        let mut number = || decoder.array().map(u64::from_le_bytes);
        let head = Self { written_ms: number()?, newest_image: number()?, rows: number()? };
        number()?;
        Ok(head)
    }

    /// Whether a change is worth another dump: one of many rows takes longer, and is written less often. One of the future is
    /// from before the clock was put right.
    fn is_old(self, now: Moment) -> bool {
        now.unix_ms().abs_diff(self.written_ms) >= NEW_MS.saturating_add(self.rows)
    }

    /// Whether so many rows are more than twice its own: a new store is not to have an empty dump for its first
    /// minute, and all of these take no more time than the last.
    fn is_outgrown(self, rows: u64) -> bool {
        rows > self.rows.saturating_mul(2)
    }

    /// Fails with *corrupt* if the catalog, whose newest image is this, is older than the dump.
    pub(crate) fn check_is_not_newer(self, newest_image: u64) -> Result<()> {
        if self.newest_image <= newest_image {
            return Ok(());
        }
        let message = format!(
            "it is older than its dump of {}: an older copy was put back; repair the store",
            self.written()
        );
        Err(Error::corrupt(Subject::Catalog, message))
    }

    /// When it was written.
    pub(crate) fn written(self) -> Moment {
        Moment::from_unix_ms(self.written_ms)
    }
}

fn read_head(disk: &dyn Disk) -> std::io::Result<Result<Head, DecodeError>> {
    let mut head = [0; HEAD_BYTES];
    disk.open(DUMP_FILE, OpenMode::Read)?.read_at(&mut head, 0)?;
    Ok(Head::decode(&mut Decoder(&head)))
}

/// Fails with *corrupt* if the dump has images that the catalog never gave out: an older copy of the catalog was put back, and
/// what it does not know is no garbage. A dump that is damaged tells nothing, whatever its head says.
pub(crate) fn check_is_not_newer_than(disk: &dyn Disk, tx: &impl ReadTables) -> Result<()> {
    let Ok(Ok(head)) = read_head(disk) else { return Ok(()) };
    let told = head.check_is_not_newer(tx.last(Sequence::Image)?);
    let is_damaged = || Dump::read(disk).is_err_and(|error| error.is_corrupt());
    if told.is_err() && is_damaged() { Ok(()) } else { told }
}

/// Whether the dump is to be written again.
pub(crate) fn is_due(disk: &dyn Disk, tx: &ReadTx, now: Moment) -> Result<bool> {
    match read_head(disk) {
        // One that is newer than the catalog is kept for a repair.
        Ok(Ok(head)) => Ok((head.is_old(now) || head.is_outgrown(count_rows(tx)?))
            && check_is_not_newer_than(disk, tx).is_ok()),
        Ok(Err(_)) => Ok(true),
        Err(error) => Ok(error.kind() == std::io::ErrorKind::NotFound),
    }
}

/// Rows that are in a dump written now.
fn count_rows(tx: &ReadTx) -> Result<u64> {
    DUMPED.iter().try_fold(0, |sum, table| Ok(sum + tx.count(table)?))
}

/// Writes the dump, unless what is to be in it is damaged.
pub(crate) fn write(disk: &dyn Disk, catalog: &Catalog, now: Moment) -> Result<()> {
    let _turn = catalog.take_dump_turn();
    // A dump that outlived what it is of would say that an older copy of the catalog was put back.
    catalog.make_durable()?;
    if let Ok(Some(dump)) = Dump::read(disk) {
        dump.head.check_is_not_newer(catalog.read(|tx| tx.last(Sequence::Image))?)?;
    }
    // What is left of one that can't be written would only take room, of which there may be none.
    write_new(disk, catalog, now).inspect_err(|_| drop(disk.remove(NEW_DUMP_FILE)))
}

fn write_new(disk: &dyn Disk, catalog: &Catalog, now: Moment) -> Result<()> {
    disk.remove(NEW_DUMP_FILE).map_err(failed("remove an unfinished dump"))?;
    let file = disk.open(NEW_DUMP_FILE, OpenMode::CreateNew).map_err(failed("create its dump"))?;
    catalog.read(|tx| {
        let newest_image = tx.last(Sequence::Image)?;
        let head = Head { written_ms: now.unix_ms(), newest_image, rows: count_rows(tx)? };
        let mut writer = Writer::new(&*file, head);
        writer.push_table::<Sequences>(tx)?;
        writer.push_table::<Projects>(tx)?;
        writer.push_table::<Images>(tx)?;
        writer.push_table::<Tags>(tx)?;
        writer.push_table::<Lineage>(tx)?;
        writer.push_table::<Workspaces>(tx)?;
        writer.finish()
    })?;
    file.sync().map_err(failed("sync its dump"))?;
    disk.rename(NEW_DUMP_FILE, DUMP_FILE).map_err(failed("rename its dump"))?;
    disk.sync_dir("").map_err(failed("sync the store's directory"))
}

/// Removes what a process was writing that was killed, unless a thread of this one is writing a dump now.
pub(crate) fn remove_unfinished(disk: &dyn Disk, catalog: &Catalog) -> Result<()> {
    let Some(_turn) = catalog.try_take_dump_turn() else { return Ok(()) };
    disk.remove(NEW_DUMP_FILE).map_err(failed("remove an unfinished dump"))
}

struct Writer<'f> {
    file: &'f dyn DiskFile,
    encoded: Encoder,
    offset: u64,
    hasher: blake3::Hasher,
}

impl<'f> Writer<'f> {
    fn new(file: &'f dyn DiskFile, head: Head) -> Self {
        Self { file, encoded: Encoder(head.encode()), offset: 0, hasher: blake3::Hasher::new() }
    }

    fn push_table<T: Table>(&mut self, tx: &ReadTx) -> Result<()> {
        let number =
            DUMPED.iter().zip(0..).find(|(name, _)| **name == T::NAME).map_or(0, |(_, number)| number);
        tx.scan_checked::<T>(|key, value| {
            self.encoded.u8(number).bytes(key).bytes(value);
            if self.encoded.0.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
        })
    }

    fn write(&mut self) -> Result<()> {
        self.hasher.update(&self.encoded.0);
        self.file.write_at(&self.encoded.0, self.offset).map_err(failed("write its dump"))?;
        self.offset += self.encoded.0.len() as u64;
        self.encoded.0.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.write()?;
        let check = *self.hasher.finalize().as_bytes();
        self.file.write_at(&check, self.offset).map_err(failed("write its dump"))
    }
}

/// A row's table, key and value.
pub(crate) type Row = (&'static str, Vec<u8>, Vec<u8>);

/// A dump, read and found sound.
#[derive(Debug)]
pub(crate) struct Dump {
    pub(crate) head: Head,
    pub(crate) rows: Vec<Row>,
}

impl Dump {
    /// The dump, if there is one. Fails with *corrupt* if it is not what was written.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>> {
        let file = match disk.open(DUMP_FILE, OpenMode::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("open its dump"))?,
        };
        let len = file.len().map_err(failed("measure its dump"))?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, 0).map_err(failed("read its dump"))?;
        Self::decode(&bytes).map(Some).map_err(damaged)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder(checked(bytes)?);
        let head = Head::decode(&mut decoder)?;
        let mut rows = Vec::new();
        while !decoder.is_empty() {
            let table = DUMPED.get(usize::from(decoder.u8()?)).ok_or(DecodeError::UnknownTag)?;
            rows.push((*table, decoder.bytes()?.to_vec(), decoder.bytes()?.to_vec()));
        }
        if rows.len() as u64 == head.rows { Ok(Self { head, rows }) } else { Err(DecodeError::BadNumber) }
    }
}

/// The rows of the dump with these bytes: each row's table, key and value.
#[cfg(feature = "testing")]
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Row>, DecodeError> {
    Dump::decode(bytes).map(|dump| dump.rows)
}

/// Fails with *corrupt* if the dump is missing or damaged, or newer than the catalog.
pub(crate) fn check(disk: &dyn Disk, newest_image: u64) -> Result<()> {
    let missing = || {
        let message = format!("its dump '{DUMP_FILE}' is missing; it is written again after the next change");
        Error::corrupt(Subject::Catalog, message)
    };
    Dump::read(disk)?.ok_or_else(missing)?.head.check_is_not_newer(newest_image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Poison;
    use crate::disk::MemoryDisk;

    #[test]
    fn a_dump_comes_back_or_is_found_damaged() {
        let disk = MemoryDisk::default();
        Catalog::create(&disk).unwrap();
        let catalog = Catalog::open(&disk, Poison::default()).unwrap();
        assert!(Dump::read(&disk).unwrap().is_none());
        assert!(check(&disk, 0).unwrap_err().is_corrupt());
        catalog.write(|tx| tx.put::<Sequences>(&Sequence::Image, &7)).unwrap();
        write(&disk, &catalog, Moment::now()).unwrap();
        let dump = Dump::read(&disk).unwrap().unwrap();
        assert_eq!((dump.head.newest_image, dump.head.rows), (7, 1));
        assert!(matches!(&dump.rows[..], [("sequences", key, _)] if key == b"image"), "{dump:?}");
        assert!(check(&disk, 7).is_ok());
        assert!(check(&disk, 6).unwrap_err().to_string().contains("an older copy was put back"));
        let is_due = || catalog.read(|tx| is_due(&disk, tx, Moment::now())).unwrap();
        assert!(!is_due(), "it is new");
        let future = Moment::from_unix_ms(Moment::now().unix_ms() + 1_000_000);
        assert!(catalog.read(|tx| super::is_due(&disk, tx, future)).unwrap(), "it is old");
        write(&disk, &catalog, future).unwrap();
        assert!(is_due(), "it is of the future");
        write(&disk, &catalog, Moment::now()).unwrap();
        catalog.write(|tx| tx.put::<Sequences>(&Sequence::Pack, &1)).unwrap();
        assert!(!is_due(), "it has half of the rows");
        catalog.write(|tx| tx.put::<Sequences>(&Sequence::Lease, &1)).unwrap();
        assert!(is_due(), "it has less than half of the rows");
        write(&disk, &catalog, Moment::now()).unwrap();
        let dump = Dump::read(&disk).unwrap().unwrap();

        let file = disk.open(DUMP_FILE, OpenMode::Write).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        for at in 0..bytes.len() {
            file.write_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
            assert!(Dump::read(&disk).unwrap_err().is_corrupt(), "byte {at}");
            file.write_at(&bytes, 0).unwrap();
        }
        catalog.write(|tx| tx.put::<Sequences>(&Sequence::Image, &6)).unwrap();
        let is_newer = || catalog.read(|tx| check_is_not_newer_than(&disk, tx)).is_err();
        assert!(is_newer());
        file.write_at(&[!bytes[HEAD_BYTES]], HEAD_BYTES as u64).unwrap();
        assert!(!is_newer(), "a damaged dump tells nothing");
        file.write_at(&bytes, 0).unwrap();
        assert!(write(&disk, &catalog, Moment::now()).unwrap_err().is_corrupt(), "the newer dump is kept");
        assert_eq!(Dump::read(&disk).unwrap().unwrap().head, dump.head);
    }

    #[test]
    fn golden_bytes() {
        let head = Head { written_ms: 1, newest_image: 2, rows: 3 };
        let hex = crate::format::hex(&head.encode());
        assert_eq!(
            hex,
            "4c5344554d500100010000000000000002000000000000000300000000000000\
                         0000000000000000"
        );
    }
}
