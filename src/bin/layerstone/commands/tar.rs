//! What the commands that read a tar have in common.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use layerstone::task::Interruptible;
use layerstone::{Error, TarOptions};
use rustix::fs::OFlags;

use crate::{Failure, interrupt};

/// Returns what is expected of the tar at `source`, and what errors call it.
pub(super) fn tar_options(source: &Path, require_end: bool, accept_saved_image: bool) -> TarOptions {
    let name = if is_stdin(source) { "standard input".to_owned() } else { source.display().to_string() };
    TarOptions { name, require_end, accept_saved_image }
}

/// Opens what a command reads: a file, a pipe, or standard input for `-`. A signal ends a read that waits, and a pipe without a writer is waited
/// for by the first read.
pub(super) fn open_input(source: &Path) -> Result<Interruptible<File>, Failure> {
    let opened = if is_stdin(source) {
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(source)
    };
    let stream = opened.and_then(|file| interrupt::task().stream(file));
    Ok(stream.map_err(|error| Error::host(source, "open it", error))?)
}

fn is_stdin(source: &Path) -> bool {
    source.as_os_str() == "-"
}
