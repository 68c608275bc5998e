//! Signals while a command runs: they are the command's.

use std::io::{self, IsTerminal as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGQUIT};

use crate::interrupt::{self, Passing};

use super::{Ended, OWN_FAILURE};

/// For how long a signal is waited for that a terminal sent to the command, which it ended, and to this process.
const LONGEST_DELIVERY: Duration = Duration::from_millis(20);

/// The signals, which end the command that is about to be started.
pub(super) struct Signals {
    received: Arc<Received>,
    passing: Passing,
}

#[derive(Default)]
struct Received {
    /// The last one; 0 if none came.
    signal: AtomicI32,
    process: OnceLock<Pid>,
}

impl Received {
    fn signal(&self) -> Option<i32> {
        Some(self.signal.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }

    /// Ends the command, and the wait for a reader of what it printed.
    fn kill(&self) {
        interrupt::task().cancel();
        if let Some(process) = self.process.get() {
            let _ = kill_process(*process, Signal::KILL);
        }
    }
}

impl Signals {
    pub(super) fn take() -> io::Result<Self> {
        let received = Arc::new(Received::default());
        // A terminal sends these to the command, too: it is the command's to end, until it is asked again.
        let is_terminal = io::stdin().is_terminal();
        let taker = Arc::clone(&received);
        let passing = interrupt::pass_to(move |signal| {
            let is_first = taker.signal.swap(signal, Ordering::SeqCst) == 0;
            if !(is_first && is_terminal && matches!(signal, SIGINT | SIGQUIT)) {
                taker.kill();
            }
        })?;
        Ok(Self { received, passing })
    }

    /// Waits for the command, which is killed with all that it started when this process is asked to end.
    pub(super) fn wait(self, mut child: Child) -> io::Result<Ended> {
        let Self { received, passing } = self;
        if let Some(process) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = received.process.set(process);
        }
        // What came before there was a process to end.
        if received.signal().is_some() {
            received.kill();
        }
        let status = child.wait()?;
        let code = exit_code(status);
        if code > 128 && received.signal().is_none() {
            std::thread::sleep(LONGEST_DELIVERY);
        }
        drop(passing);
        // The runtime reports a command that was killed; a runtime that was killed itself was stopped. A command that handled
        // a signal and went on was not.
        let stopped = received.signal();
        Ok(match status.signal().or(stopped.filter(|_| code > 128)) {
            Some(signal) => Ended::Stopped(stopped.unwrap_or(signal)),
            None => Ended::Exited(code),
        })
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
    u8::try_from(code).unwrap_or(OWN_FAILURE)
}
