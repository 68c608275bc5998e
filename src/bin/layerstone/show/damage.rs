//! What is damaged and what that costs, as text.

use std::io;
use std::path::Path;

use layerstone::{CatalogState, DamagedImage, FoundImage, RepairReport, TagName, VerifyReport};

use crate::output::{Output, count, size};
use crate::show::age;

/// Lines of one kind; what comes after them is in the JSON.
const LINES: usize = 20;

/// What was read back and checked.
pub(crate) fn verified(report: &VerifyReport, quick: bool) -> io::Result<()> {
    if !report.faults.is_empty() {
        Output::line("Damaged:")?;
        some_lines(&report.faults, report.fault_count, |fault| Output::line(&format!("  {fault}")))?;
    }
    if !report.damaged_images.is_empty() {
        Output::line("What images lose by it:")?;
        some_lines(&report.damaged_images, report.damaged_image_count, damaged_image)?;
    }
    let images = count(report.images, "image", "images");
    let packs = count(report.packs, "pack", "packs");
    let found = if report.is_sound() {
        "all sound".to_owned()
    } else {
        let damaged = count(report.damaged_image_count, "image", "images");
        format!("{}, {damaged} damaged", count(report.fault_count, "fault", "faults"))
    };
    if quick {
        return Output::line(&format!("{images} in {packs}, file contents not read: {found}"));
    }
    let objects = count(report.objects, "object", "objects");
    let (bytes, stored) = (size(report.bytes), size(report.stored_bytes));
    Output::line(&format!("{images} and {objects} in {packs}, {bytes} stored as {stored}: {found}"))
}

/// The first of many things, and how many more there are.
pub(crate) fn some_lines<T>(
    things: &[T],
    all: u64,
    mut each: impl FnMut(&T) -> io::Result<()>,
) -> io::Result<()> {
    things.iter().take(LINES).try_for_each(&mut each)?;
    let left = all.saturating_sub(things.len().min(LINES) as u64);
    if left > 0 {
        Output::line(&format!("  … and {left} more"))?;
    }
    Ok(())
}

/// An image and its paths that are lost.
pub(crate) fn damaged_image(image: &DamagedImage) -> io::Result<()> {
    let tags: Vec<_> = image.tags.iter().map(TagName::as_str).collect();
    let tags = if tags.is_empty() { String::new() } else { format!(" ({})", tags.join(", ")) };
    let paths = count(image.lost_paths, "path", "paths");
    Output::line(&format!("  image {}{tags} of {}: {paths}", image.image, image.project))?;
    if let Some(cause) = &image.lost_history {
        Output::line(&format!("    its history: {cause}"))?;
    }
    let mut told = 0;
    for lost in image.lost.iter().take(LINES) {
        let following = match lost.paths {
            1 => String::new(),
            paths => format!(" and {} after it", count(paths - 1, "path", "paths")),
        };
        Output::line(&format!("    {}{following}: {}", lost.path, lost.cause.message()))?;
        told += lost.paths;
    }
    if image.lost_paths > told {
        Output::line(&format!("    … and {} more", count(image.lost_paths - told, "path", "paths")))?;
    }
    Ok(())
}

/// What was damaged, what is lost, and what the store has now.
pub(crate) fn repaired(report: &RepairReport, store: &Path) -> io::Result<()> {
    if !report.faults.is_empty() {
        Output::line("Damaged:")?;
        some_lines(&report.faults, report.fault_count, |fault| Output::line(&format!("  {fault}")))?;
    }
    let lost = report.damaged_images.len() + report.lost_checkouts.len() + report.lost_workspaces.len();
    if lost > 0 {
        Output::line("Lost, and no longer in the store:")?;
        some_lines(&report.damaged_images, report.damaged_images.len() as u64, damaged_image)?;
    }
    if let Some(moment) = report.dump_written.filter(|_| !report.damaged_images.is_empty()) {
        Output::line(&format!("  (as of {moment}: an image that was removed since may be among them)"))?;
    }
    for checkout in &report.lost_checkouts {
        Output::line(&format!("  checkout {checkout}: its next commit must name its base"))?;
    }
    for workspace in &report.lost_workspaces {
        Output::line(&format!("  workspace {workspace}"))?;
    }
    if !report.salvaged.is_empty() {
        Output::line("What is sound of those, as images without a tag:")?;
        some_lines(&report.salvaged, report.salvaged.len() as u64, |left| {
            let paths = count(left.entries, "path", "paths");
            Output::line(&format!("  image {} of {}: {paths} of image {}", left.image, left.project, left.of))
        })?;
    }
    let without_tags = if report.may_lack_tags() { ", without the tags that were on them" } else { "" };
    found(&format!("Restored, from packs alone{without_tags}:"), &report.restored)?;
    if report.restored.is_empty() {
        found("Removed before, and still in packs ('--include-removed' brings them back):", &report.removed)?;
    }
    if report.catalog != CatalogState::Whole {
        let dump = report.dump_written.map_or_else(
            || {
                "There was no dump of it: projects without a name are called 'recovered-', and tags are lost."
                    .into()
            },
            |moment| format!("Tags, names and removals are those of {moment}, where newer ones were lost."),
        );
        Output::line(&format!("The catalog was {}. {dump}", name_of(report.catalog)))?;
    }
    if !report.quarantined.is_empty() {
        let files = count(report.quarantined.len() as u64, "file was", "files were");
        let folder = store.join("quarantine");
        Output::line(&format!(
            "{files} set aside in {}: delete it once nothing is missing.",
            folder.display()
        ))?;
    }
    let images = count(report.images, "image", "images");
    let (objects, packs) = (count(report.objects, "object", "objects"), count(report.packs, "pack", "packs"));
    Output::line(&format!("{images} and {objects} in {packs}, all sound"))
}

fn name_of(state: CatalogState) -> &'static str {
    match state {
        CatalogState::Missing => "missing",
        _ => "damaged",
    }
}

fn found(title: &str, images: &[FoundImage]) -> io::Result<()> {
    if images.is_empty() {
        return Ok(());
    }
    Output::line(title)?;
    some_lines(images, images.len() as u64, |found| {
        Output::line(&format!("  image {} of {}, made {}", found.image, found.project, age(found.created)))
    })
}
