//! `repair`: makes a damaged store a sound one; what is lost is a failure.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use clap::Args;
use layerstone::{CatalogState, Error, FoundImage, RepairOptions, RepairReport};
use schemars::JsonSchema;
use serde::Serialize;

use super::damage::{damaged_image, faults, some_lines};
use super::{Context, Outcome};
use crate::Failure;
use crate::output::{Output, Report, age, count, shown};

/// Keep all of a damaged store that is sound, and say what is lost, while no other process uses it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  layerstone repair\n  layerstone repair --include-removed")]
pub(crate) struct RepairArguments {
    /// Bring back images that had been removed, too, where they are still there
    #[arg(long)]
    include_removed: bool,
}

pub(super) fn run(context: &Context, arguments: &RepairArguments) -> Outcome {
    let store = context.location()?;
    let options = RepairOptions { include_removed: arguments.include_removed };
    let report = context.options()?.repair(&store, options)?;
    let repaired = Repaired { report: &report, store: &store };
    context
        .out
        .report(&repaired, || "the repair is done; 'layerstone verify' says what the store has".to_owned())?;
    if report.has_losses() { Err(Failure::Store(Error::lost(&store))) } else { Ok(()) }
}

/// What was damaged, what is lost, and what the store has now.
#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Repaired<'a> {
    report: &'a RepairReport,
    #[serde(skip)]
    store: &'a Path,
}

impl Report for Repaired<'_> {
    fn text(&self) -> io::Result<()> {
        let Self { report, store } = self;
        faults(&report.faults, report.fault_count)?;
        lost(report, store)?;
        if !report.salvaged.is_empty() {
            Output::line("What is sound of those, as images without a tag:")?;
            some_lines(&report.salvaged, report.salvaged.len() as u64, |left| {
                let paths = count(left.entries, "path", "paths");
                Output::line(&format!(
                    "  image {} of {}: {paths} of image {}",
                    left.image, left.project, left.of
                ))
            })?;
        }
        let without_tags = if report.may_lack_tags() { ", without the tags that were on them" } else { "" };
        found(&format!("Restored, from packs alone{without_tags}:"), &report.restored)?;
        if report.restored.is_empty() {
            found(
                "Removed before, and still in packs ('--include-removed' brings them back):",
                &report.removed,
            )?;
        }
        let projects = report.restored.iter().map(|image| &image.project);
        let projects = projects.chain(report.salvaged.iter().map(|image| &image.project));
        let unnamed: BTreeSet<_> = projects.filter(|name| name.starts_with("recovered-")).collect();
        if let Some(name) = unnamed.first() {
            Output::line(&format!(
                "Projects that lost their names are called 'recovered-1' and so on: '--project {name}' finds those images."
            ))?;
        }
        if report.catalog != CatalogState::Whole {
            let dump = report.dump_written.map_or_else(
                || "There was no dump of it: names of projects and tags are lost.".into(),
                |moment| {
                    format!("Tags, names and removals are those of {moment}, where newer ones were lost.")
                },
            );
            Output::line(&format!("The catalog was {}. {dump}", name_of(report.catalog)))?;
        }
        if !report.quarantined.is_empty() {
            let files = count(report.quarantined.len() as u64, "file was", "files were");
            let folder = store.join("quarantine");
            Output::line(&format!(
                "{files} set aside in {}: delete it once nothing is missing.",
                shown(&folder)
            ))?;
        }
        let images = count(report.images, "image", "images");
        let (objects, packs) =
            (count(report.objects, "object", "objects"), count(report.packs, "pack", "packs"));
        Output::line(&format!("{images} and {objects} in {packs}, all sound"))
    }
}

/// What was there and is no longer in the store.
fn lost(report: &RepairReport, store: &Path) -> io::Result<()> {
    let lost = report.damaged_images.len() + report.lost_checkouts.len() + report.lost_workspaces.len();
    if lost > 0 {
        Output::line("Lost, and no longer in the store:")?;
        some_lines(&report.damaged_images, report.damaged_images.len() as u64, damaged_image)?;
    }
    if let Some(moment) = report.dump_written.filter(|_| !report.damaged_images.is_empty()) {
        Output::line(&format!("  (as of {moment}: an image that was removed since may be among them)"))?;
    }
    for checkout in &report.lost_checkouts {
        let checkout = shown(checkout);
        Output::line(&format!("  checkout {checkout}: its next commit must name its base"))?;
    }
    for workspace in &report.lost_workspaces {
        Output::line(&format!("  workspace {workspace}"))?;
    }
    if !report.lost_workspaces.is_empty() {
        let store = shown(store);
        Output::line(&format!(
            "  (in {store}; 'files' there has what was written, or all of a full copy; 'merged', if it is mounted, the whole)"
        ))?;
    }
    if report.may_lack_images {
        let since =
            report.dump_written.map_or(String::new(), |moment| format!(" that were made after {moment}"));
        Output::line(&format!(
            "Images{since} may be lost without a name: the damaged or missing packs may have held the only records of them."
        ))?;
    }
    Ok(())
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
