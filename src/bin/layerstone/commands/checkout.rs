//! `checkout`: writes an image as real files.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use layerstone::{CheckoutOptions, CheckoutReport, ErrorKind, ImageRef, SharedFiles, Sharing};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Context, Outcome};
use crate::Failure;
use crate::output::{Output, Report, count, shown, size};

/// Write an image as real files
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone checkout debian:12 work\n  layerstone checkout debian:12 work --cache cache"
)]
pub(crate) struct CheckoutArguments {
    /// Image, by UUID, tag or name
    pub(crate) image: ImageRef,
    /// Directory to write, which is absent or empty
    pub(crate) directory: PathBuf,
    /// Make device nodes
    #[arg(long)]
    pub(crate) devices: bool,
    /// Set every extended attribute, beyond ACLs, user.* and security.capability
    #[arg(long)]
    pub(crate) all_xattrs: bool,
    /// Make the directory durable before it appears
    #[arg(long)]
    pub(crate) fsync: bool,
    /// Take files from this directory, and leave them there for later checkouts; delete it whenever you like
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Choose how files of the cache are taken
    #[arg(long, value_enum, default_value_t, requires = "cache")]
    pub(crate) sharing: CacheSharing,
}

/// How files of the cache are taken.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum CacheSharing {
    /// Copies that share their blocks until one is changed, where the file system can (XFS, btrfs)
    #[default]
    Reflink,
    /// The same inode in every checkout: a change of one is a change of all, so only for trees that nobody writes to
    HardLink,
}

pub(super) fn run(context: &Context, arguments: &CheckoutArguments) -> Outcome {
    let sharing = match arguments.sharing {
        CacheSharing::Reflink => Sharing::Reflink,
        CacheSharing::HardLink => Sharing::HardLink,
    };
    let shared = arguments.cache.clone().map(|directory| SharedFiles { directory, sharing });
    let options = CheckoutOptions {
        devices: arguments.devices,
        all_xattrs: arguments.all_xattrs,
        fsync: arguments.fsync,
        shared,
    };
    let directory = &arguments.directory;
    let project = match context.project() {
        // The store may be one that can't be written.
        Err(Failure::Store(error)) if error.kind() == ErrorKind::Io => context.project_to_read(),
        project => project,
    };
    let report = project?.find(&arguments.image)?.check_out(directory, options)?;
    context.out.report(&CheckedOut { report, directory }, || format!("{} was written", shown(directory)))
}

#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct CheckedOut<'a> {
    report: CheckoutReport,
    #[serde(skip)]
    directory: &'a Path,
}

impl Report for CheckedOut<'_> {
    fn text(&self) -> io::Result<()> {
        let Self { report, directory } = self;
        left_out(report);
        let directory = shown(directory);
        let shared = match report.files_shared {
            0 => String::new(),
            number => format!("; {} from the cache", count(number, "file", "files")),
        };
        let (paths, size) = (paths(report.entries), size(report.bytes));
        Output::line(&format!("{paths}, {size} in files, in {directory}{shared}"))
    }
}

/// What a checkout left out, in one line each.
fn left_out(report: &CheckoutReport) {
    let lines = [
        (report.owners_unset, ["has", "have"], "another owner: only root can give files away"),
        (
            report.modes_unset,
            ["has", "have"],
            "another mode: it was not allowed, or not safe with another owner",
        ),
        (report.times_unset, ["has", "have"], "another modification time: the file system can't hold theirs"),
        (
            report.xattrs_unset,
            ["lacks", "lack"],
            "extended attributes: not allowed, not supported, or only with --all-xattrs",
        ),
        (report.omitted, ["was", "were"], "not made: device nodes need --devices and root"),
    ];
    for (number, [one, many], text) in lines.iter().filter(|(number, ..)| *number > 0) {
        Output::note(&format!("{} {} {text}", paths(*number), if *number == 1 { one } else { many }));
    }
    if let Some(reason) = &report.untracked {
        Output::note(&format!("The store can't remember this checkout ({reason}): commit it with --base."));
    } else if lines.iter().any(|(number, ..)| *number > 0) {
        Output::note("A commit takes these from the image, not for changes.");
    }
}

fn paths(number: u64) -> String {
    count(number, "path", "paths")
}
