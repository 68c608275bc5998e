//! The new catalog.

use std::collections::BTreeMap;

use crate::catalog::WriteTx;
use crate::catalog::record::{DirectoryUse, OpenPackRecord, SealedPackRecord};
use crate::catalog::table::{
    Children, CondemnedPacks, Directories, DirectoryAppended, DirectoryPlaces, Identities, ImageTags, Images,
    Lineage, Lowers, OpenPacks, Projects, SealedPacks, Segments, Sequence, Sequences, Tags, Workspaces,
};
use crate::disk::Disk;
use crate::engine::packs::SHARED_DOMAIN;
use crate::error::Result;
use crate::id::{DirectoryId, PackId};
use crate::ledger::directories::KnownDirectory;
use crate::ledger::identity::identity_keys;
use crate::time::Moment;

use super::images::import_identity;
use super::output::{Output, SoundPack};
use super::report::RepairReport;
use super::rows::Rows;
use super::scan::Scanned;

impl Rows {
    /// Drops what the store knew of directories whose state can't be read, and gives them.
    pub(super) fn drop_directories(
        &mut self,
        disk: &dyn Disk,
        report: &mut RepairReport,
    ) -> Result<Vec<DirectoryId>> {
        let mut dropped = Vec::new();
        for (id, record) in &self.directories {
            let known = KnownDirectory { id: *id, record: record.clone() };
            let appended: Vec<_> = self
                .appended
                .range((*id, 0)..(*id, record.appended))
                .map(|(_, appended)| appended.clone())
                .collect();
            let is_complete = appended.len() as u64 == record.appended;
            let state = known.load_state(disk, appended.into_iter());
            match state.map(|_| is_complete) {
                Ok(true) => {}
                Err(error) if !error.is_corrupt() => return Err(error),
                unreadable => {
                    dropped.push(*id);
                    if record.usage == DirectoryUse::Checkout {
                        unreadable.map(drop).or_else(|error| report.note(error))?;
                        report.lost_checkouts.push(known.path());
                    }
                }
            }
        }
        self.directories.retain(|id, _| !dropped.contains(id));
        Ok(dropped)
    }

    /// Puts all rows into an empty catalog, and those that follow from them.
    pub(super) fn fill(
        &self,
        tx: &mut WriteTx,
        scanned: &Scanned,
        output: &Output<'_>,
        now: Moment,
    ) -> Result<()> {
        self.projects.iter().try_for_each(|(name, record)| tx.put::<Projects>(name, record))?;
        self.fill_images(tx)?;
        self.fill_packs(tx, scanned, output)?;
        let mut places = BTreeMap::new();
        for (id, record) in &self.directories {
            tx.put::<Directories>(id, record)?;
            for (key, appended) in self.appended.range((*id, 0)..(*id, record.appended)) {
                tx.put::<DirectoryAppended>(key, appended)?;
            }
            // The newest of a place is the one that counts.
            places.insert(((record.device, record.inode), record.usage), *id);
        }
        places.iter().try_for_each(|(place, id)| tx.put::<DirectoryPlaces>(place, id))?;
        self.workspaces.iter().try_for_each(|(key, record)| tx.put::<Workspaces>(key, record))?;
        self.lowers.iter().try_for_each(|(root, record)| tx.put::<Lowers>(root, record))?;
        self.fill_sequences(tx, now)
    }

    fn fill_images(&self, tx: &mut WriteTx) -> Result<()> {
        let mut identities: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (key, image) in &self.images {
            tx.put::<Images>(key, image)?;
            if image.owner == key.0
                && let Some(identity) = import_identity(image)
            {
                identities.entry(identity).or_default().push(image.id);
            }
        }
        for ((scope, identity), images) in identities {
            // The next import finds the newest.
            for (key, image) in identity_keys(identity).zip(images.iter().rev()) {
                tx.put::<Identities>(&(scope, key), image)?;
            }
        }
        for (key, tag) in &self.tags {
            tx.put::<Tags>(key, tag)?;
            tx.put::<ImageTags>(&((key.0, tag.image), key.1.clone()), &())?;
        }
        for ((scope, image), record) in &self.lineage {
            tx.put::<Lineage>(&(*scope, *image), record)?;
            tx.put::<Children>(&((*scope, record.parent), *image), &())?;
        }
        Ok(())
    }

    /// All objects are in segments. A pack that was open and is as it was stays open.
    fn fill_packs(&self, tx: &mut WriteTx, scanned: &Scanned, output: &Output<'_>) -> Result<()> {
        let sealed = |tx: &mut WriteTx, pack: &PackId, sound: &SoundPack| {
            let SoundPack { bytes, objects } = *sound;
            tx.put::<SealedPacks>(
                pack,
                &SealedPackRecord { bytes, objects, domain: SHARED_DOMAIN, filled_by: None },
            )
        };
        for (pack, sound) in &scanned.kept {
            let open = self.open_packs.get(pack).filter(|open| open.committed_bytes == sound.bytes);
            let SoundPack { bytes, objects } = *sound;
            match open.filter(|_| self.is_whole) {
                Some(open) => tx.put::<OpenPacks>(
                    pack,
                    &OpenPackRecord {
                        indexed_bytes: bytes,
                        objects,
                        indexed_objects: objects,
                        owner: None,
                        ..*open
                    },
                )?,
                None => sealed(tx, pack, sound)?,
            }
        }
        output.packs.iter().try_for_each(|(pack, sound)| sealed(tx, pack, sound))?;
        // What was about to go goes; where it may not have been so, it was read like any other.
        let condemned = self.condemned_packs.iter().filter(|_| self.is_whole);
        condemned.into_iter().try_for_each(|(pack, record)| tx.put::<CondemnedPacks>(pack, record))?;
        output.segments.iter().try_for_each(|(id, record)| tx.put::<Segments>(id, record))
    }

    fn fill_sequences(&self, tx: &mut WriteTx, now: Moment) -> Result<()> {
        let mut sequences = self.sequences.clone();
        let mut raise = |sequence, number: u64| {
            let last = sequences.entry(sequence).or_insert(0_u64);
            *last = (*last).max(number);
        };
        let highest = |numbers: &mut dyn Iterator<Item = u64>| numbers.max().unwrap_or(0);
        raise(Sequence::Project, highest(&mut self.projects.values().map(|record| record.id.get())));
        raise(Sequence::Workspace, highest(&mut self.workspaces.values().map(|record| record.id.get())));
        raise(Sequence::Directory, highest(&mut self.directories.keys().map(|id| id.get())));
        if !self.is_whole {
            // What processes remember by these numbers must not be taken for what they stand for now. Time is ahead of any
            // count of changes.
            let now_ms = now.unix_ms();
            raise(Sequence::Lease, now_ms);
            raise(Sequence::Index, now_ms);
            raise(Sequence::Generation, now_ms);
        }
        let index = sequences.entry(Sequence::Index).or_insert(0_u64);
        *index += 1;
        sequences.iter().try_for_each(|(sequence, number)| tx.put::<Sequences>(sequence, number))
    }
}
