//! `export`: writes an image as a tar.

use std::io;
use std::path::PathBuf;

use clap::Args;
use layerstone::{ExportOptions, ImageRef};

use super::{Context, Outcome};
use crate::output::Output;
use crate::replacement::write_file;

/// Write an image as a tar of its root file system
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// UUID, tag or name
    image: ImageRef,
    /// File to write, replaced only by a complete one; `-` is standard output [default: -]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write zeros for the holes of files, for programs that do not know sparse files in tars
    #[arg(long)]
    no_sparse: bool,
}

pub(super) fn run(context: &Context, arguments: &ExportArguments) -> Outcome {
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
