//! What is sound of damaged images, as images of their own.
//!
//! An image that is lost in part can't stay, but a few lost files must not cost all others. So the tree of what is left is
//! stored as another image, which came from the damaged one and has no tag: a name must not come to stand for less than it
//! did. A directory whose own entry is lost is made up, since what is in it needs one; hard links that are left stay links.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::catalog::record::{ImageRecord, LineageRecord, OriginRecord, SegmentRecord};
use crate::catalog::table::Sequence;
use crate::disk::Disk;
use crate::error::Result;
use crate::format::record;
use crate::id::{ObjectId, ProjectId};
use crate::layer::LayerRecord;
use crate::object::{ObjectKind, ObjectSink};
use crate::pack::frame::FrameBuilder;
use crate::pack::reader::ObjectReader;
use crate::pack::segment;
use crate::path::TreePath;
use crate::store::identity::image_id;
use crate::store::packs::SHARED_DOMAIN;
use crate::store::surroundings::Surroundings;
use crate::store::verify::{ImageWalk, scope_name};
use crate::time::Moment;
use crate::tree::{self, Content, Entry, Inode, InodeKind, Root, Timestamp, group, links};

use super::copy::PackCopy;
use super::report::{RepairReport, SalvagedImage};
use super::rows::Rows;
use super::scan::{Numbers, Scanned};

/// Raw bytes at which a frame of nodes and records is closed.
const FRAME_BYTES: usize = 32 << 10;
/// Bits of a directory that had to be made up.
const MADE_UP_MODE: u16 = 0o755;

/// An image that is lost in part.
pub(super) struct Damaged {
    pub(super) scope: ProjectId,
    pub(super) image: ImageRecord,
    pub(super) lost_paths: u64,
    pub(super) has_history: bool,
}

/// Adds what is left of these images.
pub(super) fn salvage(
    rows: &mut Rows,
    damaged: Vec<Damaged>,
    walk: &mut ImageWalk<'_>,
    mut objects: NewObjects<'_>,
    report: &mut RepairReport,
) -> Result<Numbers> {
    let mut remains: BTreeMap<ObjectId, Option<Root>> = BTreeMap::new();
    for Damaged { scope, image, lost_paths, has_history } in damaged {
        let root = match remains.get(&image.root) {
            Some(root) => *root,
            None => objects.store_remains(&image, walk)?,
        };
        remains.insert(image.root, root);
        let Some(root) = root else { continue };
        let created_ms = Moment::now().unix_ms();
        let comment = format!("what was sound of image {}", image.id);
        let layer = LayerRecord {
            previous: has_history.then_some(image.layer),
            root: root.id,
            created_ms,
            created_by: "repair".to_owned(),
            comment: comment.clone(),
            added: 0,
            modified: 0,
            removed: lost_paths,
            changed_bytes: 0,
            diff_id: None,
        };
        let left = ImageRecord {
            id: image_id(rows.next_image(created_ms), Surroundings::default().random_half()),
            owner: scope,
            root: root.id,
            layer: layer.write(&mut objects)?,
            parent: Some(image.id),
            created_ms,
            origin: OriginRecord::Commit,
            entries: root.entries(),
            logical_bytes: root.bytes(),
            comment,
        };
        if let Ok(bytes) = record::encode_object(&left) {
            objects.put(ObjectKind::Image, &bytes)?;
        }
        let project = scope_name(scope, rows.project_name(scope));
        report.salvaged.push(SalvagedImage { project, image: left.id, of: image.id, entries: left.entries });
        rows.lineage.insert((scope, left.id), LineageRecord { parent: image.id });
        rows.images.insert((scope, left.id), left);
    }
    objects.finish()
}

impl Rows {
    fn next_image(&mut self, now_ms: u64) -> u64 {
        let next = crate::store::identity::first_of(now_ms).max(self.last(Sequence::Image) + 1);
        self.raise(Sequence::Image, next);
        next
    }
}

/// Objects that are written to packs of their own, as far as they are not there.
pub(super) struct NewObjects<'d> {
    pub(super) disk: &'d dyn Disk,
    pub(super) reader: &'d ObjectReader,
    pub(super) scanned: &'d mut Scanned,
    pub(super) numbers: Numbers,
    pub(super) copy: PackCopy<'d>,
    pub(super) frame: FrameBuilder,
    pub(super) written: HashSet<ObjectId>,
}

impl NewObjects<'_> {
    /// Stores the tree of what is left of an image; none if nothing is.
    fn store_remains(&mut self, image: &ImageRecord, walk: &mut ImageWalk<'_>) -> Result<Option<Root>> {
        let sound: BTreeMap<_, _> = walk.sound_entries(image.root)?.into_iter().collect();
        if sound.is_empty() {
            return Ok(None);
        }
        let mut left = BTreeMap::new();
        for (path, entry) in &sound {
            // A further name comes with its inode, if that is there.
            let Entry::Inode(inode) = entry else { continue };
            if inode.links.is_empty() {
                left.insert(path.clone(), entry.clone());
                continue;
            }
            let is_left =
                |name: &TreePath| matches!(sound.get(name), Some(Entry::HardLink(of)) if of == path);
            let names = links::read(self.reader, &inode.links)?.into_iter().filter(is_left);
            let members: BTreeSet<_> = names.chain([path.clone()]).collect();
            left.extend(group::entries(self, inode.clone(), members)?);
        }
        let missing: BTreeSet<_> =
            left.keys().flat_map(above).filter(|above| !left.contains_key(above)).collect();
        left.extend(missing.into_iter().map(|path| (path, made_up())));
        tree::build(self, left).map(Some)
    }

    fn append(&mut self) -> Result<()> {
        if !self.frame.is_empty() {
            self.copy.append(&mut self.numbers, &mut self.frame)?;
        }
        Ok(())
    }

    /// Makes all of it durable and part of the index, and gives the numbers that are used now.
    fn finish(mut self) -> Result<Numbers> {
        self.append()?;
        if let Some((pack, sound, frames)) = self.copy.finish()? {
            let rows: Vec<_> = frames.iter().flat_map(|frame| frame.rows(pack)).collect();
            let segment = self.numbers.next_segment();
            let record = SegmentRecord { objects: rows.len() as u64, domain: SHARED_DOMAIN };
            segment::write(self.disk, segment, rows)?;
            self.scanned.copies.insert(pack, sound);
            self.scanned.segments.insert(segment, record);
        }
        Ok(self.numbers)
    }
}

impl ObjectSink for NewObjects<'_> {
    fn put(&mut self, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId> {
        let id = kind.id_of(bytes);
        if self.reader.pack_of(&id)?.is_some() || !self.written.insert(id) {
            return Ok(id);
        }
        self.frame.push(id, kind, bytes)?;
        if self.frame.is_full(FRAME_BYTES) {
            self.append()?;
        }
        Ok(id)
    }
}

/// The directories that a path is in.
fn above(path: &TreePath) -> impl Iterator<Item = TreePath> + use<> {
    std::iter::successors(path.parent(), TreePath::parent)
}

fn made_up() -> Entry {
    Entry::Inode(Inode {
        mode: MADE_UP_MODE,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: Content::empty(),
        links: Content::empty(),
        kind: InodeKind::Directory,
    })
}
