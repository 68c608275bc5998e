//! `tag`: names an image, or takes a name away.

use std::io;

use clap::Args;
use layerstone::id::ImageId;
use layerstone::{Expected, ImageRef, TagName};
use schemars::JsonSchema;
use serde::Serialize;

use super::untag::untag;
use super::{Context, Outcome, usage};
use crate::Failure;
use crate::output::{Output, Report};

/// Give an image tags, or take one away
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone tag debian:12 debian:latest\n  layerstone tag --delete debian:latest"
)]
pub(crate) struct TagArguments {
    /// Take the tag away instead: `tag -d [IMAGE] NAME`
    #[arg(short, long, short_alias = 'U', alias = "rm")]
    pub(crate) delete: bool,
    /// Refuse unless the tag now names this image, or is `absent`
    #[arg(long, value_name = "UUID", conflicts_with = "delete")]
    pub(crate) expect: Option<String>,
    /// Print the image's UUID only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Image, by UUID, tag or name, and then the tags
    #[arg(required = true, value_name = "IMAGE NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Tagged<'a> {
    image: ImageId,
    tags: &'a [TagName],
}

impl Report for Tagged<'_> {
    fn text(&self) -> io::Result<()> {
        Output::line(&self.image.to_string())
    }
}

pub(super) fn run(context: &Context, arguments: &TagArguments) -> Outcome {
    let project = context.project()?;
    let names = arguments.names.as_slice();
    if arguments.delete {
        let (image, tag) = match names {
            [tag] => (None, tag),
            [image, tag] => (Some(image.parse::<ImageRef>()?), tag),
            _ => return Err(usage("tag -d", "an image, if any, and one tag are expected")),
        };
        return untag(context, &project, &[name(tag)?], image.as_ref());
    }
    let (Some((image, tags)), true) = (names.split_first(), names.len() > 1) else {
        return Err(usage("tag", "an image and at least one tag are expected: layerstone tag IMAGE NAME…"));
    };
    let image = image.parse::<ImageRef>()?;
    let tags = tags.iter().map(|tag| name(tag)).collect::<Result<Vec<_>, _>>()?;
    let id = match (&arguments.expect, tags.as_slice()) {
        (None, tags) => project.tag(&image, tags)?,
        (Some(expected), [tag]) => {
            let expected = match expected.as_str() {
                "absent" => Expected::Absent,
                text => match text.parse()? {
                    ImageRef::Id(id) => Expected::Image(id),
                    _ => return Err(usage("--expect", "an image's UUID or 'absent' is expected")),
                },
            };
            project.tag_if(&image, tag, expected)?
        }
        (Some(_), _) => return Err(usage("--expect", "goes with one tag")),
    };
    context.out.report(&Tagged { image: id, tags: &tags }, || format!("image {id} was tagged"))
}

fn name(text: &str) -> Result<TagName, Failure> {
    text.parse::<TagName>().map_err(|error| usage("NAME", &error.to_string()))
}
