//! What a command finds in `/proc`, `/dev` and `/sys`, which are not the image's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::inside::Below;

/// What is in `/dev` that is no directory and no link.
const NODES: [&[u8]; 8] = [b"null", b"zero", b"full", b"random", b"urandom", b"tty", b"ptmx", b"console"];
const DIRECTORIES: [&[u8]; 2] = [b"pts", b"shm"];
/// Links to what a process has open.
const LINKS: [&[u8]; 5] = [b"fd", b"stdin", b"stdout", b"stderr", b"core"];

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Directory,
    /// Nothing that can be executed.
    Other,
    /// What only the kernel knows: a process's, or a file of the host's that is no more than named there.
    Unknown,
}

impl Below {
    pub(super) fn found(&self) -> Found {
        let names: Vec<&[u8]> = self.names.iter().map(Vec::as_slice).collect();
        match (self.mount, names.as_slice()) {
            (_, []) => Found::Directory,
            (_, names) if names.contains(&&b".."[..]) => Found::Unknown,
            (b"dev", [first, ..]) if LINKS.contains(first) => Found::Unknown,
            (b"dev", [first]) if DIRECTORIES.contains(first) => Found::Directory,
            (b"dev", [first]) if NODES.contains(first) => Found::Other,
            (b"dev", _) => Found::Nothing,
            (b"proc", [first, ..]) if is_of_processes(first) => Found::Unknown,
            (mount, names) => on_host(mount, names),
        }
    }
}

/// Whether a name in `/proc` is that of a process, or of a link to one.
fn is_of_processes(name: &[u8]) -> bool {
    const LINKS: [&[u8]; 4] = [b"self", b"thread-self", b"mounts", b"net"];
    LINKS.contains(&name) || name.iter().all(u8::is_ascii_digit)
}

/// What the host has there: the same kernel says it.
fn on_host(mount: &[u8], names: &[&[u8]]) -> Found {
    let mut path = Path::new("/").join(OsStr::from_bytes(mount));
    path.extend(names.iter().map(|name| OsStr::from_bytes(name)));
    match path.metadata() {
        Ok(found) if found.is_dir() => Found::Directory,
        Ok(_) => Found::Other,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Found::Unknown,
        Err(_) => Found::Nothing,
    }
}
