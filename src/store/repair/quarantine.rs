//! Where what is damaged is set aside.

use std::collections::BTreeSet;
use std::path::Path;

use crate::disk::{Disk, OpenMode};
use crate::error::{Error, Result};
use crate::pack::{PACKS, SEGMENTS, pack_file, segment_file};
use crate::store::known::state_file;
use crate::store::{DIRECTORIES, unusable};

use super::rows::Rows;
use super::scan::Scanned;

/// The folder of workspaces.
pub(super) const WORKSPACES: &str = "workspaces";

const QUARANTINE: &str = "quarantine";
/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// The folder, and the number of this repair, which ends the names of what it sets aside.
pub(super) struct Quarantine<'d> {
    disk: &'d dyn Disk,
    location: &'d Path,
    number: u64,
    names: Vec<String>,
}

impl<'d> Quarantine<'d> {
    pub(super) fn open(disk: &'d dyn Disk, location: &'d Path) -> Result<Self> {
        let io = |error| unusable(location, error);
        let names = match disk.list(QUARANTINE) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(io)?,
        };
        let numbers = names.iter().filter_map(|name| name.rsplit_once('-')?.1.parse::<u64>().ok());
        Ok(Self { disk, location, number: numbers.max().unwrap_or(0) + 1, names: Vec::new() })
    }

    /// A new name in the folder for a file of the store.
    fn name(&mut self, name: &str) -> Result<String> {
        self.disk.create_dir(QUARANTINE).map_err(|error| self.failed(error))?;
        let name = format!("{QUARANTINE}/{}-{}", name.replace('/', "-"), self.number);
        self.names.push(name.clone());
        Ok(name)
    }

    fn failed(&self, error: std::io::Error) -> Error {
        unusable(self.location, error)
    }

    /// Copies a file, if it is there, and makes the copy durable.
    pub(super) fn keep_copy(&mut self, name: &str) -> Result<()> {
        if !self.disk.exists(name).map_err(|error| self.failed(error))? {
            return Ok(());
        }
        let copy = self.name(name)?;
        let copied = || {
            let (from, to) =
                (self.disk.open(name, OpenMode::Read)?, self.disk.open(&copy, OpenMode::CreateNew)?);
            let (mut offset, len) = (0, from.len()?);
            let mut buffer = vec![0; COPY_BYTES];
            while offset < len {
                let bytes = usize::try_from(len - offset).unwrap_or(usize::MAX).min(COPY_BYTES);
                let bytes = buffer.get_mut(..bytes).unwrap_or_default();
                from.read_at(bytes, offset)?;
                to.write_at(bytes, offset)?;
                offset += bytes.len() as u64;
            }
            to.sync()?;
            self.disk.sync_dir(QUARANTINE)?;
            self.disk.sync_dir("")
        };
        copied().map_err(|error| self.failed(error))
    }

    /// Sets aside the files that the new catalog does not name any more. Where the old one was whole, files that it did not
    /// name either are left alone: they are what a killed process left.
    pub(super) fn set_aside_unnamed(&mut self, rows: &Rows, scanned: &Scanned) -> Result<()> {
        for pack in &scanned.damaged {
            self.set_aside(&pack_file(*pack))?;
        }
        let segments: BTreeSet<_> = scanned.segments.keys().map(|id| segment_file(*id)).collect();
        self.set_aside_others(SEGMENTS, &segments)?;
        let states = rows.directories.keys().map(|id| state_file(*id)).collect();
        self.set_aside_others(DIRECTORIES, &states)?;
        if !rows.is_whole || rows.has_lost_workspaces {
            let workspaces = rows.workspaces.values().map(|record| record.id);
            let ids = workspaces.chain(rows.lowers.values().map(|record| record.id));
            let named: BTreeSet<_> = ids.map(|id| format!("{WORKSPACES}/{:010}", id.get())).collect();
            self.set_aside_others(WORKSPACES, &named)?;
        }
        for folder in [PACKS, SEGMENTS, DIRECTORIES, QUARANTINE, ""] {
            if !self.names.is_empty() {
                self.disk.sync_dir(folder).map_err(|error| self.failed(error))?;
            }
        }
        Ok(())
    }

    /// Sets aside what is in a folder and not named.
    fn set_aside_others(&mut self, folder: &str, named: &BTreeSet<String>) -> Result<()> {
        let names = match self.disk.list(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(|error| self.failed(error))?,
        };
        let is_numbered = |name: &&String| name.starts_with(|first: char| first.is_ascii_digit());
        for name in names.iter().filter(is_numbered).map(|name| format!("{folder}/{name}")) {
            if !named.contains(&name) {
                self.set_aside(&name)?;
            }
        }
        Ok(())
    }

    fn set_aside(&mut self, name: &str) -> Result<()> {
        if self.disk.exists(name).map_err(|error| self.failed(error))? {
            let aside = self.name(name)?;
            self.disk.rename(name, &aside).map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// The names of what was set aside.
    pub(super) fn finish(self) -> Vec<String> {
        self.names
    }
}
