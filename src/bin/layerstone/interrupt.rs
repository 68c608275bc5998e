//! Signals that ask the program to end: it cancels what it does, which cleans up, and ends with 128 and the signal's number.
//!
//! A further signal, some time after the first, ends the program at once; what it leaves then is cleared away by the next
//! command that needs the place.
//! While `run` runs a command the signals are the command's. A signal that was ignored when the program began stays ignored,
//! as `nohup` and shells mean it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use layerstone::{ErrorKind, Task};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};

use crate::left::{self, Stream};

/// What this program does: it runs one command.
static TASK: LazyLock<Task> = LazyLock::new(Task::new);
/// The signal that cancelled it; 0 if none did.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// Whether all that was asked for is done.
static IS_DONE: AtomicBool = AtomicBool::new(false);
/// What takes signals instead, while a command is run.
static TAKER: Mutex<Option<Taker>> = Mutex::new(None);
static HANDLE: OnceLock<Handle> = OnceLock::new();

type Taker = Box<dyn Fn(i32) + Send>;

/// `timeout` and a terminal that is closed send one signal twice, to the process and to its group; and who presses Ctrl-C
/// twice does not mean to leave half a checkout.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Returns the task of this program.
pub(crate) fn task() -> &'static Task {
    &TASK
}

/// Returns the signal that cancelled the task, if one did.
pub(crate) fn signal() -> Option<i32> {
    Some(SIGNAL.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
}

/// Returns the exit code of a program that a signal ended.
pub(crate) fn exit_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// Returns the name of a signal.
pub(crate) fn name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
}

/// Lets a write that passes `ulimit -f` fail, where it would end the program. What is started from here has the signal as it was:
/// a handler goes where an ignored signal stays.
pub(crate) fn survive_file_limit() {
    if !is_ignored(SIGXFSZ) {
        // Without it the signal ends the program, as ever.
        let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    }
}

/// Starts to wait for signals, of which the last is said as JSON or as text.
pub(crate) fn watch(json: bool) -> io::Result<()> {
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = Signals::new(wanted)?;
    let _ = HANDLE.set(signals.handle());
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            if let Some(taker) = &*TAKER.lock().unwrap_or_else(PoisonError::into_inner) {
                taker(signal);
            } else if IS_DONE.load(Ordering::SeqCst) {
                signal_hook::low_level::exit(0);
            } else if let Some(first) = first {
                if first.elapsed() > SAME_WISH {
                    say_end(signal, json);
                    signal_hook::low_level::exit(128 + signal);
                }
            } else {
                first = Some(Instant::now());
                SIGNAL.store(signal, Ordering::SeqCst);
                TASK.cancel();
            }
        }
    })?;
    Ok(())
}

/// Says that a signal ends the program at once, where that needs no wait: neither for a reader nor for a thread that prints.
fn say_end(signal: i32, json: bool) {
    let message = "ended at once; what it leaves is removed by the next command that needs the place";
    let message = format!("{}: {message}", name(signal));
    let line = if json {
        format!("{}\n", serde_json::json!({ "error": ErrorKind::Cancelled.as_str(), "message": message }))
    } else {
        format!("layerstone: {message}\n")
    };
    let stderr = io::stderr();
    let line = left::needed(Stream::Stderr) + &line;
    let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
        let _ = rustix::io::write(&stderr, line.as_bytes());
    }
}

/// Says that all that was asked for is done: what the store still does in the background may end at any moment.
pub(crate) fn done() {
    IS_DONE.store(true, Ordering::SeqCst);
}

/// Returns whether the program was started with the signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}

/// Gives signals to somebody else for as long as it lives.
pub(crate) struct Passing(());

/// Gives signals to `taker` instead, SIGQUIT included.
pub(crate) fn pass_to(taker: impl Fn(i32) + Send + 'static) -> io::Result<Passing> {
    *TAKER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(taker));
    let passing = Passing(());
    if let Some(handle) = HANDLE.get().filter(|_| !is_ignored(SIGQUIT)) {
        handle.add_signal(SIGQUIT)?;
    }
    Ok(passing)
}

impl Drop for Passing {
    fn drop(&mut self) {
        *TAKER.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
