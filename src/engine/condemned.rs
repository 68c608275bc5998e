//! What becomes of packs: condemned when nothing is needed of them, alive again when a session counted on them that began
//! before, removed when nobody is left who began before.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use super::Engine;
use super::closure::{self, Needs};
use crate::catalog::record::{CondemnedPackRecord, SealedPackRecord};
use crate::catalog::table::{CondemnedPacks, RemovedPacks, SealedPacks, Sequence};
use crate::catalog::{ReadTables, WriteTx};
use crate::error::{Error, Result, Subject};
use crate::id::PackId;
use crate::pack::generation::GenerationGuard;
use crate::pack::reader::ObjectReader;

/// Condemns packs, and gives those that were as they are given here.
pub(crate) fn condemn(
    tx: &mut WriteTx,
    packs: impl IntoIterator<Item = (PackId, SealedPackRecord)>,
) -> Result<Vec<(PackId, SealedPackRecord)>> {
    let mut condemned = Vec::new();
    let generation = tx.last(Sequence::Generation)? + 1;
    for (pack, record) in packs {
        if tx.get::<SealedPacks>(&pack)? == Some(record) {
            tx.remove::<SealedPacks>(&pack)?;
            tx.put::<CondemnedPacks>(&pack, &CondemnedPackRecord { pack: record, generation })?;
            condemned.push((pack, record));
        }
    }
    if !condemned.is_empty() {
        tx.next(Sequence::Generation)?;
        tx.next(Sequence::Index)?;
    }
    Ok(condemned)
}

/// What a session counts on without having written it.
pub(crate) struct Reliance {
    pub(crate) store: Arc<Engine>,
    /// Since when.
    pub(crate) hold: Arc<GenerationGuard>,
    /// Packs in which it found objects.
    pub(crate) packs: HashSet<PackId>,
    /// What it took over parts of.
    pub(crate) bases: Vec<Needs>,
}

impl Reliance {
    /// Goes through the bases, if packs were condemned since the session began: before the transaction, in which others
    /// would wait for it.
    pub(crate) fn prepare(mut self) -> Result<Self> {
        let catalog = self.store.catalog()?;
        if !catalog.read(|tx| self.condemned_since(tx))?.is_empty() {
            let reader = self.store.reader(&catalog, &self.hold)?;
            drop(catalog);
            self.packs = self.with_packs_of_bases(&reader)?;
            self.bases.clear();
        }
        Ok(self)
    }

    /// Brings back what was condemned since the session began and what it makes may need.
    pub(crate) fn revive(&self, tx: &mut WriteTx) -> Result<()> {
        if tx.last(Sequence::Generation)? == self.hold.generation() {
            return Ok(());
        }
        // Where holds have no effect (a file system without locks) this is all there is.
        for pack in &self.packs {
            if tx.get::<RemovedPacks>(pack)?.is_some() {
                let message = "was removed while it was counted on; try again";
                return Err(Error::conflict(Subject::Pack(*pack), message));
            }
        }
        let condemned = self.condemned_since(tx)?;
        if condemned.is_empty() {
            return Ok(());
        }
        let needed = if self.bases.is_empty() {
            Cow::Borrowed(&self.packs)
        } else {
            // They were condemned a moment ago.
            let index = self.store.index.view_apart(&*self.store.catalog()?)?;
            let reader = ObjectReader::new(index, Arc::clone(&self.store.packs), Arc::clone(&self.hold));
            Cow::Owned(self.with_packs_of_bases(&reader)?)
        };
        for (pack, record) in condemned.into_iter().filter(|(pack, _)| needed.contains(pack)) {
            tx.remove::<CondemnedPacks>(&pack)?;
            tx.put::<SealedPacks>(&pack, &record.pack)?;
        }
        tx.next(Sequence::Index).map(drop)
    }

    /// Returns the packs that the session counts on and those that the bases need, as they were when the session began: it
    /// holds them.
    fn with_packs_of_bases(&self, reader: &ObjectReader) -> Result<HashSet<PackId>> {
        let (mut packs, mut seen) = (self.packs.clone(), HashSet::new());
        for base in self.bases.iter().copied() {
            closure::walk(reader, base, |id| {
                let pack = reader.pack_of(id)?;
                packs.insert(pack.ok_or_else(|| {
                    Error::conflict(Subject::Object(*id), "was removed while it was counted on; try again")
                })?);
                Ok(seen.insert(*id))
            })?;
        }
        Ok(packs)
    }

    fn condemned_since(&self, tx: &impl ReadTables) -> Result<Vec<(PackId, CondemnedPackRecord)>> {
        let rows = tx.collect::<CondemnedPacks>(&[])?.into_iter();
        Ok(rows.filter(|(_, record)| record.generation > self.hold.generation()).collect())
    }
}

/// Packs that were removed, and those that somebody may still read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Removed {
    pub(crate) packs: u64,
    pub(crate) bytes: u64,
    pub(crate) waiting_packs: u64,
    pub(crate) waiting_bytes: u64,
}

impl Engine {
    /// Removes condemned packs that nobody who began before can need.
    pub(crate) fn remove_condemned(&self) -> Result<Removed> {
        let catalog = self.catalog()?;
        let nobody_begins = self.holds.lock();
        let condemned = catalog.read(|tx| tx.collect::<CondemnedPacks>(&[]))?;
        let mut removed = Removed::default();
        if condemned.is_empty() {
            return Ok(removed);
        }
        let oldest = self.oldest_held(&catalog)?;
        let (free, waiting): (Vec<_>, Vec<_>) =
            condemned.into_iter().partition(|(_, record)| record.generation <= oldest);
        removed.waiting_packs = waiting.len() as u64;
        removed.waiting_bytes = waiting.iter().map(|(_, record)| record.pack.bytes).sum();
        if free.is_empty() {
            return Ok(removed);
        }
        // One that was brought back meanwhile stays.
        let gone = catalog.write(|tx| {
            let mut gone = Vec::new();
            for (pack, record) in &free {
                if tx.get::<CondemnedPacks>(pack)?.as_ref() == Some(record) {
                    tx.remove::<CondemnedPacks>(pack)?;
                    tx.put::<RemovedPacks>(pack, &())?;
                    gone.push((*pack, record.pack.bytes));
                }
            }
            tx.next(Sequence::Index)?;
            Ok(gone)
        })?;
        // Nobody waits while the files go.
        drop(nobody_begins);
        drop(catalog);
        let packs: Vec<_> = gone.iter().map(|(pack, _)| *pack).collect();
        self.remove_forgotten(&packs);
        removed.packs = gone.len() as u64;
        removed.bytes = gone.iter().map(|(_, bytes)| bytes).sum();
        Ok(removed)
    }

    /// Removes the files of packs that the catalog has forgotten and that may have been read.
    pub(crate) fn remove_forgotten(&self, packs: &[PackId]) {
        self.packs.close(packs.iter().copied());
        self.remove_packs(packs);
    }
}
