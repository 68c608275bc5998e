//! Transactions over typed tables.

mod attempt;

use std::io::ErrorKind::{InvalidData, UnexpectedEof};
use std::ops::{Bound, ControlFlow};

use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableError, WriteTransaction,
};

use crate::error::{Error, ErrorKind, Result, Subject};
use crate::format::{Decoder, record};

use super::table::{KeyPart, Sequence, Sequences, TABLES, Table, key_bytes};

use attempt::Attempt;

type RawTable = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// A key and a value.
pub(super) type Bytes = (Vec<u8>, Vec<u8>);
type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);
type Visitor<'v> = dyn FnMut(Bytes) -> Result<ControlFlow<()>> + 'v;

/// So much of a new catalog is free.
const RESERVED_BYTES: usize = 240 << 10;

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ascending,
    Descending,
}

/// A redb error as one of ours.
pub(super) fn failure(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let (kind, message) = match &error {
        redb::Error::Corrupted(_) => (ErrorKind::Corrupt, "its pages are damaged"),
        redb::Error::Io(io) if matches!(io.kind(), InvalidData | UnexpectedEof) => {
            (ErrorKind::Corrupt, "its pages are damaged")
        }
        // Every table is made together with the catalog.
        redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => (ErrorKind::Corrupt, "its tables are damaged"),
        redb::Error::UpgradeRequired(_) => (ErrorKind::Unsupported, "its file format is not this version's"),
        redb::Error::PreviousIo => (ErrorKind::Poisoned, "an earlier write failed; reopen the store"),
        _ => (ErrorKind::Io, "could not be read or written"),
    };
    let failed = Error::new(kind, Subject::Catalog, message);
    match error {
        redb::Error::Io(io) => failed.with_source(io),
        other => failed.with_source(other),
    }
}

/// The bounds of the keys that begin with `prefix`.
fn prefix_bounds(prefix: Vec<u8>) -> KeyRange {
    let mut end = prefix.clone();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return (Bound::Included(prefix), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix), Bound::Unbounded)
}

