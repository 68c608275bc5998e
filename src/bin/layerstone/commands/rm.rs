//! `rm`: removes tags and images.

use std::io;

use clap::Args;
use layerstone::{ImageRef, RemoveReport};
use schemars::JsonSchema;
use serde::Serialize;

use super::list::each;
use super::{Context, Outcome};
use crate::output::{Output, Report};

/// Remove tags, and an image with its last one; by UUID, remove images
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone rm mine\n  layerstone rm --force 01a1fcfa-9c31-7000-b39e-20bced851765"
)]
pub(crate) struct RmArguments {
    /// Images, by UUID, tag or name
    #[arg(required = true)]
    images: Vec<ImageRef>,
    /// Remove an image by UUID though it has several tags
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(context: &Context, arguments: &RmArguments) -> Outcome {
    let project = context.project()?;
    each(&context.out, &arguments.images, |image| {
        let report = project.remove(image, arguments.force)?;
        Ok(Removed { name: image.to_string(), report })
    })
}

/// What became of one of the images.
#[derive(Serialize, JsonSchema)]
pub(super) struct Removed {
    /// What the command line calls it.
    name: String,
    #[serde(flatten)]
    report: RemoveReport,
}

impl Report for Removed {
    fn text(&self) -> io::Result<()> {
        let RemoveReport { untagged, removed } = &self.report;
        untagged.iter().try_for_each(|tag| Output::line(&format!("untagged {tag}")))?;
        removed.iter().try_for_each(|image| Output::line(&format!("removed {image}")))
    }
}
