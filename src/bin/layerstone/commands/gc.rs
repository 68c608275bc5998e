//! `gc`: frees what no image needs.

use std::io;

use clap::Args;
use layerstone::{GcOptions, GcReport};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Context, Outcome};
use crate::output::{Output, Report, count, size};

/// Free what no image of any project needs, while others go on
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  layerstone gc --dry-run\n  layerstone gc --full")]
pub(crate) struct GcArguments {
    /// Say what could be freed, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Free as much as possible by rewriting partly used packs (slower)
    #[arg(long)]
    pub(crate) full: bool,
    /// Free also the files that are prepared for workspaces and that none uses now
    #[arg(long)]
    pub(crate) caches: bool,
}

pub(super) fn run(context: &Context, arguments: &GcArguments) -> Outcome {
    let GcArguments { dry_run, full, caches } = *arguments;
    let report = context.store()?.collect_garbage(&GcOptions { dry_run, full, caches })?;
    let collected = Collected { report, is_full: full };
    if dry_run {
        return Ok(context.out.show(&collected)?);
    }
    context.out.report(&collected, || "the collection is done".to_owned())
}

#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Collected {
    report: GcReport,
    #[serde(skip)]
    is_full: bool,
}

impl Report for Collected {
    fn text(&self) -> io::Result<()> {
        let Self { report, is_full } = self;
        let freed = report.net_freed_bytes();
        let (verb, images) = (if report.is_dry_run { "would be freed" } else { "freed" }, report.images);
        let copied = match report.copied_bytes {
            0 => String::new(),
            bytes => format!(", {} copied", size(bytes)),
        };
        Output::line(&format!(
            "{} {verb} of {} ({}{copied}); {} {}",
            size(freed),
            size(report.bytes_before),
            count(report.freed_packs, "pack", "packs"),
            count(images, "image", "images"),
            if images == 1 { "stays" } else { "stay" },
        ))?;
        if report.workspace_bytes_before > 0 {
            Output::line(&format!(
                "{} {verb} of {} of files prepared for workspaces or left by them",
                size(report.freed_workspace_bytes),
                size(report.workspace_bytes_before)
            ))?;
        }
        if report.idle_workspace_bytes > 0 {
            let idle = size(report.idle_workspace_bytes);
            Output::note(&format!("{idle} of that no workspace uses now: --caches frees it."));
        }
        for left in &report.left_over {
            Output::note(&format!("{} is left of a workspace: {}.", size(left.bytes), left.reason));
        }
        if report.waiting_packs > 0 {
            let packs = count(report.waiting_packs, "pack goes", "packs go");
            Output::note(&format!(
                "{packs} with the next gc ({}): someone began to read before this one.",
                size(report.waiting_bytes)
            ));
        }
        if !*is_full && report.unneeded_bytes > report.bytes_before / 100 {
            let more = size(report.unneeded_bytes);
            Output::note(&format!(
                "About {more} more are unneeded, among what is needed: --full frees most of it."
            ));
        }
        if report.is_short_of_room {
            Output::note(
                "More could be freed, but there is no room to copy what is needed beside it: make some, or remove more.",
            );
        }
        if report.damaged_packs > 0 {
            let packs = count(report.damaged_packs, "damaged pack stays", "damaged packs stay");
            Output::note(&format!("{packs}: see `layerstone verify`."));
        }
        Ok(())
    }
}
