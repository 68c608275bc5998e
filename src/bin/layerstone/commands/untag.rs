//! `untag`: takes tags away.

use std::io;

use clap::Args;
use layerstone::id::ImageId;
use layerstone::{ImageRef, Project, TagName};
use schemars::JsonSchema;
use serde::Serialize;

use super::list::each;
use super::{Context, Outcome};
use crate::output::{Output, Report};

/// Remove tags, or all tags of an image
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  layerstone untag debian:latest\n  layerstone untag --all debian:12")]
pub(crate) struct UntagArguments {
    /// Remove all tags of this image
    #[arg(long, value_name = "IMAGE", conflicts_with = "names")]
    all: Option<ImageRef>,
    /// Tags to remove
    #[arg(required_unless_present = "all")]
    names: Vec<TagName>,
}

/// A tag that was taken from its image.
#[derive(Serialize, JsonSchema)]
pub(super) struct Untagged<'a> {
    tag: &'a TagName,
    image: ImageId,
}

impl Report for Untagged<'_> {
    fn text(&self) -> io::Result<()> {
        Output::line(&format!("untagged {}", self.tag))
    }
}

pub(super) fn run(context: &Context, arguments: &UntagArguments) -> Outcome {
    let project = context.project()?;
    match &arguments.all {
        Some(image) => {
            let image = project.resolve(image)?.id;
            let tags = project.untag_all(&image.into())?;
            each(&context.out, &tags, |tag| Ok(Untagged { tag, image }))
        }
        None => untag(context, &project, &arguments.names, None),
    }
}

/// Takes tags away, from `image` if it is given.
pub(super) fn untag(
    context: &Context,
    project: &Project,
    tags: &[TagName],
    image: Option<&ImageRef>,
) -> Outcome {
    each(&context.out, tags, |tag| Ok(Untagged { tag, image: project.untag(tag, image)? }))
}
