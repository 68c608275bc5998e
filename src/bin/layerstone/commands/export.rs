//! `export`: writes an image as a tar.

use std::io;
use std::path::PathBuf;

use clap::Args;
use layerstone::ImageRef;

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
}

pub(super) fn run(context: &Context, arguments: &ExportArguments) -> Outcome {
    let image = context.project()?.find(&arguments.image)?;
    let left_out = match &arguments.output {
        Some(path) if path.as_os_str() != "-" => write_file(path, |file| image.export(file))?,
        _ => image.export(io::stdout().lock())?,
    };
    for path in left_out {
        Output::note(&format!("{path}: left out: a tar can't hold a socket"));
    }
    Ok(())
}
