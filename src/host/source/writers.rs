//! Whether somebody may have a file open for writing.
//!
//! A write through a shared mapping changes a file's times only where it meets a clean page. Until the kernel has written the
//! page back, further writes to it leave no trace, so neither size nor times say whether the file is as it was read.
//! A mapping that is made later meets every page as a new one, and its first write to each is seen.
//!
//! It is written back within a minute as the kernel is set, so a file that has not changed for an hour is not asked. Only a
//! tmpfs has nowhere to write to: there a mapping that an older program has is not found out. Files shorter than a page are
//! not asked either: programs map data of some size, and most files are short, which makes the question dear.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::host::overlay;
use crate::tree::Timestamp;

/// Longer than the kernel leaves a page that was written to.
const WRITTEN_BACK_SECONDS: i64 = 3600;

/// Bytes of the smallest file that is taken to be mapped.
const MAPPED_BYTES: u64 = 4096;

/// Returns whether a file of this size and change time may have mapped pages that are not written back yet.
pub(super) fn may_be_dirty(size: u64, ctime: Timestamp, now: Timestamp) -> bool {
    // A time of the future is from before the clock was put right, or of another machine's clock.
    size >= MAPPED_BYTES && ctime.seconds >= now.seconds.saturating_sub(WRITTEN_BACK_SECONDS)
}

/// The command that names the signal for the holder of a lease; libc has it for some systems only.
const F_SETSIG: libc::c_int = 10;

/// Returns whether any process may have the file open for writing, or mapped so. The file must be open for reading only.
/// Where the question can't be asked the answer is `true`: files of other owners without `CAP_LEASE`, file systems without
/// leases, and overlays, whose mappings are those of a file of the layer below, of which their own files know nothing.
pub(super) fn may_have_writer(file: BorrowedFd<'_>) -> bool {
    overlay::has(file, false).unwrap_or(true) || !takes_lease(file)
}

/// Returns whether the kernel gives a read lease, as it does only while no process has the file open for writing. It is given
/// back at once; a writer that opens the file between the two calls waits for the second.
#[expect(unsafe_code, reason = "no safe wrapper of fcntl has leases")]
fn takes_lease(file: BorrowedFd<'_>) -> bool {
    let descriptor = file.as_raw_fd();
    // SAFETY: the descriptor is open for as long as it is borrowed, and these commands take a number and touch no memory of
    // this process. The signal for a writer that comes between the calls is one that is ignored unless asked for; the
    // default, SIGIO, would end this process.
    unsafe {
        if libc::fcntl(descriptor, F_SETSIG, libc::SIGURG) != 0 {
            return false;
        }
        if libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_RDLCK) != 0 {
            return false;
        }
        libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_UNLCK);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn only_what_changed_within_the_hour_may_be_dirty() {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        for (ctime, is_dirty) in [(0, false), (6399, false), (6400, true), (10_000, true), (20_000, true)] {
            assert_eq!(may_be_dirty(4096, at(ctime), at(10_000)), is_dirty, "{ctime}");
            assert!(!may_be_dirty(4095, at(ctime), at(10_000)));
        }
        assert!(may_be_dirty(4096, at(i64::MIN), at(i64::MIN)));
    }

    #[test]
    fn writers_are_seen_through_descriptors_and_mappings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [0; 4096]).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(!may_have_writer(reader.as_fd()), "nobody writes");
        assert!(!may_have_writer(reader.as_fd()), "and the question leaves nothing");
        let writer = File::options().read(true).write(true).open(&path).unwrap();
        assert!(may_have_writer(reader.as_fd()));
        #[expect(unsafe_code, reason = "only this test has the file")]
        // SAFETY: nobody else changes or shortens the file.
        let map = unsafe { memmap2::MmapMut::map_mut(&writer).unwrap() };
        drop(writer);
        assert!(may_have_writer(reader.as_fd()), "the mapping is one");
        drop(map);
        assert!(!may_have_writer(reader.as_fd()));
    }
}
