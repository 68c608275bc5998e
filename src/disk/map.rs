//! Mapping sealed files into memory.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::MappedBytes;

/// Maps all of `file` for reading.
#[expect(unsafe_code, reason = "there is no safe way to map a file")]
pub(super) fn map(file: &File) -> io::Result<MappedBytes> {
    // SAFETY: the map aliases the file's pages, so the bytes must not change under it and the file must not get
    // shorter. Only segments are mapped: they are written under another name, synced, renamed into place and
    // never written again by this crate. Another program that truncates one makes a read fault (SIGBUS); that
    // the store's directory belongs to the store alone is stated in DESIGN.md under "assumptions".
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Arc::new(map))
}
