//! What is durable at one place in a log, and what a crash there may leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::pages::Pages;
use super::{Chance, DiskImage, FileNumber, Kept, Node, SimulatedOperation, folder_of};

/// Which of the possible outcomes of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Only what is durable.
    Durable,
    /// All that was done: what a kill leaves.
    Everything,
    /// What this seed chooses, for each file and each name by itself.
    Seeded(u64),
}

/// What a crash kept of what was not durable.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Of the files that had unsynced changes.
    pub files: Vec<(FileNumber, Kept)>,
    /// What the names stand for that were changed and whose folder was not synced since.
    pub names: Vec<(String, Option<Node>)>,
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

/// A disk's contents as its power supply knows them.
#[derive(Clone, Debug, Default)]
pub struct Media {
    names: BTreeMap<String, Name>,
    files: BTreeMap<FileNumber, Content>,
}

#[derive(Clone, Debug, Default)]
struct Name {
    durable: Option<Node>,
    /// What it stood for since then, in order.
    unsynced: Vec<Option<Node>>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Pages,
    unsynced: Vec<Change>,
}

impl Media {
    /// All of the image is durable.
    #[must_use]
    pub fn new(image: &DiskImage) -> Self {
        let durable = |node| Name { durable: Some(node), unsynced: Vec::new() };
        let mut media = Self::default();
        for folder in &image.folders {
            media.names.insert(folder.clone(), durable(Node::Folder));
        }
        for ((name, pages), file) in image.files.iter().zip(0..) {
            media.names.insert(name.clone(), durable(Node::File(file)));
            media.files.insert(file, Content { durable: pages.clone(), unsynced: Vec::new() });
        }
        media
    }

    fn name(&mut self, name: &str, node: Option<Node>) {
        self.names.entry(name.to_owned()).or_default().unsynced.push(node);
    }

    fn content(&mut self, file: FileNumber) -> &mut Content {
        self.files.entry(file).or_default()
    }

    fn names_in<'m>(&'m mut self, folder: &'m str) -> impl Iterator<Item = &'m mut Name> {
        self.names.iter_mut().filter(move |(name, _)| folder_of(name) == folder).map(|(_, name)| name)
    }

    /// Does what was done next.
    pub fn apply(&mut self, operation: &SimulatedOperation) {
        match operation {
            SimulatedOperation::Create { name, file } | SimulatedOperation::Link { name, file } => {
                self.name(name, Some(Node::File(*file)));
            }
            SimulatedOperation::CreateDir { name } => self.name(name, Some(Node::Folder)),
            SimulatedOperation::Remove { name } => self.name(name, None),
            SimulatedOperation::Rename { from, to } => {
                let node = self.names.get(from).and_then(Name::now);
                self.name(from, None);
                self.name(to, node);
            }
            SimulatedOperation::Write { file, offset, bytes } => {
                let write = Change::Write { offset: *offset, bytes: Arc::clone(bytes) };
                self.content(*file).unsynced.push(write);
            }
            SimulatedOperation::SetLen { file, bytes } => {
                self.content(*file).unsynced.push(Change::SetLen(*bytes));
            }
            SimulatedOperation::Sync { file } => {
                let content = self.content(*file);
                let unsynced = std::mem::take(&mut content.unsynced);
                for change in unsynced {
                    change.apply(&mut content.durable);
                }
            }
            SimulatedOperation::LoseUnsynced { file } => self.content(*file).unsynced.clear(),
            SimulatedOperation::SyncDir { folder } => self.names_in(folder).for_each(|name| {
                name.durable = name.now();
                name.unsynced.clear();
            }),
            SimulatedOperation::Mark(_) => {}
        }
    }

    /// With all that was done next.
    #[must_use]
    pub fn after(mut self, log: &[SimulatedOperation]) -> Self {
        for operation in log {
            self.apply(operation);
        }
        self
    }

    /// Whether a crash can leave only one thing.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.files.values().all(|content| content.unsynced.is_empty())
            && self.names.values().all(|name| name.unsynced.is_empty())
    }

    /// What a crash now leaves, and what was chosen.
    #[must_use]
    pub fn crash(&self, pick: Pick) -> (DiskImage, Choice) {
        let mut chance = Chance::new(if let Pick::Seeded(seed) = pick { seed } else { 0 });
        let mut image = DiskImage::default();
        let mut choice = Choice::default();
        let mut contents = BTreeMap::new();
        for (name, known) in &self.names {
            let node = known.after(pick, &mut chance);
            if !known.unsynced.is_empty() {
                choice.names.push((name.clone(), node));
            }
            let folder = folder_of(name);
            if !folder.is_empty() && !image.folders.contains(folder) {
                continue;
            }
            match node {
                None => {}
                Some(Node::Folder) => drop(image.folders.insert(name.clone())),
                Some(Node::File(file)) => {
                    let pages = contents
                        .entry(file)
                        .or_insert_with(|| self.content_after(file, pick, &mut chance, &mut choice));
                    image.files.insert(name.clone(), pages.clone());
                }
            }
        }
        (image, choice)
    }

    fn content_after(&self, file: FileNumber, pick: Pick, chance: &mut Chance, choice: &mut Choice) -> Pages {
        let Some(Content { durable, unsynced }) = self.files.get(&file) else { return Pages::default() };
        if unsynced.is_empty() {
            return durable.clone();
        }
        let kept = match pick {
            Pick::Durable => Kept::Nothing,
            Pick::Everything => Kept::All,
            Pick::Seeded(_) => Kept::choose(chance, unsynced),
        };
        let pages = kept.apply(durable, unsynced);
        choice.files.push((file, kept));
        pages
    }
}

impl Name {
    fn now(&self) -> Option<Node> {
        self.unsynced.last().copied().unwrap_or(self.durable)
    }

    fn after(&self, pick: Pick, chance: &mut Chance) -> Option<Node> {
        match pick {
            Pick::Durable => self.durable,
            Pick::Everything => self.now(),
            Pick::Seeded(_) if self.unsynced.is_empty() => self.durable,
            // Mostly old or new; sometimes what it was in between, or nothing.
            Pick::Seeded(_) => match chance.below(10) {
                0..4 => self.durable,
                4..8 => self.now(),
                8 => chance.pick(&self.unsynced).copied().flatten(),
                _ if self.was_absent() => None,
                _ => self.durable,
            },
        }
    }

    /// A name that is only given to another file by a rename stands for one of them at every moment.
    fn was_absent(&self) -> bool {
        self.durable.is_none() || self.unsynced.contains(&None)
    }
}

impl Change {
    pub(super) fn apply(&self, pages: &mut Pages) {
        match self {
            Self::Write { offset, bytes } => pages.write(*offset, bytes),
            Self::SetLen(len) => pages.set_len(*len),
        }
    }
}
