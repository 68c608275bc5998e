//! What of images can't be read, by path.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::layer::LayerRecord;
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::task::Task;
use crate::tree::{Below, Entry, Reference, Root, links};

use super::damage::Damage;
use super::report::LostPath;

/// Paths that are told of each image; the others are counted.
const PATHS_TOLD: usize = 100;

/// What of an image can't be read.
#[derive(Debug, Default)]
pub(in crate::maintenance) struct Losses {
    /// Paths in all.
    pub(super) paths: u64,
    /// The first of them.
    pub(super) first: Vec<LostPath>,
    /// Why the history can't be read.
    pub(super) history: Option<Error>,
}

impl Losses {
    /// Whether nothing is lost.
    pub(in crate::maintenance) fn is_none(&self) -> bool {
        self.paths == 0 && self.history.is_none()
    }

    /// How many paths are lost.
    pub(in crate::maintenance) fn paths(&self) -> u64 {
        self.paths
    }

    /// Whether the history can be read.
    pub(in crate::maintenance) fn has_history(&self) -> bool {
        self.history.is_none()
    }

    fn add(&mut self, path: &TreePath, paths: u64, cause: Error) {
        self.paths = self.paths.saturating_add(paths);
        if self.first.len() < PATHS_TOLD {
            self.first.push(LostPath { path: path.clone(), paths, cause });
        }
    }
}

/// Follows images from one to the next: what is sound with all below it is followed once, what is not is told for each.
pub(in crate::maintenance) struct ImageWalk<'r> {
    reader: &'r ObjectReader,
    damage: &'r Damage,
    sound: HashSet<ObjectId>,
}

impl<'r> ImageWalk<'r> {
    pub(in crate::maintenance) fn new(reader: &'r ObjectReader, damage: &'r Damage) -> Self {
        Self { reader, damage, sound: HashSet::new() }
    }

    /// The task that it is part of.
    pub(in crate::maintenance) fn task(&self) -> &'r Task {
        self.reader.task()
    }

    /// Looks at an image's tree and the records of its history. The trees of its past are not demanded: only the history
    /// itself outlives what led to an image.
    pub(in crate::maintenance) fn follow(
        &mut self,
        root: ObjectId,
        layer: Option<ObjectId>,
        losses: &mut Losses,
    ) -> Result<()> {
        if let Err(error) = self.history(layer) {
            losses.history = Some(only_corrupt(error)?);
        }
        if self.sound.contains(&root) {
            return Ok(());
        }
        match Root::open(self.reader, root) {
            Ok(root) => self.node(root, &TreePath::root(), losses).map(drop),
            Err(error) => {
                // Nothing but the root knows how many there are.
                losses.add(&TreePath::root(), 1, only_corrupt(error)?);
                Ok(())
            }
        }
    }

    /// The entries of a tree whose nodes and contents can be read, in order.
    pub(in crate::maintenance) fn sound_entries(&mut self, root: ObjectId) -> Result<Vec<(TreePath, Entry)>> {
        let mut entries = Vec::new();
        match Root::open(self.reader, root) {
            Ok(root) => self.gather(root, &mut entries)?,
            Err(error) => drop(only_corrupt(error)?),
        }
        Ok(entries)
    }

    fn gather(&mut self, root: Root, sound: &mut Vec<(TreePath, Entry)>) -> Result<()> {
        match Below::read(self.reader, &root) {
            Ok(Below::Nodes(nodes)) => nodes.into_iter().try_for_each(|(_, node)| self.gather(node, sound)),
            Ok(Below::Entries(entries)) => {
                for (path, entry) in entries {
                    if self.loss_of(&entry)?.is_none() {
                        sound.push((path, entry));
                    }
                }
                Ok(())
            }
            Err(error) => only_corrupt(error).map(drop),
        }
    }

    fn history(&mut self, mut layer: Option<ObjectId>) -> Result<()> {
        let mut followed = Vec::new();
        while let Some(id) = layer.filter(|id| !self.sound.contains(id)) {
            layer = LayerRecord::read(self.reader, id)?.previous;
            followed.push(id);
        }
        self.sound.extend(followed);
        Ok(())
    }

    /// Whether a node is sound with all below it. Its height bounds the depth.
    fn node(&mut self, root: Root, first: &TreePath, losses: &mut Losses) -> Result<bool> {
        if self.sound.contains(&root.id) {
            return Ok(true);
        }
        let mut is_sound = true;
        match Below::read(self.reader, &root) {
            Ok(Below::Nodes(nodes)) => {
                for (path, node) in nodes {
                    is_sound &= self.node(node, &path, losses)?;
                }
            }
            Ok(Below::Entries(entries)) => {
                for (path, entry) in entries {
                    is_sound &= self.entry(&path, &entry, losses)?;
                }
            }
            Err(error) => {
                losses.add(first, root.entries().max(1), only_corrupt(error)?);
                return Ok(false);
            }
        }
        if is_sound {
            self.sound.insert(root.id);
        }
        Ok(is_sound)
    }

    fn entry(&mut self, path: &TreePath, entry: &Entry, losses: &mut Losses) -> Result<bool> {
        let Some(cause) = self.loss_of(entry)? else { return Ok(true) };
        // The other names of the inode go with it, as far as they can be read.
        let names = entry.as_inode().and_then(|inode| links::read(self.reader, &inode.links).ok());
        losses.add(path, 1, cause.clone());
        names.unwrap_or_default().iter().for_each(|name| losses.add(name, 1, cause.clone()));
        Ok(false)
    }

    /// Why an entry's contents can't be read, if that is so.
    fn loss_of(&mut self, entry: &Entry) -> Result<Option<Error>> {
        for reference in Reference::of_entry(entry) {
            if let Some(cause) = self.content(&reference)? {
                return Ok(Some(cause));
            }
        }
        Ok(None)
    }

    /// Why a content can't be read, if that is so.
    fn content(&mut self, reference: &Reference) -> Result<Option<Error>> {
        let id = reference.id();
        if let Reference::Chunk(id) = reference {
            return Ok(self.damage.of(id, self.reader.find(id)));
        }
        if self.sound.contains(&id) {
            return Ok(None);
        }
        let items = match reference.references(self.reader) {
            Ok(items) => items,
            Err(error) => return only_corrupt(error).map(Some),
        };
        for item in items {
            if let Some(cause) = self.content(&item)? {
                return Ok(Some(cause));
            }
        }
        self.sound.insert(id);
        Ok(None)
    }
}

/// What is damage; what can't be read now may be sound.
fn only_corrupt(error: Error) -> Result<Error> {
    if error.is_corrupt() { Ok(error) } else { Err(error) }
}