fn raw_value(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>> {
    Ok(table.get(key).map_err(failure)?.map(|value| value.value().to_vec()))
}

fn raw_scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    bounds: &KeyRange,
    direction: Direction,
    visit: &mut Visitor<'_>,
) -> Result<ControlFlow<()>> {
    let borrowed = (bounds.0.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice));
    let mut range = table.range::<&[u8]>(borrowed).map_err(failure)?;
    loop {
        let next = match direction {
            Direction::Ascending => range.next(),
            Direction::Descending => range.next_back(),
        };
        let Some(row) = next else { return Ok(ControlFlow::Continue(())) };
        let (key, value) = row.map_err(failure)?;
        if visit((key.value().to_vec(), value.value().to_vec()))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

fn decode_key<T: Table>(bytes: &[u8]) -> Result<T::Key> {
    let mut decoder = Decoder(bytes);
    T::Key::decode(&mut decoder)
        .and_then(|key| decoder.finish().map(|()| key))
        .map_err(|error| Error::corrupt(Subject::Record(T::NAME), format!("a key {error}")))
}

fn decode_value<T: Table>(key: &[u8], bytes: &[u8]) -> Result<T::Value> {
    record::decode(T::NAME, key, bytes)
        .map_err(|error| Error::corrupt(Subject::Record(T::NAME), format!("a record {error}")))
}

/// A row of a table from its bytes.
pub(crate) fn decode_row<T: Table>(key: &[u8], value: &[u8]) -> Result<(T::Key, T::Value)> {
    Ok((decode_key::<T>(key)?, decode_value::<T>(key, value)?))
}

/// What both kinds of transaction can do.
pub(crate) trait ReadTables {
    fn raw_get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>>;
    fn raw_range(
        &self,
        table: &'static str,
        bounds: &KeyRange,
        direction: Direction,
        visit: &mut Visitor<'_>,
    ) -> Result<()>;

    /// The record under `key`.
    fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>> {
        let key = key_bytes(key);
        let bytes = self.raw_get(T::NAME, &key)?;
        bytes.map(|bytes| decode_value::<T>(&key, &bytes)).transpose()
    }

    /// Visits the records whose keys begin with `prefix`, from the far side of `after` where one is given, until
    /// the visitor breaks.
    fn scan<T: Table>(
        &self,
        prefix: &[u8],
        after: Option<&T::Key>,
        direction: Direction,
        mut visit: impl FnMut(T::Key, T::Value) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut bounds = prefix_bounds(prefix.to_vec());
        if let Some(after) = after {
            match direction {
                Direction::Ascending => bounds.0 = Bound::Excluded(key_bytes(after)),
                Direction::Descending => bounds.1 = Bound::Excluded(key_bytes(after)),
            }
        }
        self.raw_range(T::NAME, &bounds, direction, &mut |(key, value)| {
            visit(decode_key::<T>(&key)?, decode_value::<T>(&key, &value)?)
        })
    }

    /// Visits the bytes of every row of a table. Fails with *corrupt* at one that is not what was written.
    fn scan_checked<T: Table>(&self, mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        self.raw_range(T::NAME, &(Bound::Unbounded, Bound::Unbounded), Direction::Ascending, &mut |row| {
            decode_row::<T>(&row.0, &row.1)?;
            visit(&row.0, &row.1).map(ControlFlow::Continue)
        })
    }

    /// All records whose keys begin with `prefix`: only for ranges that are small by nature.
    fn collect<T: Table>(&self, prefix: &[u8]) -> Result<Vec<(T::Key, T::Value)>> {
        let mut rows = Vec::new();
        self.scan::<T>(prefix, None, Direction::Ascending, |key, value| {
            rows.push((key, value));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    /// Every row of a table as far as its pages can be read; each that is damaged is given as the error that it is.
    fn each<T: Table>(&self, mut visit: impl FnMut(Result<(T::Key, T::Value)>)) {
        self.each_raw(T::NAME, |row| {
            visit(
                row.and_then(|(key, value)| Ok((decode_key::<T>(&key)?, decode_value::<T>(&key, &value)?))),
            );
        });
    }

    /// The same, of the rows' bytes.
    fn each_raw(&self, table: &'static str, mut visit: impl FnMut(Result<Bytes>)) {
        let mut last = None;
        let all = (Bound::Unbounded, Bound::Unbounded);
        let forward = super::contain(|| {
            self.raw_range(table, &all, Direction::Ascending, &mut |row| {
                last = Some(row.0.clone());
                visit(Ok(row));
                Ok(ControlFlow::Continue(()))
            })
        });
        let Err(error) = forward else { return };
        visit(Err(error));
        // What lies behind the damage is reached from the other end.
        let rest = (last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let backward = super::contain(|| {
            self.raw_range(table, &rest, Direction::Descending, &mut |row| {
                visit(Ok(row));
                Ok(ControlFlow::Continue(()))
            })
        });
        // It is the same damage, met from behind.
        drop(backward);
    }

    /// The last number handed out of a sequence.
    fn last(&self, sequence: Sequence) -> Result<u64> {
        Ok(self.get::<Sequences>(&sequence)?.unwrap_or(0))
    }
}

/// A snapshot of the catalog.
pub(crate) struct ReadTx(pub(super) ReadTransaction);

/// A transaction that changes the catalog.
pub(crate) struct WriteTx {
    transaction: WriteTransaction,
    /// What is being [attempted](Self::attempt), and not in the transaction yet.
    attempt: Option<Attempt>,
}

impl ReadTables for ReadTx {
    fn raw_get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        raw_value(&self.0.open_table(RawTable::new(table)).map_err(failure)?, key)
    }

    fn raw_range(
        &self,
        table: &'static str,
        bounds: &KeyRange,
        direction: Direction,
        visit: &mut Visitor<'_>,
    ) -> Result<()> {
        let table = self.0.open_table(RawTable::new(table)).map_err(failure)?;
        raw_scan(&table, bounds, direction, visit).map(drop)
    }
}

impl ReadTables for WriteTx {
    fn raw_get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(attempted) = self.attempt.as_ref().and_then(|attempt| attempt.get(table, key)) {
            return Ok(attempted.clone());
        }
        raw_value(&self.transaction.open_table(RawTable::new(table)).map_err(failure)?, key)
    }

    fn raw_range(
        &self,
        table: &'static str,
        bounds: &KeyRange,
        direction: Direction,
        visit: &mut Visitor<'_>,
    ) -> Result<()> {
        let opened = self.transaction.open_table(RawTable::new(table)).map_err(failure)?;
        match &self.attempt {
            None => raw_scan(&opened, bounds, direction, visit).map(drop),
            Some(attempt) => {
                let scan = |visit: &mut Visitor<'_>| raw_scan(&opened, bounds, direction, visit);
                attempt.scan_over(table, bounds, direction, scan, visit)
            }
        }
    }
}

impl ReadTx {
    /// How many rows a table has.
    pub(crate) fn count(&self, table: &'static str) -> Result<u64> {
        self.0.open_table(RawTable::new(table)).map_err(failure)?.len().map_err(failure)
    }

    /// Bytes of all keys and values.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn stored_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for name in TABLES {
            let bounds = (Bound::Unbounded, Bound::Unbounded);
            self.raw_range(name, &bounds, Direction::Ascending, &mut |(key, value)| {
                bytes += (key.len() + value.len()) as u64;
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(bytes)
    }
}

impl WriteTx {
    pub(super) fn new(transaction: WriteTransaction) -> Self {
        Self { transaction, attempt: None }
    }

    pub(super) fn commit(self) -> Result<()> {
        self.transaction.commit().map_err(failure)
    }

    /// Makes every table, so that a reader never meets one that is missing.
    pub(super) fn create_tables(&mut self) -> Result<()> {
        for name in TABLES {
            let opened = self.transaction.open_table(RawTable::new(name)).map(drop);
            opened.map_err(|error: TableError| failure(error))?;
        }
        Ok(())
    }

    /// Grows the file, so that a small catalog need not grow to remove rows where the disk is full.
    pub(super) fn reserve_room(&mut self) -> Result<()> {
        let mut table = self.transaction.open_table(RawTable::new(Sequences::NAME)).map_err(failure)?;
        let key: &[u8] = b"room";
        table.insert(key, vec![0; RESERVED_BYTES].as_slice()).map_err(failure)?;
        table.remove(key).map(drop).map_err(failure)
    }

    /// Runs one of several closures that share this transaction: unless it returns `Ok`, nothing of what it did remains.
    pub(crate) fn attempt<T>(&mut self, closure: impl Fn(&mut Self) -> Result<T>) -> Result<T> {
        self.attempt = Some(Attempt::default());
        let outcome = closure(self);
        let attempt = self.attempt.take().unwrap_or_default();
        let value = outcome?;
        attempt.changes().try_for_each(|(table, key, value)| self.raw_change(table, &key, value))?;
        Ok(value)
    }

    fn raw_change(&mut self, table: &'static str, key: &[u8], value: Option<Vec<u8>>) -> Result<()> {
        if let Some(attempt) = &mut self.attempt {
            attempt.change(table, key.to_vec(), value);
            return Ok(());
        }
        let mut table = self.transaction.open_table(RawTable::new(table)).map_err(failure)?;
        match value {
            Some(value) => table.insert(key, value.as_slice()).map_err(failure)?,
            None => table.remove(key).map_err(failure)?,
        };
        Ok(())
    }

    /// Sets the record under `key`.
    pub(crate) fn put<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> Result<()> {
        let key = key_bytes(key);
        let bytes = record::encode(T::NAME, &key, value)
            .map_err(|error| Error::invalid(Subject::Record(T::NAME), format!("the record {error}")))?;
        self.raw_change(T::NAME, &key, Some(bytes))
    }

    /// Removes the record under `key` and says whether there was one.
    pub(crate) fn remove<T: Table>(&mut self, key: &T::Key) -> Result<bool> {
        let key = key_bytes(key);
        let existed = self.raw_get(T::NAME, &key)?.is_some();
        if existed {
            self.raw_change(T::NAME, &key, None)?;
        }
        Ok(existed)
    }

    /// Takes the numbers of a sequence up to this one.
    pub(crate) fn advance(&mut self, sequence: Sequence, number: u64) -> Result<()> {
        if number > self.last(sequence)? { self.put::<Sequences>(&sequence, &number) } else { Ok(()) }
    }

    /// The next number of a sequence, from 1.
    pub(crate) fn next(&mut self, sequence: Sequence) -> Result<u64> {
        let next = self.last(sequence)? + 1;
        self.put::<Sequences>(&sequence, &next)?;
        Ok(next)
    }
}
