//! Ending workspaces whose process is gone, and removing what was left over.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::Serialize;

use crate::catalog::record::{WorkspaceForm, WorkspaceRecord};
use crate::catalog::table::{Lowers, Workspaces, key_bytes};
use crate::catalog::{ReadTables, ReadTx, WriteTx};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::host::stat::Stat;
use crate::host::usage::allocated_bytes;
use crate::id::{ProjectId, WorkspaceId};
use crate::json;
use crate::name::WorkspaceName;
use crate::task::Phase;

use super::folder::Folder;
use super::own::remove_probe;
use super::{Workspace, has_ended};

/// What a workspace that has ended left on the disk, because it could not be removed. Each collection tries again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LeftOver {
    /// Its directory.
    #[serde(flatten, serialize_with = "json::host_path")]
    #[cfg_attr(feature = "schema", schemars(with = "json::Path"))]
    pub path: PathBuf,
    /// Bytes that it takes.
    pub bytes: u64,
    /// What could not be removed, and why.
    pub reason: String,
}

impl LeftOver {
    fn new(folder: &Folder, id: WorkspaceId, reason: String) -> Self {
        Self { path: folder.directory(id), bytes: bytes_of(folder, id), reason }
    }
}

/// What a clean-up removed and could not remove.
#[derive(Debug, Default)]
pub(crate) struct Cleaned {
    pub(crate) freed_bytes: u64,
    pub(crate) left_over: Vec<LeftOver>,
}

/// What a clean-up would remove.
#[derive(Debug, Default)]
pub(crate) struct Cleanable {
    pub(crate) bytes: u64,
    /// The workspaces that would end.
    pub(super) ended: HashSet<WorkspaceId>,
}

impl Workspace {
    /// What it left on the disk when it ended; tries once more to remove that.
    pub fn left_over(&self) -> Result<Option<LeftOver>> {
        let folder = &self.project.store.workspaces()?;
        let known = self.project.store.read(known)?;
        if known.contains(&self.id) || Stat::find(&folder.directory(self.id))?.is_none() {
            return Ok(None);
        }
        let removed = folder.remove_unused(self.id);
        Ok(removed.err().map(|error| LeftOver::new(folder, self.id, reason(&error))))
    }
}

impl Engine {
    /// Ends the workspaces of processes that are gone, and removes what others left. Where anything is that is not the
    /// workspace's, it is kept for its user to look at.
    pub(crate) fn clean_workspaces(&self, folder: &Folder) -> Result<Cleaned> {
        let ended = self.read(ended)?;
        if !ended.is_empty() {
            self.catalog()?.write(|tx| {
                for (key, record) in &ended {
                    if tx.get::<Workspaces>(key)?.as_ref() != Some(record) {
                        continue;
                    }
                    if folder.goes(record) {
                        tx.remove::<Workspaces>(key)?;
                    } else {
                        tx.put::<Workspaces>(key, &WorkspaceRecord { holder: None, ..record.clone() })?;
                    }
                }
                Ok(())
            })?;
        }
        let (strays, probes) = self.strays(folder)?;
        if !strays.is_empty() {
            // A power cut must not bring back the row of a workspace that a process ended which was killed in it.
            self.catalog()?.make_durable()?;
        }
        let _stage = self.task.begin(Phase::Removing, None);
        // What can't be removed now is left to the next.
        for probe in probes {
            let _ = remove_probe(&probe);
        }
        let mut cleaned = Cleaned::default();
        for stray in strays {
            let before = bytes_of(folder, stray);
            let left = folder.remove_unused(stray).err();
            let left = left.map(|error| LeftOver::new(folder, stray, reason(&error)));
            cleaned.freed_bytes += before.saturating_sub(left.as_ref().map_or(0, |left| left.bytes));
            cleaned.left_over.extend(left);
        }
        Ok(cleaned)
    }

    /// What the next clean-up is to remove.
    pub(crate) fn cleanable(&self, folder: &Folder) -> Result<Cleanable> {
        let (strays, _) = self.strays(folder)?;
        let ended = self.read(ended)?.into_iter().map(|(_, record)| record);
        let ended: HashSet<_> = ended.filter(|record| folder.goes(record)).map(|record| record.id).collect();
        let bytes = strays.iter().chain(&ended).map(|id| bytes_of(folder, *id)).sum();
        Ok(Cleanable { bytes, ended })
    }

    /// Directories without a row, and those in which a mount was tried by a process that is gone.
    fn strays(&self, folder: &Folder) -> Result<(Vec<WorkspaceId>, Vec<PathBuf>)> {
        // Listed before the rows are read: a row comes before its directory.
        let (mut ids, probes) = folder.list()?;
        let known = self.read(known)?;
        ids.retain(|id| !known.contains(id));
        Ok((ids, probes))
    }

    /// Fails if there is anything in the directories of workspaces that is not theirs, or under their mounts.
    pub(crate) fn check_can_end(&self, workspaces: &[WorkspaceRecord]) -> Result<()> {
        let Some(folder) = self.workspace_folder() else { return Ok(()) };
        workspaces.iter().try_for_each(|record| {
            folder.check_is_not_hidden(record)?;
            folder.check_can_end(record)?;
            match record.form {
                WorkspaceForm::Checkout => folder.check_copy_is_unused(record.id),
                WorkspaceForm::Overlay | WorkspaceForm::Unfinished => Ok(()),
            }
        })
    }

    /// Ends what is left of workspaces whose rows are gone.
    pub(crate) fn remove_workspaces(&self, ids: impl IntoIterator<Item = WorkspaceId>) {
        if let Some(folder) = self.workspace_folder() {
            let _stage = self.task.begin(Phase::Removing, None);
            for id in ids {
                let _ = folder.remove(id);
            }
        }
    }
}

impl Folder {
    /// Returns whether one whose process is gone goes with it.
    fn goes(&self, record: &WorkspaceRecord) -> bool {
        record.form == WorkspaceForm::Unfinished || self.check_can_end(record).is_ok()
    }
}

/// What a number's directory takes, without what is mounted in it.
fn bytes_of(folder: &Folder, id: WorkspaceId) -> u64 {
    allocated_bytes(&folder.directory(id)).unwrap_or(0)
}

/// The workspaces of processes that are gone.
fn ended(tx: &ReadTx) -> Result<Vec<((ProjectId, WorkspaceName), WorkspaceRecord)>> {
    let rows = tx.collect::<Workspaces>(&[])?;
    Ok(rows.into_iter().filter(|(_, record)| has_ended(record)).collect())
}

/// The numbers that have a row.
fn known(tx: &ReadTx) -> Result<HashSet<WorkspaceId>> {
    let workspaces = tx.collect::<Workspaces>(&[])?.into_iter().map(|(_, record)| record.id);
    let lowers = tx.collect::<Lowers>(&[])?.into_iter().map(|(_, record)| record.id);
    Ok(workspaces.chain(lowers).collect())
}

/// An error with what caused it.
fn reason(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Removes the rows of a project's workspaces, and gives them, and how many of them have not ended.
pub(crate) fn forget_workspaces(
    tx: &mut WriteTx,
    project: ProjectId,
) -> Result<(Vec<WorkspaceRecord>, usize)> {
    let rows = tx.collect::<Workspaces>(&key_bytes(&project))?;
    rows.iter().try_for_each(|(key, _)| tx.remove::<Workspaces>(key).map(drop))?;
    let live = rows.iter().filter(|(_, record)| !has_ended(record)).count();
    Ok((rows.into_iter().map(|(_, record)| record).collect(), live))
}
