//! Whether somebody has a file open for writing.
//!
//! A write through a shared mapping changes a file's times only where it meets a clean page. Until the kernel has written the
//! page back, further writes to it leave no trace, so neither size nor times say whether the file is as it was read.
//! A mapping that is made later meets every page as a new one, and its first write to each is seen.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The command that names the signal for the holder of a lease; libc has it for some systems only.
const F_SETSIG: libc::c_int = 10;

/// Returns whether any process has the file open for writing, or mapped so. The file must be open for reading only. Files of
/// other owners can't be asked without `CAP_LEASE`, nor those of some file systems: of these it returns `false`.
///
/// The kernel gives a read lease only where nobody writes. It is given back at once; a writer that opens the file between the
/// two calls waits for the second.
#[expect(unsafe_code, reason = "no safe wrapper of fcntl has leases")]
pub(super) fn has_writer(file: BorrowedFd<'_>) -> bool {
    let descriptor = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as it is borrowed, and these commands take a number and touch no memory of
    // this process. The signal for a writer that comes between the calls is one that is ignored unless asked for; the
    // default, SIGIO, would end this process.
    unsafe {
        if libc::fcntl(descriptor, F_SETSIG, libc::SIGURG) != 0 {
            return false;
        }
        if libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_RDLCK) != 0 {
            return std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock;
        }
        libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_UNLCK);
    }
    false
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn writers_are_seen_through_descriptors_and_mappings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [0; 4096]).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(!has_writer(reader.as_fd()), "nobody writes");
        assert!(!has_writer(reader.as_fd()), "and the question leaves nothing");
        let writer = File::options().read(true).write(true).open(&path).unwrap();
        assert!(has_writer(reader.as_fd()));
        #[expect(unsafe_code, reason = "only this test has the file")]
        // SAFETY: nobody else changes or shortens the file.
        let map = unsafe { memmap2::MmapMut::map_mut(&writer).unwrap() };
        drop(writer);
        assert!(has_writer(reader.as_fd()), "the mapping is one");
        drop(map);
        assert!(!has_writer(reader.as_fd()));
    }
}
