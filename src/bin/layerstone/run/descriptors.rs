//! What of this process's open files a command gets.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{FdFlags, fcntl_setfd};

/// Closes all descriptors but the first three in programs that are started from now on, also those that this process
/// inherited and does not know: bubblewrap hands on what it gets.
pub(super) fn close_in_programs() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if number > 2 {
            // The one of the listing itself is closed by then.
            let _ = close_in_programs_one(number);
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "a descriptor that was inherited has only a number")]
fn close_in_programs_one(number: i32) -> rustix::io::Result<()> {
    // SAFETY: the borrow ends with this call, and setting a flag is an error for a number that is no descriptor any more.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_setfd(descriptor, FdFlags::CLOEXEC)
}
