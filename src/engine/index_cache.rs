//! The object index as the catalog has it: loaded once, then brought up to date.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::catalog::table::{CondemnedPacks, OpenPacks, RemovedPacks, Segments, Sequence};
use crate::catalog::{Catalog, ReadTables, ReadTx};
use crate::disk::Disk;
use crate::error::Result;
use crate::id::{PackId, SegmentId};
use crate::pack::index::{ObjectIndex, OpenPackObjects};
use crate::pack::segment::Segment;
use crate::sync::lock;

use super::packs;

/// The newest view of the index, and what the next one can be made of.
#[derive(Debug)]
pub(crate) struct IndexCache {
    disk: Arc<dyn Disk>,
    newest: Mutex<Newest>,
}

#[derive(Debug, Default)]
pub(crate) struct Newest {
    /// The catalog's count of changes to the index.
    version: u64,
    generation: u64,
    view: Arc<ObjectIndex>,
    open: HashMap<PackId, Arc<OpenPackObjects>>,
    segments: HashMap<SegmentId, Arc<Segment>>,
}

impl IndexCache {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, newest: Mutex::default() }
    }

    /// While this is held, nobody opens segments: their files may be taken away together with their rows.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Newest> {
        lock(&self.newest)
    }

    /// The index as the catalog has it now, and whether packs were condemned since this was asked last.
    pub(crate) fn view(&self, catalog: &Catalog) -> Result<(Arc<ObjectIndex>, bool)> {
        let mut newest = self.lock();
        let known = &*newest;
        let newer = catalog.read(|tx| {
            let version = tx.last(Sequence::Index)?;
            (known.version != version).then(|| self.load(tx, version, known)).transpose()
        })?;
        let generation = newest.generation;
        if let Some(newer) = newer {
            *newest = newer;
        }
        Ok((Arc::clone(&newest.view), newest.generation != generation))
    }

    /// The same for whoever has a transaction open, and so must not wait for those who wait for it.
    pub(crate) fn view_apart(&self, catalog: &Catalog) -> Result<Arc<ObjectIndex>> {
        catalog.read(|tx| Ok(self.load(tx, tx.last(Sequence::Index)?, &Newest::default())?.view))
    }

    fn load(&self, tx: &ReadTx, version: u64, known: &Newest) -> Result<Newest> {
        let mut open = HashMap::new();
        let mut views = Vec::new();
        for (pack, record) in tx.collect::<OpenPacks>(&[])? {
            // What went to segments since is in the old map too, which would only grow.
            let known = known.open.get(&pack).filter(|known| known.start() == record.indexed_bytes);
            let objects = known.cloned();
            let objects =
                objects.unwrap_or_else(|| Arc::new(OpenPackObjects::new(pack, record.indexed_bytes)));
            if objects.end() < record.committed_bytes {
                objects.extend(packs::frames_from(tx, pack, objects.end())?, record.committed_bytes);
            }
            views.push((Arc::clone(&objects), record.committed_bytes));
            open.insert(pack, objects);
        }
        let mut segments = HashMap::new();
        for (id, _) in tx.collect::<Segments>(&[])? {
            let segment = match known.segments.get(&id) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Segment::open(&*self.disk, id)?),
            };
            segments.insert(id, segment);
        }
        // The largest first: it is the likeliest to have an object.
        let mut by_size: Vec<_> = segments.values().cloned().collect();
        by_size.sort_unstable_by_key(|segment| std::cmp::Reverse((segment.len(), segment.id())));
        let removed = tx.collect::<RemovedPacks>(&[])?.into_iter().map(|(pack, ())| (pack, 0));
        let condemned = tx.collect::<CondemnedPacks>(&[])?.into_iter();
        let withdrawn = removed.chain(condemned.map(|(pack, record)| (pack, record.generation))).collect();
        let view = Arc::new(ObjectIndex::new(views, by_size, withdrawn));
        Ok(Newest { version, generation: tx.last(Sequence::Generation)?, view, open, segments })
    }
}
