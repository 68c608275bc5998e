//! What is still known: the rows of the catalog that can be read, and for those that are lost the dump's.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::record::{
    CondemnedPackRecord, DirectoryRecord, ImageRecord, LeaseRecord, LineageRecord, LowerRecord,
    OpenPackRecord, ProjectRecord, SealedPackRecord, TagRecord, WorkspaceRecord,
};
use crate::catalog::table::{
    CondemnedPacks, Directories, DirectoryAppended, Images, Leases, Lineage, Lowers, OpenPacks, Projects,
    RemovedPacks, SealedPacks, Sequence, Sequences, Table, Tags, Workspaces,
};
use crate::catalog::{Catalog, Poison, ReadTables, Snapshot, decode_row};
use crate::disk::Disk;
use crate::engine::Surroundings;
use crate::engine::dump::{self, Dump};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::id::{DirectoryId, ImageId, LeaseId, ObjectId, PackId, ProjectId, WorkspaceId};
use crate::layout::CATALOG_FILE;
use crate::name::{ProjectName, TagName, WorkspaceName};

use super::report::{CatalogState, RepairReport};

/// The rows from which the catalog is made anew; the other tables follow from them and from packs.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) sequences: BTreeMap<Sequence, u64>,
    pub(super) projects: BTreeMap<ProjectName, ProjectRecord>,
    pub(super) images: BTreeMap<(ProjectId, ImageId), ImageRecord>,
    pub(super) tags: BTreeMap<(ProjectId, TagName), TagRecord>,
    pub(super) lineage: BTreeMap<(ProjectId, ImageId), LineageRecord>,
    pub(super) open_packs: BTreeMap<PackId, OpenPackRecord>,
    pub(super) sealed_packs: BTreeMap<PackId, SealedPackRecord>,
    pub(super) condemned_packs: BTreeMap<PackId, CondemnedPackRecord>,
    pub(super) removed_packs: BTreeSet<PackId>,
    leases: BTreeMap<LeaseId, LeaseRecord>,
    pub(super) directories: BTreeMap<DirectoryId, DirectoryRecord>,
    pub(super) appended: BTreeMap<(DirectoryId, u64), Vec<u8>>,
    pub(super) workspaces: BTreeMap<(ProjectId, WorkspaceName), WorkspaceRecord>,
    pub(super) lowers: BTreeMap<ObjectId, LowerRecord>,
    /// Images that had been removed and are to come back where all of their content is there.
    pub(super) recalled: BTreeSet<(ProjectId, ImageId)>,
    /// Workspaces that were dropped because their image is damaged, and what they are called.
    pub(super) lost_workspaces: Vec<(WorkspaceId, String)>,
    /// Whether no row of the catalog is lost.
    pub(super) is_whole: bool,
    /// The dump that rows were taken from.
    pub(super) dump: Option<dump::Head>,
    /// Whether packs had been made, by what could be read.
    pub(super) had_packs: bool,
    /// Whether there is a dump that can't be read.
    pub(super) has_damaged_dump: bool,
}

impl Rows {
    /// Reads the catalog as far as it goes, and the dump where it does not.
    pub(super) fn read(
        disk: &dyn Disk,
        surroundings: &Surroundings,
        report: &mut RepairReport,
    ) -> Result<Self> {
        let mut rows = Self::default();
        let exists = disk.exists(CATALOG_FILE);
        report.catalog = if exists.map_err(|error| Error::io(Subject::Catalog, "look for it", error))? {
            let before = report.fault_count;
            rows.read_catalog(disk, report)?;
            if report.fault_count == before { CatalogState::Whole } else { CatalogState::Damaged }
        } else {
            CatalogState::Missing
        };
        let dump = match Dump::read(disk) {
            Ok(dump) => dump,
            Err(error) => {
                rows.has_damaged_dump = true;
                report.note(error).map(|()| None)?
            }
        };
        let newest_image = rows.last(Sequence::Image);
        if report.catalog == CatalogState::Whole
            && let Some(Err(older)) = dump.as_ref().map(|dump| dump.head.check_is_not_newer(newest_image))
        {
            report.note(older)?;
            report.catalog = CatalogState::Damaged;
        }
        rows.is_whole = report.catalog == CatalogState::Whole;
        if let Some(dump) = dump.filter(|_| !rows.is_whole) {
            report.dump_written = Some(dump.head.written());
            rows.dump = Some(dump.head);
            rows.add_dump(&dump, report)?;
        }
        rows.had_packs = rows.last(Sequence::Pack) > 0 || (!rows.is_whole && rows.dump.is_none());
        rows.check_is_unused(surroundings)?;
        Ok(rows)
    }

    fn read_catalog(&mut self, disk: &dyn Disk, report: &mut RepairReport) -> Result<()> {
        let catalog = match Catalog::open(disk, Poison::default()) {
            Ok(catalog) => catalog,
            Err(error) => return report.note(error),
        };
        catalog.check_pages().or_else(|error| report.note(error))?;
        let read = catalog.snapshot().and_then(|snapshot| self.read_tables(&snapshot, report));
        read.or_else(|error| report.note(error))
    }

