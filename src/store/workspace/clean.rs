//! Ending workspaces whose process is gone, and removing what was left over.

use std::collections::HashSet;

use crate::catalog::record::WorkspaceRecord;
use crate::catalog::table::{Lowers, Workspaces, key_bytes};
use crate::catalog::{ReadTables, WriteTx};
use crate::error::Result;
use crate::id::{ProjectId, WorkspaceId};
use crate::store::Inner;

use super::folder::{Folder, remove_directory};
use super::has_ended;

impl Inner {
    /// Ends the workspaces of processes that are gone, and removes what others left.
    pub(in crate::store) fn clean_workspaces(&self, folder: &Folder) -> Result<()> {
        let ended = self.read(|tx| {
            let rows = tx.collect::<Workspaces>(&[])?;
            Ok(rows.into_iter().filter(|(_, record)| has_ended(record)).collect::<Vec<_>>())
        })?;
        if !ended.is_empty() {
            self.catalog()?.write(|tx| {
                for (key, record) in &ended {
                    if tx.get::<Workspaces>(key)?.as_ref() == Some(record) {
                        tx.remove::<Workspaces>(key)?;
                    }
                }
                Ok(())
            })?;
        }
        // Listed before the rows are read: a row comes before its directory.
        let (ids, probes) = folder.list()?;
        let known = self.read(|tx| {
            let workspaces = tx.collect::<Workspaces>(&[])?.into_iter().map(|(_, record)| record.id);
            let lowers = tx.collect::<Lowers>(&[])?.into_iter().map(|(_, record)| record.id);
            Ok(workspaces.chain(lowers).collect::<HashSet<_>>())
        })?;
        let strays: Vec<_> = ids.into_iter().filter(|id| !known.contains(id)).collect();
        if !strays.is_empty() {
            // A power cut must not bring back the row of a workspace that a process ended which was killed in it.
            self.catalog()?.make_durable()?;
        }
        // What can't be removed now is left to the next.
        for stray in strays {
            let _ = folder.remove_unused(stray);
        }
        for probe in probes {
            let _ = remove_directory(&probe);
        }
        Ok(())
    }

    /// Fails if there is anything in the directories of workspaces that is not theirs.
    pub(in crate::store) fn check_own(&self, workspaces: &[WorkspaceRecord]) -> Result<()> {
        let Some(folder) = &self.workspaces else { return Ok(()) };
        workspaces.iter().try_for_each(|record| folder.check_own(record))
    }

    /// Ends what is left of workspaces whose rows are gone.
    pub(in crate::store) fn remove_workspaces(&self, ids: impl IntoIterator<Item = WorkspaceId>) {
        if let Some(folder) = &self.workspaces {
            for id in ids {
                let _ = folder.remove(id);
            }
        }
    }
}

/// Removes the rows of a project's workspaces, and gives them, and how many of them have not ended.
pub(in crate::store) fn forget_workspaces(
    tx: &mut WriteTx,
    project: ProjectId,
) -> Result<(Vec<WorkspaceRecord>, usize)> {
    let rows = tx.collect::<Workspaces>(&key_bytes(&project))?;
    rows.iter().try_for_each(|(key, _)| tx.remove::<Workspaces>(key).map(drop))?;
    let live = rows.iter().filter(|(_, record)| !has_ended(record)).count();
    Ok((rows.into_iter().map(|(_, record)| record).collect(), live))
}
