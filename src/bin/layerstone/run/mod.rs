//! Runs a command in a workspace.
//!
//! The command sees the workspace as its root directory, has process, IPC, host name and mount namespaces of its own, Docker's
//! capabilities, and the host's network. The store is not locked meanwhile: the workspace's row protects what is used.

mod mount_points;
mod sandbox;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus};

use layerstone::{Error, Workspace};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGQUIT};
use signal_hook::iterator::Signals;

use crate::output::Output;

use mount_points::{MountPoints, PointKind, copy};
use sandbox::Sandbox;
pub(crate) use sandbox::{Found, Runtime};

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
    /// It was not started; what to end with instead.
    NotStarted(u8),
    /// This process was asked to end it.
    Stopped(i32),
}

/// What is to be run.
pub(crate) struct Job<'a> {
    /// The command and its arguments.
    pub(crate) command: &'a [OsString],
    /// `NAME=VALUE`, or the `NAME` of a variable to pass on.
    pub(crate) environment: &'a [String],
    /// The directory in the image to start in.
    pub(crate) directory: &'a Path,
}

/// Runs the command in the workspace.
pub(crate) fn run(
    workspace: &Workspace,
    runtime: &Found,
    job: &Job,
    signals: &mut Signals,
) -> Result<Ended, Error> {
    let root = workspace.path()?;
    // Beside the files, so that it goes with them whatever happens.
    let scratch = root.with_file_name("run");
    std::fs::create_dir(&scratch).map_err(|error| Error::host(&scratch, "make a directory", error))?;
    let mut points = MountPoints::new(&root)?;
    let ended = start(workspace, runtime, job, (&root, &scratch), &mut points, signals);
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
    signals: &mut Signals,
) -> Result<Ended, Error> {
    let name = workspace.name().as_str();
    let hostname = name.get(..LONGEST_HOSTNAME).unwrap_or(name);
    let environment = environment(hostname, job.environment)?;
    if let Some(code) = refuse(points, job, &environment) {
        return Ok(Ended::NotStarted(code));
    }
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
        environment,
        command: job.command,
        scratch,
    };
    let mut prepared = runtime.prepare(&sandbox)?;
    let program = Path::new(prepared.command.get_program()).to_owned();
    let child = prepared.command.spawn().map_err(|error| Error::host(&program, "start it", error))?;
    let ended = wait(child, signals).map_err(|error| Error::host(&program, "wait for it", error))?;
    Ok(match ended {
        // It has said why.
        Ended::Exited(_) if !runtime.has_started(scratch) => Ended::NotStarted(OWN_FAILURE),
        ended => ended,
    })
}

/// Says that there is nothing to run, with the code that a shell would end with.
fn refuse(points: &MountPoints, job: &Job, environment: &[(String, OsString)]) -> Option<u8> {
    let Job { command, directory, .. } = job;
    let complain = |what: &Path, why: &str| {
        Output::note(&format!("layerstone: '{}' {why}", what.display().to_string().escape_debug()));
    };
    if !points.is_directory(directory) {
        complain(directory, "is no directory in the image");
        return Some(OWN_FAILURE);
    }
    let program = Path::new(command.first()?);
    let path = environment.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map_or(PATH.into(), |(_, path)| path.to_string_lossy());
    let (why, code) = match points.find_program(program.as_os_str(), directory, &path) {
        Ok(()) => return None,
        Err(Errno::ACCESS) => ("is no program that can be executed", NOT_EXECUTABLE),
        Err(_) => ("is not in the image, or what its first line names is not", NOT_FOUND),
    };
    complain(program, why);
    Some(code)
}

/// What the command finds in its environment: later ones count.
fn environment(hostname: &str, wanted: &[String]) -> Result<Vec<(String, OsString)>, Error> {
    let mut environment: Vec<(String, OsString)> = vec![
        ("PATH".into(), PATH.into()),
        ("HOME".into(), "/root".into()),
        ("HOSTNAME".into(), hostname.into()),
    ];
    let own = |name: &str| std::env::var_os(name).map(|value| (name.to_owned(), value));
    environment.extend(["TERM"].iter().chain(&PROXIES).filter_map(|name| own(name)));
    for variable in wanted {
        match variable.split_once('=') {
            Some(("", _)) => return Err(Error::usage("--env", "NAME or NAME=VALUE is expected")),
            Some((name, value)) => environment.push((name.to_owned(), value.into())),
            None => environment.extend(own(variable)),
        }
    }
    Ok(environment)
}

/// Waits for the command, which is killed with all that it started when this process is asked to end. A terminal asks the
/// command too: then it is the command's to end, until it is asked again.
fn wait(mut child: Child, signals: &mut Signals) -> io::Result<Ended> {
    let handle = signals.handle();
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let is_told = io::stdin().is_terminal();
    std::thread::scope(|scope| {
        let passer = scope.spawn(|| {
            let mut stopped = None;
            for signal in signals.forever() {
                let is_first = stopped.replace(signal).is_none();
                let waits = is_first && is_told && matches!(signal, SIGINT | SIGQUIT);
                if let (false, Some(process)) = (waits, process) {
                    let _ = kill_process(process, Signal::KILL);
                }
            }
            stopped
        });
        let status = child.wait();
        handle.close();
        let stopped = passer.join().unwrap_or(None);
        let status = status?;
        let code = exit_code(status);
        // What runs the command tells of a command that was killed; killed itself, it was stopped, whoever was told first. A
        // command that handled a signal and went on was not.
        Ok(match status.signal().or(stopped.filter(|_| code > 128)) {
            Some(signal) => Ended::Stopped(stopped.unwrap_or(signal)),
            None => Ended::Exited(code),
        })
    })
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
    u8::try_from(code).unwrap_or(OWN_FAILURE)
}
