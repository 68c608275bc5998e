//! `export`: writes an image as a tar.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;
use layerstone::id::ImageId;
use layerstone::{Error, ExportOptions, ImageRef, TreePath};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Context, Outcome, usage};
use crate::interrupt;
use crate::output::{Output, Report, shown, write_stream};
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
    let image = context.project_to_read()?.find(&arguments.image)?;
    let file = arguments.output.as_deref().filter(|path| path.as_os_str() != "-");
    file.map_or(Ok(()), |file| context.check_is_outside("--output", file))?;
    let name = file.map_or("standard output".into(), shown);
    let options = ExportOptions { name, fill_holes: arguments.no_sparse };
    let left_out = match file {
        Some(path) => write_file(path, |file| {
            let stream = interrupt::task().stream(file);
            image.export(stream.map_err(|error| Error::host(path, "write it", error))?, &options)
        })?,
        None => write_stream(|stdout| Ok(image.export(stdout, &options)?))?,
    };
    let exported = Exported { image: image.id(), left_out };
    // Standard output has the tar, so JSON has no place.
    let shown = if file.is_some() { context.out.show(&exported) } else { exported.text() };
    Ok(shown?)
}

/// What became of a file that was written.
#[derive(Serialize, JsonSchema)]
pub(super) struct Exported {
    /// The image that was written.
    image: ImageId,
    /// Sockets, which a tar can't hold.
    left_out: Vec<TreePath>,
}

impl Report for Exported {
    /// Nothing but notes: the file is there.
    fn text(&self) -> io::Result<()> {
        for path in &self.left_out {
            Output::note(&format!("{path}: left out: a tar can't hold a socket"));
        }
        Ok(())
    }
}
