//! Runs a command in a workspace.
//!
//! The command sees the workspace as its root directory, has process, IPC, host name and mount namespaces of its own, Docker's
//! capabilities, and the host's network. The store is not locked meanwhile: the workspace's row protects what is used.

mod below;
mod descriptors;
mod devices;
mod elf;
mod inside;
mod mount_points;
mod program;
mod relay;
mod sandbox;
mod seccomp;
mod signals;

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, PipeReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use layerstone::path::escape_bytes;
use layerstone::{Error, ErrorKind, Image, Workspace};

use crate::left::{self, Stream};
use crate::output::stream_of;
use crate::{Failure, interrupt, progress};

use mount_points::{MountPoints, PointKind, copy};
use program::{Finder, Lacking};
use relay::{GenerationGuard, Relayed, relay};
use sandbox::Sandbox;
pub(crate) use sandbox::{Found, Runtime};
use signals::Signals;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How programs find the way out of the host's network; with the network they are the command's too.
const PROXIES: [&str; 10] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// How it ends when it is not the command's own doing, as with Docker.
pub(crate) const OWN_FAILURE: u8 = 125;
/// Linux has no longer ones.
const LONGEST_HOSTNAME: usize = 64;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// What became of the command.
pub(crate) enum Ended {
    /// Its exit code; of one that was killed 128 and the signal's number.
    Exited(u8),
    /// What runs it failed before it was started: which and why.
    NotStarted(String),
    /// This process was asked to end it.
    Stopped(i32),
}

/// Where goes what the command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Printed {
    /// Where this process prints.
    AsItIs,
    /// To standard error alone.
    ToStderr,
}

/// What is to be run.
pub(crate) struct Job<'a> {
    /// The command and its arguments.
    pub(crate) command: &'a [OsString],
    /// What it finds in its environment beside what every command does.
    pub(crate) environment: Vec<(String, OsString)>,
    /// The directory in the image to start in.
    pub(crate) directory: &'a Path,
    pub(crate) printed: Printed,
}

impl Job<'_> {
    /// Says before a workspace is made whether the image has what is to be run, with the code that a shell would end with.
    pub(crate) fn check(&self, image: &Image) -> Result<(), Failure> {
        let path = self.environment.iter().rev().find(|(name, _)| name == "PATH");
        let path = path.map_or(PATH.into(), |(_, path)| path.to_string_lossy());
        let program = self.command.first().map_or(OsStr::new(""), OsString::as_os_str);
        let found = match Finder::new(image, self.directory)? {
            Ok(finder) => finder.find(program, &path)?,
            Err(lacking) => Err(lacking),
        };
        let Err(lacking) = found else { return Ok(()) };
        let what = if lacking == Lacking::Directory { self.directory.as_os_str() } else { program };
        let (why, kind, code) = explained(lacking);
        let message = format!("'{}' {why}", escape_bytes(what.as_bytes()));
        Err(Failure::Run { kind, message, code })
    }
}

/// Says of what can't be run why, with the kind of the failure and the code to end with.
fn explained(lacking: Lacking) -> (String, ErrorKind, u8) {
    let (why, kind, code) = match lacking {
        Lacking::Directory => ("is no directory in the image", ErrorKind::NotFound, OWN_FAILURE),
        Lacking::Program => ("is not in the image", ErrorKind::NotFound, NOT_FOUND),
        Lacking::Interpreter(name) => {
            let help = if name.ends_with(b"\r") { "; end its lines with LF alone, not CR LF" } else { "" };
            let name = escape_bytes(&name);
            let why = format!("names '{name}' in its first line, which is not in the image{help}");
            return (why, ErrorKind::NotFound, NOT_FOUND);
        }
        Lacking::Loader(name) => {
            let why = format!("needs the loader '{}', which is not in the image", escape_bytes(&name));
            return (why, ErrorKind::NotFound, NOT_FOUND);
        }
        Lacking::By(path, lacking) => {
            let (why, kind, code) = explained(*lacking);
            return (format!("is run by '{}', which {why}", escape_bytes(&path)), kind, code);
        }
        Lacking::Permission => ("is no program that can be executed", ErrorKind::Invalid, NOT_EXECUTABLE),
        Lacking::Outside => (
            "leads through /proc, where it may be a program of the host; name one of the image",
            ErrorKind::Invalid,
            NOT_EXECUTABLE,
        ),
        Lacking::Format => (
            "is neither a program for this machine nor a script whose first line names one ('#!/bin/sh')",
            ErrorKind::Invalid,
            NOT_EXECUTABLE,
        ),
    };
    (why.to_owned(), kind, code)
}

/// Runs the command in the workspace. Gives what became of it; what is printed next begins a line.
pub(crate) fn run(workspace: &Workspace, runtime: &Found, job: &Job) -> Result<Ended, Error> {
    let root = workspace.path()?;
    // Beside the files and under a name that the store takes for its own, so that it goes with them whatever happens.
    let scratch = root.with_file_name(".layerstone-run");
    std::fs::create_dir(&scratch).map_err(|error| Error::host(&scratch, "make a directory", error))?;
    let mut points = MountPoints::new(&root)?;
    let ended = start(workspace, runtime, job, (&root, &scratch), &mut points);
    points.remove();
    let _ = std::fs::remove_dir_all(&scratch);
    ended
}

