//! Which workspaces the repaired store has.
//!
//! A workspace's directory has a copy of its row, newer than the dump's. So where rows are lost the workspace is there as it
//! was, and stays mounted. One that can't stay is moved to the folder `quarantine` with all that was written in it, and named
//! with where that is; its mount moves along.

use std::collections::BTreeSet;

use crate::catalog::table::Sequence;
use crate::disk::OpenMode;
use crate::engine::unusable;
use crate::error::Result;
use crate::host::overlay::{MERGED, WORK};
use crate::id::ProjectId;
use crate::layout::WORKSPACES;
use crate::maintenance::verify::scope_name;
use crate::store::workspace::mark::{self, MARK};

use super::Repair;
use super::quarantine::Quarantine;
use super::report::RepairReport;
use super::rows::Rows;

/// A mark is smaller than this.
const MARK_BYTES: u64 = 1 << 16;

impl Repair<'_> {
    /// Adds the workspaces whose rows are lost and whose directories say what those were, and gives all others what is newer.
    pub(super) fn add_workspaces(&self, rows: &mut Rows) -> Result<()> {
        if rows.is_whole {
            return Ok(());
        }
        for number in self.numbered(WORKSPACES, "")? {
            let bytes = self.read_mark(&format!("{WORKSPACES}/{number:010}/{MARK}"))?;
            let Some((key, record)) = mark::decode(&bytes) else { continue };
            let is_older = rows.workspaces.get(&key).is_some_and(|there| there.id.get() > number);
            // A directory that was copied within the store is not what its mark says.
            if record.id.get() == number && !is_older {
                rows.raise(Sequence::Project, key.0.get());
                rows.workspaces.insert(key, record);
            }
        }
        Ok(())
    }

    /// Moves the directories of workspaces to the folder that the new catalog may lack, and names the workspaces.
    pub(super) fn take_workspaces(
        &self,
        rows: &Rows,
        quarantine: &mut Quarantine<'_>,
        report: &mut RepairReport,
    ) -> Result<()> {
        let mut lost = self.unnamed_workspaces(rows)?;
        lost.extend(rows.lost_workspaces.iter().map(|(id, _)| id.get()));
        let places: Vec<_> = lost.iter().map(|number| format!("{WORKSPACES}/{number:010}")).collect();
        let taken = quarantine.take_workspaces(&places)?;
        for (number, place) in lost.into_iter().zip(taken) {
            let known = rows.lost_workspaces.iter().find(|(id, _)| id.get() == number);
            let name = match (known, &place) {
                (Some((_, name)), _) => Some(name.clone()),
                (None, Some(place)) => self.name_of_workspace(rows, number, place)?,
                (None, None) => None,
            };
            let Some(name) = name else { continue };
            report.lost_workspaces.push(match place {
                Some(place) => format!("{name}, whose files are in {place}"),
                None => name,
            });
        }
        Ok(())
    }

    /// The numbers of directories that are not in the new catalog, if that may lack any: those that are there, and those that
    /// a repair set aside before it was killed.
    fn unnamed_workspaces(&self, rows: &Rows) -> Result<BTreeSet<u64>> {
        let mut lost = BTreeSet::new();
        if !rows.is_whole {
            lost.extend(self.numbered(WORKSPACES, "")?);
            // Their rows may be among those that are lost.
            lost.extend(self.numbered_in_quarantine(WORKSPACES)?);
        } else if !rows.lost_workspaces.is_empty() {
            lost.extend(self.numbered(WORKSPACES, "")?);
        }
        let named = rows.workspaces.values().map(|record| record.id.get());
        for number in named.chain(rows.lowers.values().map(|record| record.id.get())) {
            lost.remove(&number);
        }
        Ok(lost)
    }

    /// What a workspace is called whose directory is set aside; none for what is a directory that workspaces lie over.
    fn name_of_workspace(&self, rows: &Rows, number: u64, place: &str) -> Result<Option<String>> {
        let bytes = self.read_mark(&format!("{place}/{MARK}"))?;
        if let Some(((scope, name), _)) = mark::decode(&bytes).filter(|(_, record)| record.id.get() == number)
        {
            return Ok(Some(label(rows, scope, &name.to_string())));
        }
        let io = |error| unusable(self.location, error);
        for own in [WORK, MERGED] {
            if self.disk.exists(&format!("{place}/{own}")).map_err(io)? {
                return Ok(Some(format!("number {number}")));
            }
        }
        Ok(None)
    }

    /// The bytes of a mark; none if there is none.
    fn read_mark(&self, name: &str) -> Result<Vec<u8>> {
        let read = || {
            let file = self.disk.open(name, OpenMode::Read)?;
            let mut bytes = vec![0; usize::try_from(file.len()?.min(MARK_BYTES)).unwrap_or(0)];
            file.read_at(&mut bytes, 0).map(|()| bytes)
        };
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|error| unusable(self.location, error)),
        }
    }
}

/// What the report calls a workspace.
pub(super) fn label(rows: &Rows, scope: ProjectId, name: &str) -> String {
    format!("{name} of {}", scope_name(scope, rows.project_name(scope)))
}
