//! The `layerstone` program: every library call as a command.
//!
//! Results go to stdout, everything else to stderr. A failure is one or two plain lines and an exit code that says its
//! kind (see `exit_code`).

mod arguments;
mod commands;
mod environment;
mod hints;
mod interrupt;
mod left;
mod output;
mod progress;
mod refusal;
mod replacement;
mod run;
mod values;

use std::error::Error as StdError;
use std::io;
use std::process::ExitCode;

use layerstone::{Error, ErrorKind, Subject};
use rustix::fs::{Access, access};

use output::Output;

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// The library said so.
    Store(Error),
    /// The library said so of several things, of which others may have been done.
    Several(Vec<Error>),
    /// Standard output could not be written to.
    Output(io::Error),
    /// The same when something was done already, which is said then.
    Unreported { error: io::Error, done: String },
    /// A stream of bytes was cancelled of which a part is written.
    CutShort,
    /// A command that was run ended with this exit code.
    Ended(u8),
    /// A command was not run, or what it did was not committed; the exit code to end with.
    Run { kind: ErrorKind, message: String, code: u8 },
}

impl Failure {
    /// Whether a reader of our output went away. Nothing else that the program writes to is a pipe.
    fn is_broken_pipe(&self) -> bool {
        let mut cause: Option<&dyn StdError> = match self {
            Self::Output(error) | Self::Unreported { error, .. } => Some(error),
            Self::Store(error) => Some(error),
            Self::Several(_) | Self::CutShort | Self::Ended(_) | Self::Run { .. } => None,
        };
        while let Some(error) = cause {
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
            {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // A stream of the library says itself why it failed.
        error.downcast().map_or_else(Self::Output, Self::Store)
    }
}

fn main() -> ExitCode {
    leave_out_contained_panics();
    environment::spare_owner();
    interrupt::survive_file_limit();
    let arguments = match refusal::parse() {
        Ok(arguments) => arguments,
        Err(code) => return ExitCode::from(code),
    };
    let json = arguments.global.json;
    if let Err(error) = interrupt::watch(json) {
        Output::complain(ErrorKind::Io, &format!("signals: could not wait for them: {error}"), json);
        return ExitCode::from(exit_code(ErrorKind::Io));
    }
    progress::begin(arguments.global.progress, json || arguments.command.is_quiet());
    // Whoever runs a command wants to know whether a failure is the command's.
    let runs = matches!(arguments.command, arguments::Command::Run(_));
    let own_code = |kind| ExitCode::from(if runs { run::OWN_FAILURE } else { exit_code(kind) });
    output::explain_to_users_of(&arguments.command);
    let advice = advice(&arguments.command);
    let fail = |errors: &[Error]| {
        Output::explain(errors, json);
        if let Some(advice) = errors.iter().find_map(advice).filter(|_| !json) {
            Output::note(advice);
        }
        errors.first().map_or(ExitCode::SUCCESS, |error| own_code(error.kind()))
    };
    let outcome = environment::begin_log().and_then(|()| commands::run(arguments));
    progress::clear();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // `layerstone export … | head` is no failure.
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => {
            Output::complain(ErrorKind::Io, &format!("standard output: could not write: {error}"), json);
            own_code(ErrorKind::Io)
        }
        Err(Failure::Unreported { done, .. }) if interrupt::signal().is_some() => stopped(&done, json),
        Err(Failure::Unreported { error, done }) => {
            let message = format!("standard output: could not write: {error}; {done}");
            Output::complain(ErrorKind::Io, &message, json);
            own_code(ErrorKind::Io)
        }
        Err(Failure::Store(error)) if error.kind() == ErrorKind::Cancelled => stopped(error.message(), json),
        Err(Failure::CutShort) => stopped("cancelled; what was written is not complete", json),
        Err(Failure::Ended(code)) => ExitCode::from(code),
        Err(Failure::Run { kind, message, code }) => {
            Output::complain(kind, &message, json);
            ExitCode::from(code)
        }
        Err(Failure::Store(error)) => fail(&[error]),
        Err(Failure::Several(errors)) if errors.iter().any(|error| error.kind() == ErrorKind::Cancelled) => {
            stopped("cancelled; what was done before stays done", json)
        }
        Err(Failure::Several(errors)) => fail(&errors),
    }
}

/// Says that a signal ended the command, and gives the exit code for that.
fn stopped(message: &str, json: bool) -> ExitCode {
    let Some(signal) = interrupt::signal() else {
        Output::complain(ErrorKind::Cancelled, message, json);
        return ExitCode::FAILURE;
    };
    Output::complain(ErrorKind::Cancelled, &format!("{}: {message}", interrupt::name(signal)), json);
    ExitCode::from(interrupt::exit_code(signal))
}

/// Keeps a panic that the library makes an error of from being printed, too.
fn leave_out_contained_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !layerstone::is_panic_contained() {
            default(panic);
        }
    }));
}

/// What to do about a failure of this command where the library can't say it in the program's words.
fn advice(command: &arguments::Command) -> impl Fn(&Error) -> Option<&'static str> + use<> {
    use arguments::Command::{Repair, Run, Verify, Workspace};
    let makes_workspace = matches!(command, Run(_) | Workspace(_));
    let mends = matches!(command, Verify { .. } | Repair { .. });
    move |error| match error.kind() {
        // What is damaged outside of the store, a repair does not mend.
        ErrorKind::Corrupt if !mends && !matches!(error.subject(), Subject::Host(_)) => {
            Some("'layerstone verify' says what is damaged, and 'layerstone repair' keeps what is sound.")
        }
        ErrorKind::Io if makes_workspace && is_read_only(error) => Some(
            "Workspaces lie in the store, which can't be written; 'layerstone checkout' writes an image to any place.",
        ),
        _ => None,
    }
}

/// Whether this process may not write to the store.
fn is_read_only(error: &Error) -> bool {
    let mut cause: Option<&dyn StdError> = error.source();
    while let Some(found) = cause {
        match found.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ReadOnlyFilesystem) => return true,
            Some(io::ErrorKind::PermissionDenied) => return !may_write_workspaces(error.subject()),
            _ => cause = found.source(),
        }
    }
    false
}

/// Whether a failure is about something in a folder of workspaces that this process may write to, as the files of an image are.
fn may_write_workspaces(subject: &Subject) -> bool {
    let Subject::Host(path) = subject else { return false };
    let mut folders = path.ancestors().skip(1).filter(|folder| folder.ends_with("workspaces"));
    folders.any(|folder| {
        folder.with_file_name("catalog.redb").exists()
            && access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
    })
}

/// The exit code of a kind of failure: part of the program's interface, listed in docs/operations.md.
fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::Conflict | ErrorKind::AlreadyExists | ErrorKind::InUse => 4,
        ErrorKind::Locked => 5,
        ErrorKind::Corrupt | ErrorKind::Poisoned => 6,
        ErrorKind::Unsupported => 7,
        ErrorKind::QuotaExceeded | ErrorKind::TimedOut => 8,
        _ => 1,
    }
}