fn start(
    workspace: &Workspace,
    runtime: &Found,
    job: &Job,
    (root, scratch): (&Path, &Path),
    points: &mut MountPoints,
) -> Result<Ended, Error> {
    let name = workspace.name().as_str();
    let hostname = name.get(..LONGEST_HOSTNAME).unwrap_or(name);
    let mut files = Vec::new();
    for (name, more) in [("resolv.conf", String::new()), ("hosts", format!("127.0.1.1\t{hostname}\n"))] {
        let (from, to) = (Path::new("/etc").join(name), scratch.join(name));
        if copy(&from, &to, &more).map_err(|error| Error::host(&from, "copy it", error))? {
            files.push((to, points.add(&format!("/etc/{name}"), PointKind::File)?));
        }
    }
    let sandbox = Sandbox {
        root,
        hostname,
        files,
        proc: points.add("/proc", PointKind::Directory)?,
        dev: points.add("/dev", PointKind::Directory)?,
        sys: points.add("/sys", PointKind::Directory)?,
        directory: job.directory,
        environment: environment(hostname, &job.environment),
        command: job.command,
        scratch,
    };
    descriptors::close_in_programs()
        .map_err(|error| Error::host(Path::new("/proc/self/fd"), "look at it", error))?;
    let mut prepared = runtime.prepare(&sandbox)?;
    let command = &mut prepared.command;
    let program = Path::new(command.get_program()).to_owned();
    let failed = |action: &str, error| Error::host(&program, action, error);
    let pipes = connect(command, runtime, job.printed).map_err(|error| failed("start it", error))?;
    let signals = Signals::take().map_err(|error| failed("wait for signals", error))?;
    // One that came before has cancelled the task.
    interrupt::task().check()?;
    let _pause = progress::pause();
    let child = command.spawn().map_err(|error| failed("start it", error))?;
    // The runtime has them; without them here, what it printed ends when it does.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let relays = pass_on(pipes, runtime.own_lines(scratch))
        .map_err(|error| failed("pass on what it prints", error))?;
    let ended = signals.wait(child).map_err(|error| failed("wait for it", error))?;
    let [stdout, stderr] = relays.map(|relay| relay.and_then(|relay| relay.join().ok()));
    let held = [&stderr, &stdout].map(|relayed| relayed.as_ref().map(|relayed| relayed.held.clone()));
    let said = held.into_iter().flatten().collect::<Vec<_>>().concat();
    if job.printed == Printed::AsItIs {
        left::note(Stream::Stdout, stdout.map(|relayed| relayed.ends_line));
    }
    if !(job.printed == Printed::AsItIs && left::are_same().unwrap_or(false)) {
        left::note(Stream::Stderr, stderr.map(|relayed| relayed.ends_line));
    }
    if matches!(ended, Ended::Exited(_)) && !runtime.has_started(scratch) {
        return Ok(Ended::NotStarted(runtime.failure(&said)));
    }
    // Lines of the command that only looked like the runtime's.
    if !said.is_empty() {
        left::begin_line(Stream::Stderr);
        let _ = io::stderr().write_all(&said);
        left::note(Stream::Stderr, Some(said.ends_with(b"\n")));
    }
    Ok(ended)
}

/// What a command prints that is passed on; the rest it prints itself.
#[derive(Default)]
struct Pipes {
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
    /// Whether the lines of the runtime are held back.
    holds: bool,
}

/// Connects what the command prints to where it goes. What goes to the same file goes through the same pipe, and keeps its
/// order. A terminal is the command's own.
fn connect(command: &mut Command, runtime: &Found, printed: Printed) -> io::Result<Pipes> {
    if printed == Printed::ToStderr {
        let (from, to) = io::pipe()?;
        command.stdout(to.try_clone()?).stderr(to);
        return Ok(Pipes { stderr: Some(from), holds: true, ..Pipes::default() });
    }
    let mut pipes = Pipes { holds: runtime.speaks_first(), ..Pipes::default() };
    let is_same = left::are_same()?;
    if !io::stdout().is_terminal() {
        let (from, to) = io::pipe()?;
        if is_same {
            command.stderr(to.try_clone()?);
        }
        command.stdout(to);
        pipes.stdout = Some(from);
    }
    if !is_same && !io::stderr().is_terminal() {
        let (from, to) = io::pipe()?;
        command.stderr(to);
        pipes.stderr = Some(from);
    }
    Ok(pipes)
}

/// Starts to pass on what a command prints, to standard output and to standard error.
fn pass_on(pipes: Pipes, own_lines: GenerationGuard) -> io::Result<[Option<JoinHandle<Relayed>>; 2]> {
    let (stdout, stderr) = (stream_of(io::stdout())?, stream_of(io::stderr())?);
    let hold = if pipes.holds { own_lines } else { GenerationGuard::Nothing };
    // One for both, if there is but one.
    let (of_stdout, hold) = if pipes.stderr.is_some() {
        (GenerationGuard::Nothing, hold)
    } else {
        (hold, GenerationGuard::Nothing)
    };
    Ok([
        pipes.stdout.map(|from| thread::spawn(|| relay(from, stdout, of_stdout))),
        pipes.stderr.map(|from| thread::spawn(|| relay(from, stderr, hold))),
    ])
}

/// What the command finds in its environment: later ones count.
fn environment(hostname: &str, wanted: &[(String, OsString)]) -> Vec<(String, OsString)> {
    let mut environment: Vec<(String, OsString)> = vec![
        ("PATH".into(), PATH.into()),
        ("HOME".into(), "/root".into()),
        ("HOSTNAME".into(), hostname.into()),
    ];
    environment.extend(["TERM"].iter().chain(&PROXIES).filter_map(|name| own_variable(name)));
    environment.extend_from_slice(wanted);
    environment
}

/// A variable of this process's environment.
pub(crate) fn own_variable(name: &str) -> Option<(String, OsString)> {
    std::env::var_os(name).map(|value| (name.to_owned(), value))
}
