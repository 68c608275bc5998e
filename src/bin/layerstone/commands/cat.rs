//! `cat`: prints a file of an image.

use std::io::{Read, Write};

use clap::Args;
use layerstone::{Error, ImageRef, TreePath};

use super::{Context, Outcome, usage};
use crate::Failure;
use crate::output::write_stream;
use crate::values::{path_bytes, tree_path};

/// Print a file of an image
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone cat debian:12 /etc/os-release\n  layerstone cat debian:12 /usr/bin/env > env"
)]
pub(crate) struct CatArguments {
    /// Image, by UUID, tag or name
    image: ImageRef,
    /// Path in the image
    #[arg(required_unless_present = "path_bytes", value_parser = tree_path())]
    path: Option<TreePath>,
    /// Name the path by its bytes in hexadecimal instead, which JSON has as `path_bytes`
    #[arg(long, value_name = "HEX", value_parser = path_bytes, conflicts_with = "path")]
    path_bytes: Option<TreePath>,
}

pub(super) fn run(context: &Context, arguments: &CatArguments) -> Outcome {
    let path = arguments.path_bytes.as_ref().or(arguments.path.as_ref());
    let path = path.ok_or_else(|| usage("PATH", "a path is expected"))?;
    let mut content = context.project_to_read()?.find(&arguments.image)?.read_file(path)?;
    write_stream(|mut stdout| {
        copy(&mut content, &mut stdout)?;
        Ok(stdout.flush()?)
    })
}

/// Copies a stream of the library; what fails in reading is the store's failure, not the output's.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Outcome {
    let mut buf = vec![0; 256 << 10];
    loop {
        let read = match from.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) => return Err(Failure::Store(Error::from_stream(error))),
        };
        to.write_all(buf.get(..read).unwrap_or_default())?;
    }
}
