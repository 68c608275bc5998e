//! How a store comes to be, and the check of its format by all who open it.

use std::path::Path;

use crate::catalog::{Catalog, Poison};
use crate::disk::RealDisk;
use crate::error::{Error, Remedy, Result, Subject};
use crate::format::FORMAT_VERSION;
use crate::layout::{
    CATALOG_FILE, CREATED, DIRECTORIES, DUMP_FILE, FORMAT_FILE, GENERATIONS, LOCK_FILE, LOST_AND_FOUND,
    PACKS, SEGMENTS,
};
use crate::path::escape_bytes;

use super::format_file::{self, FormatFile};
use super::{Engine, dump};

impl Engine {
    /// Makes the store on first use and checks its format on every other. The file `format` comes last: a store that
    /// has it was whole once.
    pub(super) fn prepare(&self) -> Result<()> {
        let io = |error| unusable(&self.location, error);
        if !self.disk.exists(FORMAT_FILE).map_err(io)? {
            self.check_is_new()?;
            if !self.options.create {
                return Err(no_store(&self.location));
            }
            // Before anything is in it; a directory that was there, too: its permissions were not meant for a store.
            self.disk.make_private().map_err(io)?;
            // Under the lock, so that two first uses at once do not meet half of each other's.
            let _lock = self.gate.lock(&self.task)?;
            if !self.disk.exists(FORMAT_FILE).map_err(io)? {
                self.make().inspect_err(|_| {
                    // What was made first, on a disk that is full now, is of no use to anybody. The lock is among it, and goes
                    // last.
                    let made = CREATED.into_iter().filter(|name| ![LOST_AND_FOUND, LOCK_FILE].contains(name));
                    made.chain([LOCK_FILE]).try_for_each(|name| self.disk.clear(name)).unwrap_or_default();
                })?;
            }
        }
        self.check_format()
    }

    fn make(&self) -> Result<()> {
        let io = |error| unusable(&self.location, error);
        for folder in [PACKS, SEGMENTS, DIRECTORIES, GENERATIONS] {
            self.disk.create_dir(folder).map_err(io)?;
        }
        Catalog::create(&*self.disk)?;
        let catalog = Catalog::open(&*self.disk, Poison::default())?;
        dump::write(&*self.disk, &catalog, self.surroundings.now())?;
        format_file::write_unfinished(&*self.disk).map_err(io)?;
        self.allocate_ballast();
        Ok(())
    }

    /// A directory becomes a store only if it has nothing but what an unfinished creation leaves: a mistyped name
    /// must not litter somebody's files, and what lost its `format` must not be taken for new.
    fn check_is_new(&self) -> Result<()> {
        let io = |error| unusable(&self.location, error);
        let subject = || Subject::Store(self.location.clone());
        let names = self.disk.list("").map_err(io)?;
        if let Some(foreign) = names.iter().find(|name| !CREATED.contains(&name.as_str())) {
            let foreign = escape_bytes(foreign.as_bytes());
            // Names that other programs do not give.
            let was_store = names.iter().any(|name| name == CATALOG_FILE || name == DUMP_FILE);
            let advice = if was_store {
                "a store that lost its file 'format' is made whole again by a repair"
            } else {
                "name a store or a new directory"
            };
            let message = format!("is no store, and not empty: it has '{foreign}'; {advice}");
            return Err(Error::invalid(subject(), message));
        }
        let has_packs =
            names.iter().any(|name| name == PACKS) && !self.disk.list(PACKS).map_err(io)?.is_empty();
        // Another process may just have finished.
        if has_packs && !self.disk.exists(FORMAT_FILE).map_err(io)? {
            return Err(Error::corrupt(
                subject(),
                "its file 'format' is missing, but it has packs; repair the store",
            ));
        }
        Ok(())
    }

    fn check_format(&self) -> Result<()> {
        let io = |error| unusable(&self.location, error);
        let FormatFile { version, unfinished } = FormatFile::read(&*self.disk).map_err(io)?;
        if let Some(line_bytes) = unfinished {
            format_file::finish(&*self.disk, line_bytes).map_err(io)?;
        }
        let subject = || Subject::Store(self.location.clone());
        match version {
            Some(FORMAT_VERSION) => Ok(()),
            Some(newer) => Err(Error::unsupported(
                subject(),
                format!(
                    "it has format {newer}, and this version of layerstone reads format {FORMAT_VERSION}; use a version that knows {newer}"
                ),
            )),
            None => Err(Error::corrupt(subject(), "its file 'format' does not say a store format")),
        }
    }
}

/// The directory of a store, which is made where it is missing if `create` says so.
pub(crate) fn store_directory(path: &Path, create: bool) -> Result<RealDisk> {
    let subject = || Subject::Store(path.to_owned());
    let is_absent = match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        other => {
            if !other.map_err(|error| unusable(path, error))?.is_dir() {
                return Err(Error::invalid(subject(), "is not a directory; name a store or a new directory"));
            }
            false
        }
    };
    if is_absent && !create {
        return Err(no_store(path));
    }
    RealDisk::open_or_create(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let message =
                "the directory that it is to lie in does not exist; make that first, or name another";
            Error::not_found(subject(), message)
        }
        _ => unusable(path, error),
    })
}

fn no_store(path: &Path) -> Error {
    let error = Error::not_found(Subject::Store(path.to_owned()), "no store at this path");
    error.with_remedy(Remedy::CreateStore)
}

pub(crate) fn unusable(path: &Path, error: std::io::Error) -> Error {
    Error::io(Subject::Store(path.to_owned()), "use this directory", error)
}

/// A failure in a folder that every store has: one that is not found was lost.
pub(crate) fn folder_error(store: &Path, folder: &str, action: &str, error: std::io::Error) -> Error {
    let subject = Subject::Store(store.to_owned());
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::corrupt(subject, format!("its folder '{folder}' is missing; repair the store"))
        }
        _ => Error::io(subject, action, error),
    }
}
