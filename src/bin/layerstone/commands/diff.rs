//! `diff`: compares two images.

use std::io;

use clap::Args;
use layerstone::{Difference, DifferenceKind, ImageRef};

use super::{Context, Outcome};
use crate::output::Output;

/// Show where two images differ
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone diff debian:12 mine\n  layerstone diff debian:12 mine --json"
)]
pub(crate) struct DiffArguments {
    /// Image before, by UUID, tag or name
    before: ImageRef,
    /// Image after, by UUID, tag or name
    after: ImageRef,
}

pub(super) fn run(context: &Context, arguments: &DiffArguments) -> Outcome {
    let project = context.project_to_read()?;
    let (before, after) = (project.find(&arguments.before)?, project.find(&arguments.after)?);
    let mut differences = before.diff(&after)?;
    if context.out.json {
        return Ok(Output::json(&differences.collect::<Result<Vec<_>, _>>()?)?);
    }
    // Printed as they are found: there may be millions.
    differences.try_for_each(|difference| Ok(line(&difference?)?))
}

/// One line for a path that differs.
fn line(difference: &Difference) -> io::Result<()> {
    let sign = match difference.kind {
        DifferenceKind::Added => 'A',
        DifferenceKind::Removed => 'D',
        DifferenceKind::Modified => 'M',
    };
    let what = difference.what.join(",");
    let what = if what.is_empty() { what } else { format!("  ({what})") };
    Output::line(&format!("{sign} {}{what}", difference.path))
}
