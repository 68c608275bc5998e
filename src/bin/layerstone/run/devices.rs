//! Device nodes of a sandbox's own: a mode or an owner that root in it sets is not that of the host's.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// Names and numbers of the devices that every command finds.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Makes the nodes in a new folder, and returns each one's name and path. None where this process may make no nodes, or none
/// there can be opened: the host's do then.
pub(super) fn make(folder: &Path) -> io::Result<Option<Vec<(&'static str, PathBuf)>>> {
    DirBuilder::new().mode(0o700).create(folder)?;
    let mut made = Vec::new();
    for (name, major, minor) in DEVICES {
        let path = folder.join(name);
        let mode = Mode::from_raw_mode(0o666);
        if mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor)).is_err() {
            return Ok(None);
        }
        // Whatever the umask.
        std::fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        made.push((name, path));
    }
    // A file system may be mounted without devices.
    let opens = made.first().is_some_and(|(_, null)| File::open(null).is_ok());
    Ok(opens.then_some(made))
}
