//! `commit`: makes an image of what was changed.

use std::path::PathBuf;

use clap::Args;
use layerstone::{CommitOptions, ImageRef, OverlayMarks};

use super::made::MadeArguments;
use super::source::ReadArguments;
use super::tar::{open_tar, tar_options};
use super::{Context, Outcome, made, usage};

/// Commit a changed checkout, an overlay's upper directory or a layer's tar as a new image, and print its UUID last
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone commit work --tag mine -m \"a greeting\"\n  layerstone commit --base debian:12 --layer layer.tar --tag mine"
)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct CommitArguments {
    /// Directory that was checked out, and changed
    #[arg(required_unless_present_any = ["layer", "upper"])]
    pub(crate) directory: Option<PathBuf>,
    /// Name the image that was changed; a checkout knows its own
    #[arg(long, value_name = "IMAGE")]
    pub(crate) base: Option<ImageRef>,
    /// Apply a layer's tar to the base instead: a file, or `-` for standard input
    #[arg(long, value_name = "TAR", requires = "base", conflicts_with_all = ["directory", "upper"])]
    pub(crate) layer: Option<PathBuf>,
    /// Commit an overlay's upper directory instead, whose lower layer is a checkout of the base
    #[arg(long, value_name = "DIR", requires = "base", conflicts_with = "directory")]
    pub(crate) upper: Option<PathBuf>,
    /// Read the marks of an overlay that was mounted with `userxattr`
    #[arg(long, requires = "upper")]
    pub(crate) userxattr: bool,
    /// Read the marks of fuse-overlayfs, which rootless Podman uses
    #[arg(long, requires = "upper", conflicts_with = "userxattr")]
    pub(crate) fuse_overlayfs: bool,
    /// Keep what looks like marks of another kind of overlay as files and attributes of the image
    #[arg(long, requires = "upper", conflicts_with = "fuse_overlayfs")]
    pub(crate) keep_marks: bool,
    /// Refuse a layer without its end mark, since it may have been cut short, or with other data behind it
    #[arg(long, requires = "layer", conflicts_with_all = ["directory", "upper"])]
    pub(crate) require_end: bool,
    /// Take a layer for what it is, even if it looks like a saved image
    #[arg(long, requires = "layer", conflicts_with_all = ["directory", "upper"])]
    pub(crate) any_layer: bool,
    #[command(flatten)]
    pub(crate) read: ReadArguments,
    #[command(flatten)]
    pub(crate) made: MadeArguments,
}

pub(super) fn run(context: &Context, arguments: &CommitArguments) -> Outcome {
    let CommitArguments { directory, base, layer, upper, read, made, .. } = arguments;
    let project = context.project()?;
    let options = CommitOptions { changing: read.changing(), ..made.options() };
    let report = match (directory, layer, upper, base) {
        (None, Some(layer), None, Some(base)) => {
            if let Some(option) = read.given() {
                return Err(usage(option, "is for directories, and a layer is a tar; leave it out"));
            }
            let edit = project.find(base)?.edit();
            let tar = tar_options(layer, arguments.require_end, arguments.any_layer);
            edit.apply_tar_with(open_tar(layer, None)?, tar).commit(&options)?
        }
        (None, None, Some(upper), Some(base)) => {
            project.commit_upper(upper, base, marks(arguments), &options)?
        }
        (Some(directory), None, None, base) => {
            project.commit(directory, &CommitOptions { base: base.clone(), ..options })?
        }
        _ => return Err(usage("DIRECTORY", "one of a directory, --layer and --upper is expected")),
    };
    made::show(&context.out, made.quiet, &report, &made.message)
}

fn marks(arguments: &CommitArguments) -> OverlayMarks {
    match (arguments.fuse_overlayfs, arguments.userxattr, arguments.keep_marks) {
        (true, ..) => OverlayMarks::FuseOverlayfs,
        (_, true, false) => OverlayMarks::User,
        (_, true, true) => OverlayMarks::OnlyUser,
        (_, false, false) => OverlayMarks::Trusted,
        (_, false, true) => OverlayMarks::OnlyTrusted,
    }
}
