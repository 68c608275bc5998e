//! Where a command that was run left standard output and standard error: what this program prints next is a line of its own.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use rustix::fs::fstat;
use rustix::io::{Errno, fcntl_getfd};
use rustix::termios::tcgetwinsize;

/// One of the two streams, by the bit of what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stream {
    Stdout = 1,
    Stderr = 2,
}

/// The streams that may be inside of a line.
static OPEN: AtomicU8 = AtomicU8::new(0);
/// Those of them that a command wrote to itself, so that this is not known.
static UNKNOWN: AtomicU8 = AtomicU8::new(0);

/// Whether both streams lead to the same file, so that a line that ends on one ends on the other.
pub(crate) fn are_same() -> io::Result<bool> {
    let (stdout, stderr) = (fstat(io::stdout())?, fstat(io::stderr())?);
    Ok((stdout.st_dev, stdout.st_ino) == (stderr.st_dev, stderr.st_ino))
}

/// Whether standard output was closed when this program was started.
static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Called before `main`: that is when Rust opens `/dev/null` in place of what is closed, and nothing is known any more.
#[expect(unsafe_code, reason = "only what is called before main can see a closed stream")]
#[used]
// SAFETY: the section holds pointers to functions of this type, which the loader calls once, in the one thread that there is.
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = look_at_stdout;

extern "C" fn look_at_stdout() {
    #[expect(unsafe_code, reason = "a descriptor that may be closed has only a number")]
    // SAFETY: the borrow ends with this call, which says of a number that is no descriptor that it is none.
    let stdout = unsafe { BorrowedFd::borrow_raw(1) };
    WAS_CLOSED.store(fcntl_getfd(stdout) == Err(Errno::BADF), Ordering::Relaxed);
}

/// Fails if standard output was closed when this program was started.
pub(crate) fn check_stdout() -> io::Result<()> {
    if WAS_CLOSED.load(Ordering::Relaxed) { Err(Errno::BADF.into()) } else { Ok(()) }
}

/// Notes how a command left a stream: at the end of a line, inside of one, or, for none, as only the stream itself knows.
pub(crate) fn note(stream: Stream, ends_line: Option<bool>) {
    let bit = stream as u8;
    if ends_line == Some(true) {
        return;
    }
    OPEN.fetch_or(bit, Ordering::SeqCst);
    if ends_line.is_none() {
        UNKNOWN.fetch_or(bit, Ordering::SeqCst);
    }
}

/// Ends the line that a command left, before something is printed.
pub(crate) fn begin_line(stream: Stream) {
    let needed = needed(stream);
    let _ = match stream {
        Stream::Stdout => io::stdout().write_all(needed.as_bytes()),
        Stream::Stderr => io::stderr().write_all(needed.as_bytes()),
    };
}

/// Returns what is to be printed first, so that what follows begins a line; it is returned once.
pub(crate) fn needed(stream: Stream) -> String {
    let bits = if are_same().unwrap_or(false) { u8::MAX } else { stream as u8 };
    let was_open = OPEN.fetch_and(!bits, Ordering::SeqCst) & bits != 0;
    let is_unknown = UNKNOWN.fetch_and(!bits, Ordering::SeqCst) & bits != 0;
    if !was_open {
        return String::new();
    }
    if !is_unknown {
        return "\n".to_owned();
    }
    let width = match stream {
        Stream::Stdout => width(&io::stdout()),
        Stream::Stderr => width(&io::stderr()),
    };
    // As many spaces as a line has lead to the next line from everywhere but the begin of one.
    width.map_or(String::new(), |width| format!("{}\r\x1b[K", " ".repeat(width.into())))
}

/// The width of a terminal that is known to go on in the next line only with the byte that needs it.
fn width(stream: &impl AsFd) -> Option<u16> {
    let is_plain = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if is_plain || !stream.as_fd().is_terminal() {
        return None;
    }
    tcgetwinsize(stream).ok().map(|size| size.ws_col).filter(|width| *width > 0)
}