    fn read_tables(&mut self, snapshot: &Snapshot, report: &mut RepairReport) -> Result<()> {
        read_table::<Sequences>(snapshot, &mut self.sequences, report)?;
        read_table::<Projects>(snapshot, &mut self.projects, report)?;
        read_table::<Images>(snapshot, &mut self.images, report)?;
        read_table::<Tags>(snapshot, &mut self.tags, report)?;
        read_table::<Lineage>(snapshot, &mut self.lineage, report)?;
        read_table::<OpenPacks>(snapshot, &mut self.open_packs, report)?;
        read_table::<SealedPacks>(snapshot, &mut self.sealed_packs, report)?;
        read_table::<CondemnedPacks>(snapshot, &mut self.condemned_packs, report)?;
        let mut removed = Vec::new();
        read_table::<RemovedPacks>(snapshot, &mut removed, report)?;
        self.removed_packs.extend(removed.into_iter().map(|(pack, ())| pack));
        read_table::<Leases>(snapshot, &mut self.leases, report)?;
        read_table::<Directories>(snapshot, &mut self.directories, report)?;
        read_table::<DirectoryAppended>(snapshot, &mut self.appended, report)?;
        read_table::<Workspaces>(snapshot, &mut self.workspaces, report)?;
        read_table::<Lowers>(snapshot, &mut self.lowers, report)
    }

    /// Takes the dump's rows for those that are lost. One that was removed after the dump was written comes back.
    fn add_dump(&mut self, dump: &Dump, report: &mut RepairReport) -> Result<()> {
        for row in &dump.rows {
            self.add_row(row).or_else(|error| report.note(error))?;
        }
        Ok(())
    }

    fn add_row(&mut self, (table, key, value): &dump::Row) -> Result<()> {
        fn add<T: Table<Key: Ord>>(
            rows: &mut BTreeMap<T::Key, T::Value>,
            key: &[u8],
            value: &[u8],
        ) -> Result<()> {
            let (key, value) = decode_row::<T>(key, value)?;
            rows.entry(key).or_insert(value);
            Ok(())
        }
        match *table {
            Projects::NAME => add::<Projects>(&mut self.projects, key, value),
            Images::NAME => add::<Images>(&mut self.images, key, value),
            Tags::NAME => add::<Tags>(&mut self.tags, key, value),
            Lineage::NAME => add::<Lineage>(&mut self.lineage, key, value),
            Workspaces::NAME => add::<Workspaces>(&mut self.workspaces, key, value),
            _ => {
                let (sequence, number) = decode_row::<Sequences>(key, value)?;
                self.raise(sequence, number);
                Ok(())
            }
        }
    }

    /// The last number of a sequence that was given out.
    pub(super) fn last(&self, sequence: Sequence) -> u64 {
        self.sequences.get(&sequence).copied().unwrap_or(0)
    }

    /// Keeps a number from being given out again.
    pub(super) fn raise(&mut self, sequence: Sequence, number: u64) {
        let last = self.sequences.entry(sequence).or_default();
        *last = (*last).max(number);
    }

    /// The same for all packs that rows name, whatever became of their files.
    pub(super) fn raise_packs(&mut self) {
        let packs = self.open_packs.keys().chain(self.sealed_packs.keys());
        let packs = packs.chain(self.condemned_packs.keys()).chain(&self.removed_packs);
        let highest = packs.map(|pack| u64::from(pack.get())).max();
        self.raise(Sequence::Pack, highest.unwrap_or(0));
    }

    pub(super) fn project_name(&self, scope: ProjectId) -> Option<&ProjectName> {
        self.projects.iter().find(|(_, record)| record.id == scope).map(|(name, _)| name)
    }

    pub(super) fn tags_of(&self, scope: ProjectId, image: ImageId) -> Vec<TagName> {
        let own = self.tags.iter().filter(|((of, _), tag)| *of == scope && tag.image == image);
        own.map(|((_, name), _)| name.clone()).collect()
    }

    /// Fails where another process is writing: what it counts on would change under it.
    fn check_is_unused(&self, surroundings: &Surroundings) -> Result<()> {
        let Some(lease) = self.leases.values().find(|lease| !surroundings.is_dead(&lease.holder)) else {
            return Ok(());
        };
        let message = format!("process {} is writing to it; end that first", lease.holder.process);
        Err(Error::new(ErrorKind::InUse, Subject::Catalog, message))
    }
}

/// Reads the rows of a table that can be read.
fn read_table<T: Table>(
    snapshot: &Snapshot,
    rows: &mut impl Extend<(T::Key, T::Value)>,
    report: &mut RepairReport,
) -> Result<()> {
    let found = snapshot.read(|tx| {
        let mut found = Vec::new();
        tx.each::<T>(|row| found.push(row));
        Ok(found)
    })?;
    for row in found {
        match row {
            Ok(row) => rows.extend([row]),
            Err(error) => report.note(error)?,
        }
    }
    Ok(())
}
