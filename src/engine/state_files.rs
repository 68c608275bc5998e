//! Files of what this machine remembers of a directory: written before the transaction whose rows name them, never changed.
//!
//! A file without a row is a killed process's for whoever has the lock and the [turn](Turn).

use std::sync::{Mutex, PoisonError};

use crate::catalog::table::Sequence;
use crate::catalog::{ReadTables, WriteTx};
use crate::disk::OpenMode;
use crate::error::{Error, Result, Subject};
use crate::id::DirectoryId;
use crate::layout::{DIRECTORIES, state_file};

use super::Engine;
use super::gate::{OpenCatalog, Turn};

/// How a state is compressed: the paths and times of neighbours are much alike.
const STATE_LEVEL: i32 = 3;

/// A state that is to be written.
#[derive(Debug)]
pub(crate) struct StateFile {
    packed: Vec<u8>,
    unpacked_bytes: u64,
    /// Whether it must be durable before it counts.
    is_durable: bool,
    /// Its number, once it has one.
    id: Mutex<Option<DirectoryId>>,
}

impl StateFile {
    /// Compresses a state.
    pub(crate) fn pack(state: &[u8], is_durable: bool) -> Result<Self> {
        let io = |error| Error::io(Subject::Argument("level"), "compress a directory's state", error);
        let packed = zstd::bulk::compress(state, STATE_LEVEL).map_err(io)?;
        Ok(Self { packed, unpacked_bytes: state.len() as u64, is_durable, id: Mutex::default() })
    }

    /// Returns the length of the file, and of what it unpacks to.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.packed.len() as u64, self.unpacked_bytes)
    }

    /// Returns its number, and takes it out of the sequence.
    pub(crate) fn take_number(&self, tx: &mut WriteTx) -> Result<DirectoryId> {
        let id = self.number()?;
        tx.advance(Sequence::Directory, id.get())?;
        Ok(id)
    }

    fn number(&self) -> Result<DirectoryId> {
        let number = *self.id.lock().unwrap_or_else(PoisonError::into_inner);
        number.ok_or_else(|| Error::invalid(Subject::Catalog, "names a state file that was not written"))
    }
}

impl Engine {
    /// Runs `closure` in a transaction whose rows may name this state file.
    pub(crate) fn write_with_state<T>(
        &self,
        state: Option<&StateFile>,
        closure: impl Fn(&mut WriteTx) -> Result<T>,
    ) -> Result<T> {
        let turn = self.gate.take_turn();
        let catalog = self.catalog()?;
        catalog.check_is_writable()?;
        self.number_state_files(&turn, &catalog, state.into_iter())?;
        state.map_or(Ok(()), |state| self.create_state_file(&turn, state))?;
        catalog.write(closure)
    }

    /// Gives state files the numbers after the last one that was used.
    pub(super) fn number_state_files<'s>(
        &self,
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
            *state.id.lock().unwrap_or_else(PoisonError::into_inner) = Some(DirectoryId::new(number));
        }
        Ok(())
    }

    /// Writes a state file under its number.
    pub(super) fn create_state_file(&self, _turn: &Turn<'_>, state: &StateFile) -> Result<()> {
        let name = state_file(state.number()?);
        let write = || {
            self.disk.remove(&name)?;
            let file = self.disk.open(&name, OpenMode::CreateNew)?;
            file.write_at(&state.packed, 0)?;
            if state.is_durable { file.sync().and_then(|()| self.disk.sync_dir(DIRECTORIES)) } else { Ok(()) }
        };
        write().map_err(|error| {
            Error::io(Subject::Store(self.location.clone()), "write a directory's state", error)
        })
    }
}
