//! What is sound of damaged images, as images of their own.
//!
//! An image that is lost in part can't stay, but a few lost files must not cost all others. So the tree of what is left is
//! stored as another image, which came from the damaged one and has no tag: a name must not come to stand for less than it
//! did. A directory whose own entry is lost is made up, since what is in it needs one; hard links that are left stay links.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::catalog::record::{ImageRecord, OriginRecord};
use crate::catalog::table::Sequence;
use crate::engine::Surroundings;
use crate::engine::image_id::{first_of, image_id};
use crate::error::Result;
use crate::format::record;
use crate::id::{ImageId, ObjectId, ProjectId};
use crate::layer::LayerRecord;
use crate::maintenance::verify::{ImageWalk, scope_name};
use crate::object::{ObjectKind, ObjectSink};
use crate::pack::frame::FrameBuilder;
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::tree::{self, Content, Entry, Inode, InodeKind, Root, Timestamp, group, links};

use super::output::Output;
use super::report::{RepairReport, SalvagedImage};
use super::rows::Rows;

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
    mut objects: NewObjects<'_, '_>,
    surroundings: &Surroundings,
    report: &mut RepairReport,
) -> Result<()> {
    let known = salvaged_before(rows);
    let mut remains: BTreeMap<ObjectId, Option<Root>> = BTreeMap::new();
    for Damaged { scope, image, lost_paths, has_history } in damaged {
        let root = match remains.get(&image.root) {
            Some(root) => *root,
            None => objects.store_remains(&image, walk)?,
        };
        remains.insert(image.root, root);
        let Some(root) = root else { continue };
        let id = if let Some(known) = known.get(&(scope, image.id, root.id)) {
            // It is no image that came back, but what this repair would make.
            report.restored.retain(|restored| restored.image != *known);
            *known
        } else {
            let created_ms = surroundings.now().unix_ms();
            let layer = LayerRecord {
                previous: has_history.then_some(image.layer),
                root: root.id,
                created_ms,
                created_by: "repair".to_owned(),
                comment: comment(image.id),
                added: 0,
                modified: 0,
                removed: lost_paths,
                changed_bytes: 0,
                diff_id: None,
            };
            let left = ImageRecord {
                id: image_id(rows.next_image(created_ms), surroundings.random_half()),
                owner: scope,
                root: root.id,
                layer: layer.write(&mut objects)?,
                parent: Some(image.id),
                created_ms,
                origin: OriginRecord::Commit,
                entries: root.entries(),
                logical_bytes: root.bytes(),
                comment: comment(image.id),
            };
            let id = left.id;
            rows.images.insert((scope, id), left);
            id
        };
        let project = scope_name(scope, rows.project_name(scope));
        report.salvaged.push(SalvagedImage { project, image: id, of: image.id, entries: root.entries() });
    }
    // One that was beside what is damaged is lost, and the image is not: should the catalog be lost, only it tells of that.
    rows.images.values().try_for_each(|image| objects.put_record(image))?;
    objects.finish()
}

/// What the image says that was made of what is left of another.
fn comment(of: ImageId) -> String {
    format!("what was sound of image {of}")
}

/// The images of what was left of others, by those and by their trees: a repair that was killed may have written some, which
/// only packs tell of, and a catalog that is lost again has more damaged images to find than those of now.
fn salvaged_before(rows: &Rows) -> BTreeMap<(ProjectId, ImageId, ObjectId), ImageId> {
    let salvaged = rows.images.iter().filter_map(|((scope, id), image)| {
        let of = image.parent.filter(|parent| image.comment == comment(*parent))?;
        Some(((*scope, of, image.root), *id))
    });
    salvaged.collect()
}

impl Rows {
    fn next_image(&mut self, now_ms: u64) -> u64 {
        let next = first_of(now_ms).max(self.last(Sequence::Image) + 1);
        self.raise(Sequence::Image, next);
        next
    }
}

/// Objects that are written to packs of their own, as far as they are not there.
pub(super) struct NewObjects<'o, 'd> {
    reader: &'o ObjectReader,
    output: &'o mut Output<'d>,
    frame: FrameBuilder,
    written: HashSet<ObjectId>,
}

impl<'o, 'd> NewObjects<'o, 'd> {
    /// Writes to `output` what `reader` does not find.
    pub(super) fn new(reader: &'o ObjectReader, output: &'o mut Output<'d>) -> Self {
        Self { reader, output, frame: FrameBuilder::default(), written: HashSet::new() }
    }

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

    /// Stores an image's own record.
    fn put_record(&mut self, image: &ImageRecord) -> Result<()> {
        record::encode_object(image).map_or(Ok(()), |bytes| self.put(ObjectKind::Image, &bytes).map(drop))
    }

    /// Makes all of it durable and part of the index.
    fn finish(mut self) -> Result<()> {
        self.output.append(&mut self.frame)?;
        self.output.finish()
    }
}

impl ObjectSink for NewObjects<'_, '_> {
    fn put(&mut self, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId> {
        let id = kind.id_of(bytes);
        if self.reader.pack_of(&id)?.is_some() || !self.written.insert(id) {
            return Ok(id);
        }
        self.frame.push(id, kind, bytes)?;
        if self.frame.is_full(FRAME_BYTES) {
            self.output.append(&mut self.frame)?;
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
