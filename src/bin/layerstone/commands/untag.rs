//! `untag`: takes tags away.

use std::io;

use clap::Args;
use layerstone::id::ImageId;
use layerstone::{ImageRef, TagName};
use serde::Serialize;

use super::{Context, Outcome};
use crate::output::{Output, Report};

/// Remove one tag, or all tags of an image
#[derive(Debug, Args)]
pub(crate) struct UntagArguments {
    /// Remove all tags of this image
    #[arg(long, value_name = "IMAGE", conflicts_with = "name")]
    pub(crate) all: Option<ImageRef>,
    /// The tag to remove
    #[arg(required_unless_present = "all")]
    pub(crate) name: Option<TagName>,
}

/// Tags that were removed.
#[derive(Serialize)]
pub(super) struct Untagged<'a> {
    pub(super) untagged: &'a [TagName],
    /// The image that had them, where the command named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<ImageId>,
}

impl Report for Untagged<'_> {
    fn text(&self) -> io::Result<()> {
        self.untagged.iter().try_for_each(|tag| Output::line(&format!("untagged {tag}")))
    }
}

pub(super) fn run(context: &Context, arguments: &UntagArguments) -> Outcome {
    let project = context.project()?;
    let names = match (&arguments.all, &arguments.name) {
        (Some(image), _) => project.untag_all(image)?,
        (None, Some(name)) => project.untag(name, None).map(|_| vec![name.clone()])?,
        (None, None) => Vec::new(),
    };
    Ok(context.out.show(&Untagged { untagged: &names, image: None })?)
}
