//! The files that are there: which are read, which go, and which numbers are taken.

use crate::catalog::table::Sequence;
use crate::engine::packs::SHARED_DOMAIN;
use crate::engine::unusable;
use crate::error::Result;
use crate::id::{DirectoryId, PackId, SegmentId};
use crate::layout::{
    DIRECTORIES, NEW_CATALOG_FILE, PACKS, QUARANTINE, SEGMENTS, UNFINISHED, WORKSPACES, pack_file,
    segment_file, state_file,
};
use crate::ledger::directories::checkout_of;
use crate::pack::segment::Segment;

use super::Repair;
use super::output::Numbers;
use super::report::RepairReport;
use super::rows::Rows;
use super::scan::Extent;

/// Numbers of packs and segments that are left out where it is not known which were given out last: their files may be gone,
/// but a process that has had the store open for long may remember what was in them.
const FORGOTTEN_NUMBERS: u64 = 1 << 16;

/// Files of the store that the new catalog does not name.
#[derive(Default)]
pub(super) struct Unnamed {
    /// They can't be read, or may have been named by what is lost: they are set aside.
    pub(super) kept: Vec<String>,
    /// They hold nothing that others don't.
    pub(super) superseded: Vec<String>,
}

impl Repair<'_> {
    /// The packs that are read: those that the catalog names, or where it is not whole all there are.
    pub(super) fn extents(&self, rows: &Rows) -> Result<Vec<Extent>> {
        let domain = SHARED_DOMAIN;
        if !rows.is_whole {
            let packs =
                self.numbered(PACKS, ".pack")?.into_iter().filter_map(|number| number.try_into().ok());
            return Ok(packs
                .map(PackId::new)
                .map(|pack| {
                    // That it was to go may be out of date, so it is read like any other.
                    let is_condemned =
                        rows.condemned_packs.contains_key(&pack) || rows.removed_packs.contains(&pack);
                    Extent { pack, bytes: None, domain, is_condemned }
                })
                .collect());
        }
        let open = rows.open_packs.iter().filter(|(_, record)| record.committed_bytes > 0);
        let open = open.map(|(pack, record)| (*pack, record.committed_bytes, record.domain));
        let sealed = rows.sealed_packs.iter().map(|(pack, record)| (*pack, record.bytes, record.domain));
        let extent = |(pack, bytes, domain)| Extent { pack, bytes: Some(bytes), domain, is_condemned: false };
        Ok(open.chain(sealed).map(extent).collect())
    }

    /// Sees to it that no number is given out again for which there is or was a file.
    pub(super) fn numbers(&self, rows: &mut Rows) -> Result<Numbers> {
        let folders = [
            (PACKS, ".pack", Sequence::Pack),
            (SEGMENTS, ".segment", Sequence::Segment),
            (DIRECTORIES, ".state", Sequence::Directory),
            (WORKSPACES, "", Sequence::Workspace),
        ];
        for (folder, ending, sequence) in folders {
            let aside = self.numbered_in_quarantine(folder)?;
            for number in aside.into_iter().chain(self.numbered(folder, ending)?) {
                rows.raise(sequence, number);
            }
        }
        rows.raise_packs();
        if !rows.is_whole {
            for sequence in [Sequence::Pack, Sequence::Segment] {
                rows.raise(sequence, rows.last(sequence).saturating_add(FORGOTTEN_NUMBERS));
            }
        }
        let number = |sequence| u32::try_from(rows.last(sequence)).unwrap_or(u32::MAX);
        Ok(Numbers { pack: number(Sequence::Pack), segment: number(Sequence::Segment) })
    }

    /// The names in a folder, which may be missing.
    fn list(&self, folder: &str) -> Result<Vec<String>> {
        match self.disk.list(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|error| unusable(self.location, error)),
        }
    }

    /// The numbers of a folder's files, ascending.
    pub(super) fn numbered(&self, folder: &str, ending: &str) -> Result<Vec<u64>> {
        let number = |name: &String| {
            let digits = name.strip_suffix(ending).filter(|digits| digits.len() == 10)?;
            digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let mut numbers: Vec<_> = self.list(folder)?.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The numbers of files and folders that were in a folder and are set aside.
    pub(super) fn numbered_in_quarantine(&self, folder: &str) -> Result<Vec<u64>> {
        let prefix = format!("{folder}-");
        let names = self.list(QUARANTINE)?;
        let numbers = names.iter().filter_map(|name| name.strip_prefix(&prefix)?.get(..10)?.parse().ok());
        Ok(numbers.collect())
    }

    /// Removes what a repair that was killed had not finished: nobody else writes to the store now.
    pub(super) fn remove_unfinished(&self) -> Result<()> {
        for folder in [PACKS, SEGMENTS, QUARANTINE] {
            for name in self.list(folder)?.iter().filter(|name| name.ends_with(UNFINISHED)) {
                let removed = self.disk.remove(&format!("{folder}/{name}"));
                removed.map_err(|error| unusable(self.location, error))?;
            }
        }
        Ok(())
    }

    /// Removes what this repair wrote, as far as it goes.
    pub(super) fn remove_output(&self, before: Numbers) {
        let numbered = |folder, ending| self.numbered(folder, ending).unwrap_or_default();
        let packs = numbered(PACKS, ".pack").into_iter().filter_map(|number| number.try_into().ok());
        let packs = packs.filter(|number| *number > before.pack).map(|number| pack_file(PackId::new(number)));
        let segments = numbered(SEGMENTS, ".segment").into_iter().filter_map(|number| number.try_into().ok());
        let segments = segments.filter(|number| *number > before.segment);
        let segments = segments.map(|number| segment_file(SegmentId::new(number)));
        for name in packs.chain(segments).chain([NEW_CATALOG_FILE.to_owned()]) {
            let _ = self.disk.remove(&name);
        }
        let _ = self.remove_unfinished();
    }

    /// The old index: the new one takes the place of all of it, and what is damaged is set aside.
    pub(super) fn old_segments(&self, before: Numbers, report: &mut RepairReport) -> Result<Unnamed> {
        let mut old = Unnamed::default();
        for number in self.numbered(SEGMENTS, ".segment")? {
            let Some(id) = u32::try_from(number).ok().filter(|number| *number <= before.segment) else {
                continue;
            };
            let id = SegmentId::new(id);
            match Segment::open(&*self.disk, id).and_then(|segment| segment.check_body()) {
                Ok(()) => old.superseded.push(segment_file(id)),
                Err(error) => {
                    report.note(error)?;
                    old.kept.push(segment_file(id));
                }
            }
        }
        Ok(old)
    }

    /// The states of directories that can't be read or that may be of rows that are lost. Checkouts among the latter that
    /// are still there are lost.
    pub(super) fn unnamed_states(
        &self,
        rows: &Rows,
        dropped: &[DirectoryId],
        report: &mut RepairReport,
    ) -> Result<Vec<String>> {
        let mut unnamed: Vec<_> = dropped.iter().copied().map(state_file).collect();
        if rows.is_whole {
            return Ok(unnamed);
        }
        let files = self.numbered(DIRECTORIES, ".state")?.into_iter().map(DirectoryId::new);
        let location = self.location.canonicalize().unwrap_or_else(|_| self.location.to_owned());
        let workspaces = location.join(WORKSPACES);
        for id in files.filter(|id| !rows.directories.contains_key(id) && !dropped.contains(id)) {
            unnamed.push(state_file(id));
            let known = checkout_of(&*self.disk, id).map_err(|error| unusable(self.location, error))?;
            let Some(path) = known.map(|known| known.path()) else { continue };
            // That of a workspace goes with it.
            if !path.starts_with(&workspaces) && !report.lost_checkouts.contains(&path) {
                report.lost_checkouts.push(path);
            }
        }
        unnamed.sort_unstable();
        Ok(unnamed)
    }
}
