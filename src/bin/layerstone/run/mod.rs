//! `run`: a workspace, a command in it, a commit.
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

use layerstone::{Error, Project, Workspace, WorkspaceOptions};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::Failure;
use crate::arguments::RunArguments;
use crate::output::Output;
use crate::show;

use mount_points::{MountPoints, PointKind, copy};
pub(crate) use sandbox::Runtime;
use sandbox::{Found, Sandbox};

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
enum Ended {
    /// Its exit code; of one that was killed 128 and the signal's number.
    Exited(u8),
    /// It was not started; what to end with instead.
    NotStarted(u8),
    /// This process was asked to end it.
    Stopped(i32),
}

/// Runs a command, and gives the exit code to end with.
pub(crate) fn run(project: &Project, out: &Output, arguments: RunArguments) -> Result<u8, Failure> {
    let runtime = Runtime::find(arguments.runtime)?;
    let options = WorkspaceOptions {
        name: arguments.name.clone(),
        temporary: !arguments.keep,
        ..WorkspaceOptions::default()
    };
    let workspace = project.find(&arguments.image)?.create_workspace(&options)?;
    // Until here a signal ends this process as it does any other, and the next that is made clears away what is left.
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT]);
    let mut signals = signals.map_err(|error| Error::host(Path::new("run"), "wait for signals", error))?;
    let ended = run_in(&workspace, &runtime, &arguments, &mut signals);
    if let Ok(Ended::Exited(code)) = ended {
        finish(&workspace, out, arguments, code)?;
        return Ok(code);
    }
    if !arguments.keep
        && let Err(error) = workspace.discard()
    {
        // What went wrong first counts. The next that is made clears it away.
        Output::note(&error.to_string());
    }
    match ended? {
        Ended::Exited(code) | Ended::NotStarted(code) => Ok(code),
        Ended::Stopped(signal) => {
            Output::note("Stopped by a signal; nothing was committed.");
            Ok(u8::try_from(128 + signal).unwrap_or(OWN_FAILURE))
        }
    }
}

/// Commits or ends the workspace, and says so.
fn finish(workspace: &Workspace, out: &Output, arguments: RunArguments, code: u8) -> Result<(), Failure> {
    let RunArguments { keep, disposable, made, .. } = arguments;
    let (options, quiet) = made.options();
    match (disposable, keep) {
        (true, true) => {}
        (true, false) => workspace.discard()?,
        (false, _) => {
            let made = if keep { workspace.commit(&options) } else { workspace.commit_and_end(&options) };
            let report = made.inspect_err(|_| keep_what_was_done(workspace))?;
            if out.json {
                let workspace = keep.then_some(workspace.name());
                Output::json(&json!({ "exit_code": code, "report": report, "workspace": workspace }))?;
            } else {
                if !quiet {
                    Output::note(&show::summary(&report));
                }
                Output::line(&report.image.to_string())?;
            }
        }
    }
    if keep && !quiet {
        Output::note(&format!("The workspace {} was kept.", workspace.name()));
    }
    Ok(())
}

/// The command may have worked for hours.
fn keep_what_was_done(workspace: &Workspace) {
    let name = workspace.name();
    match workspace.keep() {
        Ok(()) => Output::note(&format!(
            "What the command did is kept in the workspace {name}: layerstone workspace commit {name}"
        )),
        Err(error) => Output::note(&format!("What the command did could not be kept: {error}")),
    }
}

/// Runs the command in the workspace.
fn run_in(
    workspace: &Workspace,
    runtime: &Found,
    arguments: &RunArguments,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    if let Some(why) = workspace.why_copy().filter(|_| !arguments.made.quiet) {
        Output::note(&format!("A full copy, not an overlay mount: {why}."));
    }
    let root = workspace.path()?;
    // Beside the files, so that it goes with them whatever happens.
    let scratch = root.with_file_name("run");
    std::fs::create_dir(&scratch).map_err(|error| Error::host(&scratch, "make a directory", error))?;
    let mut points = MountPoints::new(&root)?;
    let ended = start(workspace, runtime, arguments, (&root, &scratch), &mut points, signals);
    points.remove();
    let _ = std::fs::remove_dir_all(&scratch);
    ended
}

fn start(
    workspace: &Workspace,
    runtime: &Found,
    arguments: &RunArguments,
    (root, scratch): (&Path, &Path),
    points: &mut MountPoints,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let name = workspace.name().as_str();
    let hostname = name.get(..LONGEST_HOSTNAME).unwrap_or(name);
    let environment = environment(hostname, &arguments.environment)?;
    if let Some(code) = refuse(points, arguments, &environment) {
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
        directory: &arguments.workdir,
        environment,
        command: &arguments.command,
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
fn refuse(points: &MountPoints, arguments: &RunArguments, environment: &[(String, OsString)]) -> Option<u8> {
    let RunArguments { command, workdir, .. } = arguments;
    let complain = |what: &Path, why: &str| {
        Output::note(&format!("layerstone: '{}' {why}", what.display().to_string().escape_debug()));
    };
    if !points.is_directory(workdir) {
        complain(workdir, "is no directory in the image");
        return Some(OWN_FAILURE);
    }
    let program = Path::new(command.first()?);
    let path = environment.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map_or(PATH.into(), |(_, path)| path.to_string_lossy());
    let (why, code) = match points.find_program(program.as_os_str(), workdir, &path) {
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
