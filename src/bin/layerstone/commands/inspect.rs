//! `inspect`: shows all that is known of images, as JSON.

use clap::Args;
use layerstone::{Image, ImageRef};

use super::{Context, Outcome};
use crate::output::Output;

/// Show all that is known of images
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// UUIDs, tags or names
    #[arg(required = true)]
    images: Vec<ImageRef>,
}

pub(super) fn run(context: &Context, arguments: &InspectArguments) -> Outcome {
    let project = context.project()?;
    let found = arguments.images.iter().map(|image| project.find(image)).collect::<Result<Vec<_>, _>>()?;
    let infos: Vec<_> = found.iter().map(Image::info).collect();
    Ok(Output::json(&infos)?)
}
