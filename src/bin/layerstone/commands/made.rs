//! What the commands that make an image have in common.

use std::io;

use clap::Args;
use layerstone::{CommitOptions, LeftOver, TagName, Workspace, WriteReport};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Outcome, source};
use crate::output::{Output, Report, count, shown, size};
use crate::values::bytes;

/// What goes with a new image.
#[derive(Debug, Args)]
pub(crate) struct MadeArguments {
    /// Give the image this tag; may be repeated
    #[arg(long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<TagName>,
    /// Say this of it in the history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) message: String,
    /// Refuse to commit more bytes of changed files than this (500MB, 2GiB)
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) max_layer_bytes: Option<u64>,
    /// Print the UUID only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl MadeArguments {
    pub(super) fn options(&self) -> CommitOptions {
        let Self { tags, message, max_layer_bytes, quiet: _ } = self;
        CommitOptions {
            tags: tags.clone(),
            comment: message.clone(),
            max_layer_bytes: *max_layer_bytes,
            ..CommitOptions::default()
        }
    }
}

/// An image that was made, or was there already.
#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Written<'a> {
    pub(super) report: &'a WriteReport,
    /// What the user wanted to be said of it.
    #[serde(skip)]
    pub(super) message: &'a str,
    #[serde(skip)]
    pub(super) quiet: bool,
}

impl Report for Written<'_> {
    fn text(&self) -> io::Result<()> {
        let Self { report, message, quiet } = *self;
        note(report, message);
        if report.has_end_mark.is_some() && report.examined == 0 {
            let comes_of_it = if report.entries <= 1 { "the image is empty" } else { "it changes nothing" };
            Output::note(&format!("The tar has no entries: {comes_of_it}."));
        }
        if report.has_end_mark == Some(false) {
            Output::note(
                "The tar ends without its end mark, two zero blocks: it may have been cut short. --require-end refuses such a tar.",
            );
        }
        if !quiet {
            Output::line(&summary(report))?;
        }
        Output::line(&report.image.to_string())
    }
}

/// Says what an import or a commit did.
pub(super) fn show(out: &Output, quiet: bool, report: &WriteReport, message: &str) -> Outcome {
    out.report(&Written { report, message, quiet }, || done(report))
}

/// What was done, for who can't be shown the report.
pub(super) fn done(report: &WriteReport) -> String {
    if report.is_new {
        format!("image {} was made", report.image)
    } else {
        format!("image {} was there already", report.image)
    }
}

/// Says what is to be known of an image that was made, or was there.
pub(super) fn note(report: &WriteReport, message: &str) {
    if !report.is_new && !message.is_empty() {
        Output::note("This image was there already and keeps its comment; the message was not used.");
    }
    source::note(&report.source);
    if let Some(later) = report.later_image {
        Output::note(&format!(
            "The image before this one is dated {later}, later than the clock says now: one of the two is wrong. Images are listed in the order in which they were made."
        ));
    }
}

/// The report in one line, without the image.
pub(super) fn summary(report: &WriteReport) -> String {
    if report.is_new {
        format!(
            "{}, {} in files; {} read, {} new, {} stored",
            count(report.entries, "path", "paths"),
            size(report.bytes),
            report.examined,
            size(report.new_bytes),
            size(report.stored_bytes)
        )
    } else {
        "unchanged: this image was there already".to_owned()
    }
}

/// Returns what a workspace that has ended left on the disk.
pub(super) fn left_over(workspace: &Workspace) -> Option<LeftOver> {
    workspace.left_over().ok().flatten()
}

/// Says what a workspace that has ended left on the disk.
pub(super) fn note_left_over(left: &LeftOver) {
    let (bytes, path) = (size(left.bytes), shown(&left.path));
    Output::note(&format!("{bytes} stay in {path}, and each gc tries again: {}.", left.reason));
}
