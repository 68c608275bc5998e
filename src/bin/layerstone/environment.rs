//! What the environment says where the command line does not.

use std::ffi::OsString;
use std::path::PathBuf;

use layerstone::{Error, ProjectName};
use rustix::fs::Mode;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::Failure;
use crate::values::bytes;

const CACHE_BYTES: &str = "LAYERSTONE_CACHE_BYTES";
const LOG: &str = "LAYERSTONE_LOG";

/// A variable; one that is empty counts as unset.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The store's directory that a variable names.
pub(crate) fn named_store() -> Option<PathBuf> {
    variable("LAYERSTONE_STORE").map(PathBuf::from)
}

/// The store's directory where nothing names it.
pub(crate) fn default_store() -> Result<PathBuf, Failure> {
    let data = variable("XDG_DATA_HOME").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let data = data.or_else(home).ok_or_else(|| {
        Error::usage("--store", "name the store's directory: there is no home directory to keep it in")
    })?;
    Ok(data.join("layerstone"))
}

/// The project where no option names it.
pub(crate) fn project_name() -> Result<Option<ProjectName>, Failure> {
    let Some(text) = variable("LAYERSTONE_PROJECT") else { return Ok(None) };
    let text = text.to_string_lossy();
    let name = text.parse::<ProjectName>();
    Ok(Some(name.map_err(|error| Error::usage("LAYERSTONE_PROJECT", error.to_string()))?))
}

/// How many bytes are kept that are prepared for workspaces and that none uses.
pub(crate) fn cache_bytes() -> Result<Option<u64>, Failure> {
    let Some(text) = variable(CACHE_BYTES) else { return Ok(None) };
    let parsed = bytes(&text.to_string_lossy());
    Ok(Some(parsed.map_err(|message| Error::usage(CACHE_BYTES, message))?))
}

/// Prints what the store does on standard error, down to the level that `LAYERSTONE_LOG` names.
pub(crate) fn begin_log() -> Result<(), Failure> {
    let Some(text) = variable(LOG) else { return Ok(()) };
    let level = text
        .to_string_lossy()
        .parse::<LevelFilter>()
        .map_err(|_| Error::usage(LOG, "expected off, error, warn, info, debug or trace".to_owned()))?;
    let log = tracing_subscriber::fmt().with_max_level(level).with_span_events(FmtSpan::CLOSE);
    log.with_ansi(false).with_target(false).with_writer(std::io::stderr).init();
    Ok(())
}

/// Leaves the owner of what this program makes what he needs of it, whatever the umask says: nothing would work otherwise.
pub(crate) fn spare_owner() {
    let umask = rustix::process::umask(Mode::empty());
    rustix::process::umask(umask.difference(Mode::RWXU));
}
