//! What the commands that read a tar have in common.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use layerstone::{Error, TarOptions};

use crate::Failure;

/// Returns what is expected of the tar at `source`, and what errors call it.
pub(super) fn tar_options(source: &Path, require_end: bool, accept_saved_image: bool) -> TarOptions {
    let name = if is_stdin(source) { "standard input".to_owned() } else { source.display().to_string() };
    TarOptions { name, require_end, accept_saved_image }
}

/// Opens a tar: a file, a pipe, or standard input for `-`.
pub(super) fn open_tar(source: &Path) -> Result<Box<dyn Read>, Failure> {
    if is_stdin(source) {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(source).map_err(|error| Error::host(source, "open it", error))?;
    Ok(Box::new(file))
}

fn is_stdin(source: &Path) -> bool {
    source.as_os_str() == "-"
}
