//! What a repair has lost, in a file from before its catalog takes over until its last step.
//!
//! ```text
//! file = "LSLOST" version(1) 0(1) loss* check(32)
//! loss = 0 image(16) paths(8) project(bytes) tags(bytes, a line each)
//!      | 1 image(16) project(bytes)
//!      | 2 checkout(bytes)
//!      | 3 workspace(bytes)
//!      | 4 image(16) of(16) entries(8) project(bytes)
//!      | 5
//! ```
//! Numbers are little-endian, bytes have their length before them as a varint, and the check is BLAKE3 over all before it.
//!
//! A repair that is killed behind its rename leaves a store in which nothing shows that anything was lost. The next one tells
//! it. One that was killed before is done again and finds the same itself, so that nothing is told twice.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::disk::{Disk, OpenMode};
use crate::engine::image_id::latest_created;
use crate::error::{Error, Result, Subject};
use crate::format::{DecodeError, Decoder, Encoder, checked};
use crate::id::ImageId;
use crate::layout::{NEW_UNREPORTED_FILE, UNREPORTED_FILE};
use crate::maintenance::verify::DamagedImage;

use super::report::{FoundImage, RepairReport, SalvagedImage};

const MAGIC: &[u8; 6] = b"LSLOST";
const VERSION: u8 = 1;

/// What a repair before this one lost and may not have told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UnreportedLosses {
    losses: Vec<Loss>,
}

#[derive(Debug, PartialEq, Eq)]
enum Loss {
    Image {
        image: ImageId,
        paths: u64,
        project: String,
        tags: String,
    },
    Restored {
        image: ImageId,
        project: String,
    },
    Checkout(PathBuf),
    Workspace(String),
    Salvaged(SalvagedImage),
    /// There may have been images that nothing tells of.
    Unknown,
}

fn failed(action: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::io(Subject::Catalog, action, error)
}

