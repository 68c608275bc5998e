//! `export`: writes an image as a tar.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;
use layerstone::{ExportOptions, ImageRef};

use super::{Context, Outcome, usage};
use crate::output::Output;
use crate::replacement::write_file;

/// Write an image as a tar of its root file system
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone export mine --output mine.tar\n  layerstone export mine | zstd > mine.tar.zst"
)]
pub(crate) struct ExportArguments {
    /// Image, by UUID, tag or name
    image: ImageRef,
    /// Write this file, replaced only by a complete one; `-` is standard output [default: -]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write zeros for the holes of files, for programs that do not know sparse files in tars
    #[arg(long)]
    no_sparse: bool,
}

pub(super) fn run(context: &Context, arguments: &ExportArguments) -> Outcome {
    if arguments.output.is_none() && io::stdout().is_terminal() {
        return Err(usage("export", "a tar is nothing for a terminal; name a file with --output FILE"));
    }
    let image = context.project()?.find(&arguments.image)?;
    let options = ExportOptions { fill_holes: arguments.no_sparse };
    let left_out = match &arguments.output {
        Some(path) if path.as_os_str() != "-" => write_file(path, |file| image.export(file, options))?,
        _ => image.export(io::stdout().lock(), options)?,
    };
    for path in left_out {
        Output::note(&format!("{path}: left out: a tar can't hold a socket"));
    }
    Ok(())
}
