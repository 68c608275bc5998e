//! `inspect`: shows all that is known of images, as JSON.

use clap::Args;
use layerstone::ImageRef;

use super::list::{attempt, finish};
use super::{Context, Outcome};
use crate::output::Output;

/// Show all that is known of images, as JSON
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  layerstone inspect debian:12\n  layerstone inspect debian:12 mine")]
pub(crate) struct InspectArguments {
    /// Images, by UUID, tag or name
    #[arg(required = true)]
    images: Vec<ImageRef>,
}

pub(super) fn run(context: &Context, arguments: &InspectArguments) -> Outcome {
    let project = context.project_to_read()?;
    let (infos, failures) = attempt(&arguments.images, |image| Ok(project.find(image)?.info().clone()));
    let printed = Output::json(&infos);
    finish(failures)?;
    Ok(printed?)
}