impl UnreportedLosses {
    /// What a repair left that was killed; nothing if there was none. A damaged file is a fault.
    pub(super) fn read(disk: &dyn Disk, report: &mut RepairReport) -> Result<Self> {
        disk.remove(NEW_UNREPORTED_FILE).map_err(failed("remove an unfinished list of its losses"))?;
        let file = match disk.open(UNREPORTED_FILE, OpenMode::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(failed("open the list of its losses"))?,
        };
        let len = file.len().map_err(failed("measure the list of its losses"))?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, 0).map_err(failed("read the list of its losses"))?;
        Self::decode(&bytes).or_else(|error| {
            let message = format!("'{UNREPORTED_FILE}', what a repair before this one lost, {error}");
            report.add_fault(Error::corrupt(Subject::Catalog, message));
            Ok(Self::default())
        })
    }

    /// Adds to the report what it has not got itself; `is_there` says which images the store has.
    pub(super) fn add_to(self, report: &mut RepairReport, is_there: impl Fn(ImageId) -> bool) {
        for loss in self.losses {
            match loss {
                Loss::Image { image, paths, project, tags } => {
                    // What could not be read then may be sound now.
                    if !is_there(image) {
                        let tags = tags.lines().filter_map(|tag| tag.parse().ok()).collect();
                        let lost = DamagedImage::unreported(project.clone(), image, tags, paths);
                        let is_it = |known: &DamagedImage| known.image == image && known.project == project;
                        add(&mut report.damaged_images, lost, is_it);
                    }
                }
                Loss::Restored { image, project } => {
                    if is_there(image) {
                        let found = FoundImage { project, image, created: latest_created(image) };
                        let known = found.clone();
                        add(&mut report.restored, found, |other| *other == known);
                    }
                }
                Loss::Salvaged(left) => {
                    // One that was never published is made again.
                    if is_there(left.image) {
                        let known = left.clone();
                        add(&mut report.salvaged, left, |other| *other == known);
                    }
                }
                Loss::Checkout(checkout) => {
                    let known = checkout.clone();
                    add(&mut report.lost_checkouts, checkout, |other| *other == known);
                }
                Loss::Workspace(workspace) => {
                    let known = workspace.clone();
                    add(&mut report.lost_workspaces, workspace, |other| *other == known);
                }
                Loss::Unknown => report.may_lack_images = true,
            }
        }
    }

    /// What of a report must be told.
    fn of(report: &RepairReport) -> Self {
        let images = report.damaged_images.iter().map(|lost| {
            let tags: Vec<_> = lost.tags.iter().map(ToString::to_string).collect();
            let (project, tags) = (lost.project.clone(), tags.join("\n"));
            Loss::Image { image: lost.image, paths: lost.lost_paths, project, tags }
        });
        let restored = report.restored.iter().filter(|image| !report.removed.contains(image));
        let restored =
            restored.map(|found| Loss::Restored { image: found.image, project: found.project.clone() });
        let checkouts = report.lost_checkouts.iter().cloned().map(Loss::Checkout);
        let workspaces = report.lost_workspaces.iter().cloned().map(Loss::Workspace);
        let salvaged = report.salvaged.iter().cloned().map(Loss::Salvaged);
        let unknown = report.may_lack_images.then_some(Loss::Unknown);
        let named = images.chain(restored).chain(checkouts).chain(workspaces).chain(salvaged);
        Self { losses: named.chain(unknown).collect() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.raw(MAGIC).u8(VERSION).u8(0);
        for loss in &self.losses {
            match loss {
                Loss::Image { image, paths, project, tags } => out
                    .u8(0)
                    .raw(image.as_uuid().as_bytes())
                    .raw(&paths.to_le_bytes())
                    .bytes(project.as_bytes())
                    .bytes(tags.as_bytes()),
                Loss::Restored { image, project } => {
                    out.u8(1).raw(image.as_uuid().as_bytes()).bytes(project.as_bytes())
                }
                Loss::Checkout(checkout) => out.u8(2).bytes(checkout.as_os_str().as_bytes()),
                Loss::Workspace(workspace) => out.u8(3).bytes(workspace.as_bytes()),
                Loss::Salvaged(left) => out
                    .u8(4)
                    .raw(left.image.as_uuid().as_bytes())
                    .raw(left.of.as_uuid().as_bytes())
                    .raw(&left.entries.to_le_bytes())
                    .bytes(left.project.as_bytes()),
                Loss::Unknown => out.u8(5),
            };
        }
        let check = blake3::hash(&out.0);
        out.raw(check.as_bytes());
        out.0
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder(checked(bytes)?);
        if decoder.raw(6)? != MAGIC || decoder.u8()? != VERSION || decoder.u8()? != 0 {
            return Err(DecodeError::UnknownTag);
        }
        let mut losses = Vec::new();
        while !decoder.is_empty() {
            losses.push(match decoder.u8()? {
                0 => Loss::Image {
                    image: image(&mut decoder)?,
                    paths: decoder.array().map(u64::from_le_bytes)?,
                    project: text(&mut decoder)?,
                    tags: text(&mut decoder)?,
                },
                1 => Loss::Restored { image: image(&mut decoder)?, project: text(&mut decoder)? },
                2 => Loss::Checkout(OsStr::from_bytes(decoder.bytes()?).into()),
                3 => Loss::Workspace(text(&mut decoder)?),
                4 => Loss::Salvaged(SalvagedImage {
                    image: image(&mut decoder)?,
                    of: image(&mut decoder)?,
                    entries: decoder.array().map(u64::from_le_bytes)?,
                    project: text(&mut decoder)?,
                }),
                5 => Loss::Unknown,
                _ => return Err(DecodeError::UnknownTag),
            });
        }
        Ok(Self { losses })
    }
}

/// The losses with these bytes, encoded again.
#[cfg(feature = "testing")]
pub(crate) fn reencode(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    UnreportedLosses::decode(bytes).map(|unreported| unreported.encode())
}

