//! `rm`: removes tags and images.

use std::io;

use clap::Args;
use layerstone::{ImageRef, RemoveReport};

use super::{Context, Outcome};
use crate::output::{Output, Report};

/// Remove a tag, and its image with the last one; or by UUID the image
#[derive(Debug, Args)]
pub(crate) struct RmArguments {
    /// UUIDs, tags or names
    #[arg(required = true)]
    images: Vec<ImageRef>,
    /// Remove an image by UUID though it has several tags
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(context: &Context, arguments: &RmArguments) -> Outcome {
    let project = context.project()?;
    for image in &arguments.images {
        context.out.show(&project.remove(image, arguments.force)?)?;
    }
    Ok(())
}

impl Report for RemoveReport {
    fn text(&self) -> io::Result<()> {
        self.untagged.iter().try_for_each(|tag| Output::line(&format!("untagged {tag}")))?;
        self.removed.iter().try_for_each(|image| Output::line(&format!("removed {image}")))
    }
}
