//! Files of what this machine remembers of a directory: written before the transaction whose rows name them, never changed.
//!
//! A file without a row is a killed process's for whoever has the lock and the [turn](Turn).
//!
//! The file of a checkout begins with a zstd frame that readers skip, which has its row as it was then: should the catalog be
//! lost, a repair names the checkout by it. The row itself can't come back so, since segments may have come after it.

use std::io;
use std::sync::Mutex;

use crate::catalog::record::DirectoryRecord;
use crate::catalog::table::{Directories, Sequence, Table as _, key_bytes};
use crate::catalog::{ReadTables, WriteTx};
use crate::disk::{Disk, OpenMode};
use crate::error::{Error, Result, Subject};
use crate::format::{DecodeError, record};
use crate::id::DirectoryId;
use crate::layout::{DIRECTORIES, state_file};
use crate::sync::lock;

use super::Engine;
use super::gate::{OpenCatalog, Turn};

/// How a state is compressed: the paths and times of neighbours are much alike.
const STATE_LEVEL: i32 = 3;

/// How a frame begins that readers of zstd skip; the bytes in it have their number before them.
const SKIPPED: u32 = 0x184D_2A5C;

/// The mark of such a frame, and how long it is.
const HEAD_BYTES: usize = 8;

/// A state that is to be written.
#[derive(Debug)]
pub(crate) struct StateFile {
    packed: Vec<u8>,
    unpacked_bytes: u64,
    /// The row of a checkout, whose state must be durable before it counts.
    row: Mutex<Option<DirectoryRecord>>,
    /// Its number and the frame with its row, once it has them.
    placed: Mutex<Option<(DirectoryId, Vec<u8>)>>,
}

impl StateFile {
    /// Compresses a state.
    pub(crate) fn pack(state: &[u8]) -> Result<Self> {
        let io = |error| Error::io(Subject::Argument("level"), "compress a directory's state", error);
        let packed = zstd::bulk::compress(state, STATE_LEVEL).map_err(io)?;
        Ok(Self {
            packed,
            unpacked_bytes: state.len() as u64,
            row: Mutex::default(),
            placed: Mutex::default(),
        })
    }

    /// Makes the file one of a checkout, which has this row.
    pub(crate) fn name_checkout(&self, row: DirectoryRecord) {
        *lock(&self.row) = Some(row);
    }

    /// Returns its number, which it takes out of the sequence, the length of the file, and of what it unpacks to.
    pub(crate) fn take_number(&self, tx: &mut WriteTx) -> Result<(DirectoryId, u64, u64)> {
        let placed = lock(&self.placed);
        let (id, frame) = placed.as_ref().ok_or_else(unwritten)?;
        tx.advance(Sequence::Directory, id.get())?;
        Ok((*id, (frame.len() + self.packed.len()) as u64, self.unpacked_bytes))
    }

    fn place(&self, id: DirectoryId) -> Result<()> {
        let frame = lock(&self.row).as_ref().map_or(Ok(Vec::new()), |row| row_frame(id, row))?;
        *lock(&self.placed) = Some((id, frame));
        Ok(())
    }
}

fn unwritten() -> Error {
    Error::invalid(Subject::Catalog, "names a state file that was not written")
}

/// The row of a directory as a frame that readers of its state skip.
fn row_frame(id: DirectoryId, row: &DirectoryRecord) -> Result<Vec<u8>> {
    let row = record::encode(Directories::NAME, &key_bytes(&id), row);
    let row = row.map_err(|error| Error::corrupt(Subject::Catalog, error.to_string()))?;
    let bytes = u32::try_from(row.len()).unwrap_or(u32::MAX);
    Ok([&SKIPPED.to_le_bytes()[..], &bytes.to_le_bytes(), &row].concat())
}

/// Returns the row that a state file begins with, as it was when the file was written.
pub(crate) fn row_of(disk: &dyn Disk, id: DirectoryId) -> io::Result<Option<DirectoryRecord>> {
    let file = disk.open(&state_file(id), OpenMode::Read)?;
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    let mut start = vec![0; len.min(HEAD_BYTES + record::MAX_RECORD_BYTES)];
    file.read_at(&mut start, 0)?;
    Ok(row_in(id, &start).ok().flatten())
}

/// Returns the row that the bytes of a state file begin with; none if the file is of no checkout, or of an older version.
/// Fails where the row is damaged.
pub(crate) fn row_in(
    id: DirectoryId,
    file: &[u8],
) -> std::result::Result<Option<DirectoryRecord>, DecodeError> {
    let Some((mark, rest)) = file.split_first_chunk().map(|(mark, rest)| (u32::from_le_bytes(*mark), rest))
    else {
        return Ok(None);
    };
    // Readers skip sixteen marks, of which this is one.
    if mark >> 4 != SKIPPED >> 4 {
        return Ok(None);
    }
    let row = rest.split_first_chunk().filter(|_| mark == SKIPPED);
    let row = row.and_then(|(bytes, rest)| rest.get(..usize::try_from(u32::from_le_bytes(*bytes)).ok()?));
    record::decode(Directories::NAME, &key_bytes(&id), row.unwrap_or_default()).map(Some)
}

impl Engine {
    /// Runs `closure` in a transaction whose rows may name this state file.
    pub(crate) fn write_with_state<T>(
        &self,
        state: Option<&StateFile>,
        closure: impl Fn(&mut WriteTx) -> Result<T>,
    ) -> Result<T> {
        let catalog = self.catalog()?;
        let turn = self.gate.take_turn();
        catalog.check_is_writable()?;
        Self::number_state_files(&turn, &catalog, state.into_iter())?;
        state.map_or(Ok(()), |state| self.create_state_file(&turn, state))?;
        catalog.write(closure)
    }

    /// Gives state files the numbers after the last one that was used.
    pub(super) fn number_state_files<'s>(
        _turn: &Turn<'_>,
        catalog: &OpenCatalog,
        states: impl Iterator<Item = &'s StateFile>,
    ) -> Result<()> {
        let mut states = states.peekable();
        if states.peek().is_none() {
            return Ok(());
        }
        let last = catalog.read(|tx| tx.last(Sequence::Directory))?;
        for (number, state) in (last + 1..).zip(states) {
            state.place(DirectoryId::new(number))?;
        }
        Ok(())
    }

    /// Writes a state file under its number.
    pub(super) fn create_state_file(&self, _turn: &Turn<'_>, state: &StateFile) -> Result<()> {
        let placed = lock(&state.placed);
        let (id, frame) = placed.as_ref().ok_or_else(unwritten)?;
        let name = state_file(*id);
        let write = || {
            self.disk.remove(&name)?;
            let file = self.disk.open(&name, OpenMode::CreateNew)?;
            file.write_at(&[frame, &state.packed[..]].concat(), 0)?;
            if lock(&state.row).is_some() {
                file.sync().and_then(|()| self.disk.sync_dir(DIRECTORIES))
            } else {
                Ok(())
            }
        };
        write().map_err(|error| {
            Error::io(Subject::Store(self.location.clone()), "write a directory's state", error)
        })
    }
}
