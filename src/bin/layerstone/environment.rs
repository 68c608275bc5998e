//! What the environment says where the command line does not.

use std::ffi::OsString;
use std::path::PathBuf;

use layerstone::{Error, ProjectName};

use crate::Failure;

/// A variable; one that is empty counts as unset.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The store's directory where no option names it.
pub(crate) fn store_directory() -> Result<PathBuf, Failure> {
    if let Some(store) = variable("LAYERSTONE_STORE") {
        return Ok(store.into());
    }
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
    let name = text
        .parse()
        .map_err(|error| Error::usage("LAYERSTONE_PROJECT", format!("'{}' {error}", text.escape_debug())))?;
    Ok(Some(name))
}
