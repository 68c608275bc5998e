//! `merge`: makes an image of what two have changed.

use std::io;

use clap::Args;
use layerstone::{CommitOptions, ImageRef, MergeOutcome, TreePath};
use schemars::JsonSchema;
use serde::Serialize;

use super::made::MadeArguments;
use super::{Context, Outcome, made};
use crate::output::{Output, Report};

/// Merge what another image changed into an image, and print the new image's UUID last
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone merge mine theirs --tag both\n  layerstone merge mine theirs --base debian:12"
)]
pub(crate) struct MergeArguments {
    /// Image to merge into: the new image's parent
    pub(crate) ours: ImageRef,
    /// Image whose changes are merged
    pub(crate) theirs: ImageRef,
    /// Name the image that both have changed [default: the nearest that both came from]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) base: Option<ImageRef>,
    #[command(flatten)]
    pub(crate) made: MadeArguments,
}

pub(super) fn run(context: &Context, arguments: &MergeArguments) -> Outcome {
    let MergeArguments { ours, theirs, base, made } = arguments;
    let options = CommitOptions { base: base.clone(), ..made.options() };
    let outcome = context.project()?.merge(ours, theirs, &options)?;
    if let MergeOutcome::Conflicts(conflicts) = &outcome {
        context.out.show(&Conflicts { conflicts })?;
    }
    made::show(&context.out, made.quiet, &outcome.into_report()?, &made.message)
}

/// Paths that both images changed, so that nothing was merged.
#[derive(Serialize, JsonSchema)]
pub(super) struct Conflicts<'a> {
    conflicts: &'a [TreePath],
}

impl Report for Conflicts<'_> {
    fn text(&self) -> io::Result<()> {
        self.conflicts.iter().try_for_each(|path| Output::line(&format!("C {path}")))
    }
}
