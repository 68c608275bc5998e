//! What the commands that read a tar have in common.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use layerstone::task::Interruptible;
use layerstone::{Error, TarOptions};
use rustix::fs::OFlags;

use super::usage;
use crate::output::shown;
use crate::{Failure, interrupt};

/// Returns what is expected of the tar at `source`, and what errors call it.
pub(super) fn tar_options(source: &Path, require_end: bool, accept_saved_image: bool) -> TarOptions {
    let name = if is_stdin(source) { "standard input".to_owned() } else { shown(source) };
    TarOptions { name, require_end, accept_saved_image }
}

/// Opens what a command reads: a file, a pipe, or standard input for `-`. A signal ends a read that waits, and a pipe without a writer is waited
/// for by the first read, for as long as a timeout lets it.
pub(super) fn open_input(source: &Path, timeout: Option<Duration>) -> Result<Interruptible<File>, Failure> {
    let opened = if is_stdin(source) {
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(source)
    };
    let failed = |error| Error::host(source, "open it", error);
    let opened = opened.map_err(failed)?;
    if opened.metadata().map_err(failed)?.is_dir() {
        let name = source.display();
        return Err(usage("SOURCE", &format!("{name} is a directory, where a file or a pipe is expected")));
    }
    let stream = interrupt::task().stream(opened).map_err(failed)?;
    Ok(match timeout {
        Some(timeout) => stream.with_timeout(timeout),
        None => stream,
    })
}

/// Opens a tar. A terminal has none: it would be waited for without an end.
pub(super) fn open_tar(source: &Path, timeout: Option<Duration>) -> Result<Interruptible<File>, Failure> {
    let is_terminal = if is_stdin(source) {
        io::stdin().is_terminal()
    } else {
        // A pipe is opened once, and a terminal is no pipe.
        let is_device = source.metadata().is_ok_and(|found| found.file_type().is_char_device());
        is_device && File::open(source).is_ok_and(|file| file.is_terminal())
    };
    if is_terminal {
        return Err(usage(
            "tar",
            "a terminal has none; name a file, or pass one to standard input (- < FILE)",
        ));
    }
    open_input(source, timeout)
}

fn is_stdin(source: &Path) -> bool {
    source.as_os_str() == "-"
}
