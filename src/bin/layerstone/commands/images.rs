//! `images`: lists images.

use std::io;

use clap::Args;
use layerstone::id::ImageId;
use layerstone::{ImageInfo, ImageKind, ListOptions, Moment, Scope};

use super::{Context, Outcome};
use crate::output::{Output, Report, age, size};
use crate::values::{moment, number};

/// Images that are shown where nothing else is asked for.
const SHOWN: usize = 100;

/// List images, newest first
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone images --prefix debian\n  layerstone images --all --since 1d --quiet"
)]
pub(crate) struct ImagesArguments {
    /// Show only images with a tag that begins so
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
    /// Show images without tags, too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show only images made since a moment (2026-01-31, 2026-01-31T12:00:00Z) or an age (90s 30m 12h 1d 2w)
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(crate) since: Option<Moment>,
    /// Show only images made before a moment or an age
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(crate) until: Option<Moment>,
    /// Show at most so many, or all with 0 [default: 100; all with --json or --quiet]
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = number::<usize>)]
    pub(crate) limit: Option<usize>,
    /// Print UUIDs only; with --json, an array of them
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// `ls`, as after Docker's `image`
    #[arg(hide = true, value_name = "ls", value_parser = ls)]
    _ls: Option<()>,
}

fn ls(word: &str) -> Result<(), &'static str> {
    if matches!(word, "ls" | "list") {
        Ok(())
    } else {
        Err("'images' takes no name; list the tags that begin so with --prefix")
    }
}

pub(super) fn run(context: &Context, arguments: &ImagesArguments) -> Outcome {
    let ImagesArguments { prefix, all, since, until, limit, quiet, .. } = arguments;
    let options = ListOptions {
        prefix: prefix.clone(),
        tagged_only: !all,
        since: *since,
        until: *until,
        // Programs want all.
        limit: limit.or((!quiet && !context.out.json).then_some(SHOWN)).filter(|limit| *limit > 0),
        ..ListOptions::default()
    };
    let page = context.project_to_read()?.images(&options)?;
    if *quiet {
        context.out.show(&page.images.iter().map(|image| image.id).collect::<Vec<_>>())?;
    } else {
        context.out.show(&page.images)?;
    }
    if page.next.is_some() && !context.out.json {
        Output::note(&format!("There are more images than {}; -n 0 shows all.", page.images.len()));
    }
    Ok(())
}

impl Report for Vec<ImageId> {
    fn text(&self) -> io::Result<()> {
        self.iter().try_for_each(|image| Output::line(&image.to_string()))
    }
}

/// One row for each tag.
impl Report for Vec<ImageInfo> {
    fn text(&self) -> io::Result<()> {
        let mut rows = Vec::new();
        for image in self {
            let mut tags: Vec<String> = image.tags.iter().map(ToString::to_string).collect();
            if tags.is_empty() {
                tags.push("-".to_owned());
            }
            let scope = if image.scope == Scope::Public { "public" } else { "project" };
            let kind = if image.kind == ImageKind::Imported { "imported" } else { "committed" };
            for tag in tags {
                let (age, size) = (age(image.created), size(image.bytes));
                rows.push(vec![tag, image.id.to_string(), scope.to_owned(), kind.to_owned(), age, size]);
            }
        }
        Output::table(&["TAG", "IMAGE", "SCOPE", "KIND", "CREATED", "SIZE"], &[5], rows)
    }
}
