//! Reading everything back: that all that was written is what it was, and that all that is referred to is there.
//!
//! The catalog: every row of every table, and what rows say of each other ([`catalog`]). The index: each segment's rows are
//! those that were written. The packs, on all cores: each frame is unpacked, each object hashed, and the index finds it
//! ([`packs`]). The images, one after the other: each object that a tree or a history leads to exists and is sound
//! ([`images`]); what one image has in common with another is followed once. A fault ends none of it.

mod catalog;
mod damage;
mod images;
mod packs;
mod report;

use std::sync::Arc;

use crate::catalog::table::Segments;
use crate::catalog::{ReadTables, ReadTx};
use crate::error::Result;
use crate::pack::index::ObjectIndex;
use crate::pack::reader::ObjectReader;
use crate::pack::segment::Segment;
use crate::task::Phase;

use crate::engine::{Engine, dump, unusable};
use crate::store::Store;

use catalog::CatalogRows;
pub(super) use damage::Damage;
pub(super) use images::{ImageWalk, Losses};
pub use report::{DamagedImage, LostPath, VerifyReport};
pub(super) use report::{as_texts, scope_name};

impl Store {
    /// Reads every byte of the store's packs, index and catalog back and checks it, and that everything that an image of any
    /// project needs is there: its own tree and the records of its history. Others may use the store meanwhile; what they
    /// publish after the call began is not looked at.
    ///
    /// Damage is in the report, not an error. Errors: [`Io`](crate::ErrorKind::Io) where something can't be read;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) where the catalog can't be opened at all, which tells what the rest should be:
    /// then [`Store::repair`] is the way on.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_all(true)
    }

    /// The same without reading what lies in packs but for trees and histories: finds what is missing, cut short or not
    /// referred to as it should be, and not a changed byte of a file's content. [`VerifyReport::objects`] is none.
    pub fn verify_quick(&self) -> Result<VerifyReport> {
        self.verify_all(false)
    }

    fn verify_all(&self, is_full: bool) -> Result<VerifyReport> {
        let _span = tracing::info_span!("verify", is_full).entered();
        let store = &self.0;
        let mut report = VerifyReport::begin(is_full);
        report.is_open_to_others =
            store.disk.is_open_to_others().map_err(|error| unusable(&store.location, error))?;
        let stage = store.task.begin(Phase::CheckingIndex, None);
        let (rows, segments, hold) = {
            let catalog = store.catalog()?;
            // Packs that are condemned from now on stay until all is read.
            let hold = store.hold(&catalog)?;
            catalog.check_pages().or_else(|error| report.note(error))?;
            // While this is kept, and the catalog open, no segment that it names is taken away.
            let index = store.index.lock();
            let snapshot = catalog.snapshot()?;
            let (segments, found) = snapshot.read(|tx| open_segments(store, tx))?;
            report.add(found);
            // What is read of this snapshot from here on is as old as they are.
            drop(index);
            let (rows, found) = snapshot.read(|tx| Ok(CatalogRows::read(tx)))?;
            report.add(found);
            store.check_rows(&rows, is_full, &mut report)?;
            dump::check(&*store.disk, rows.newest_image()).or_else(|error| report.note(error))?;
            (rows, segments, hold)
        };
        let index = ObjectIndex::new(rows.open_objects(), segments, rows.withdrawn());
        let reader = ObjectReader::new(index.into(), store.packs.clone(), hold).with_task(&store.task);
        for segment in reader.index().segments() {
            segment.check_body().or_else(|error| report.note(error))?;
        }
        drop(stage);
        let mut damage = Damage::default();
        if is_full {
            let (found, packs) = store.verify_packs(&reader, rows.extents())?;
            report.add(packs);
            damage = found;
        } else {
            store.measure_packs(rows.extents(), &mut damage, &mut report)?;
        }
        let mut walk = ImageWalk::new(&reader, &damage);
        let _stage = store.task.begin(Phase::CheckingImages, rows.images.len() as u64);
        for (scope, image) in &rows.images {
            store.task.advance(1, 0)?;
            report.images += 1;
            let mut losses = Losses::default();
            walk.follow(image.root, Some(image.layer), &mut losses)?;
            report.add_losses(losses, &rows, *scope, image.id);
        }
        rows.check_workspaces(&mut walk, &mut report)?;
        Ok(report)
    }
}

/// The segments that a snapshot names. Rows that are damaged are told by whoever reads all rows.
fn open_segments(store: &Engine, tx: &ReadTx) -> Result<(Vec<Arc<Segment>>, VerifyReport)> {
    let (mut rows, mut report) = (Vec::new(), VerifyReport::begin(true));
    tx.each::<Segments>(|row| rows.extend(row));
    let mut segments = Vec::new();
    for (id, record) in rows {
        match Segment::open(&*store.disk, id) {
            Ok(segment) => {
                segment.check_len(record.objects).or_else(|error| report.note(error))?;
                segments.push(Arc::new(segment));
            }
            Err(error) => report.note(error)?,
        }
    }
    Ok((segments, report))
}