fn add<T>(all: &mut Vec<T>, new: T, is_it: impl Fn(&T) -> bool) {
    if !all.iter().any(is_it) {
        all.push(new);
    }
}

fn image(decoder: &mut Decoder<'_>) -> Result<ImageId, DecodeError> {
    decoder.array().map(|bytes| ImageId::from_uuid(uuid::Uuid::from_bytes(bytes)))
}

fn text(decoder: &mut Decoder<'_>) -> Result<String, DecodeError> {
    String::from_utf8(decoder.bytes()?.to_vec()).map_err(|_| DecodeError::UnknownTag)
}

/// Keeps what of the report must be told, if anything, durable.
pub(super) fn keep(disk: &dyn Disk, report: &RepairReport) -> Result<()> {
    if !report.has_losses() {
        return Ok(());
    }
    let write = || {
        let file = disk.open(NEW_UNREPORTED_FILE, OpenMode::CreateNew)?;
        file.write_at(&UnreportedLosses::of(report).encode(), 0)?;
        file.sync()?;
        disk.rename(NEW_UNREPORTED_FILE, UNREPORTED_FILE)?;
        disk.sync_dir("")
    };
    write().map_err(failed("write the list of its losses"))
}

/// Forgets it, if there was anything: it is told.
pub(super) fn forget(disk: &dyn Disk) {
    if disk.exists(UNREPORTED_FILE).unwrap_or(true) {
        // One that stays is told once more.
        let _ = disk.remove(UNREPORTED_FILE).and_then(|()| disk.sync_dir(""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn losses_come_back_once_or_are_found_damaged() {
        let disk = MemoryDisk::default();
        let image = |number| ImageId::from_uuid(uuid::Uuid::from_u128(number));
        let lost = |number, tag: &str| {
            DamagedImage::unreported("p".into(), image(number), vec![tag.parse().unwrap()], 3)
        };
        let found = |number| {
            let image = image(number);
            FoundImage { project: "public".into(), image, created: latest_created(image) }
        };
        let report = RepairReport {
            damaged_images: vec![lost(1, "a"), lost(2, "b:c")],
            restored: vec![found(3), found(4)],
            removed: vec![found(4)],
            lost_checkouts: vec!["/there".into()],
            lost_workspaces: vec!["w of p".into()],
            may_lack_images: true,
            salvaged: vec![SalvagedImage { project: "p".into(), image: image(5), of: image(1), entries: 7 }],
            ..RepairReport::default()
        };
        keep(&disk, &RepairReport::default()).unwrap();
        assert_eq!(
            UnreportedLosses::read(&disk, &mut RepairReport::default()).unwrap(),
            UnreportedLosses::default()
        );
        keep(&disk, &report).unwrap();
        // One of them is found again.
        let mut next = RepairReport { damaged_images: vec![lost(1, "a")], ..RepairReport::default() };
        for _ in 0..2 {
            UnreportedLosses::read(&disk, &mut next)
                .unwrap()
                .add_to(&mut next, |id| id == image(3) || id == image(5));
            let images: Vec<_> = next.damaged_images.iter().map(|lost| (lost.image, &lost.tags)).collect();
            let expected: Vec<_> =
                report.damaged_images.iter().map(|lost| (lost.image, &lost.tags)).collect();
            assert_eq!(images, expected);
            assert_eq!((&next.restored, &next.salvaged), (&vec![found(3)], &report.salvaged));
            assert!(next.may_lack_images);
            assert_eq!(
                (&next.lost_checkouts, &next.lost_workspaces),
                (&report.lost_checkouts, &report.lost_workspaces)
            );
        }
        let file = disk.open(UNREPORTED_FILE, OpenMode::Write).unwrap();
        file.write_at(b"X", 20).unwrap();
        let mut report = RepairReport::default();
        assert_eq!(UnreportedLosses::read(&disk, &mut report).unwrap(), UnreportedLosses::default());
        assert_eq!(report.fault_count, 1);
        forget(&disk);
        assert!(!disk.exists(UNREPORTED_FILE).unwrap());
    }
}
