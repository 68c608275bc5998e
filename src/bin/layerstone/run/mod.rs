//! `run`: a workspace, a command in it, a commit.
//!
//! The command sees the workspace as its root directory, has process, IPC, host name and mount namespaces of its own, Docker's
//! capabilities, and the host's network. The store is not locked meanwhile: the workspace's row protects what is used.

mod mount_points;
mod sandbox;

use std::ffi::OsString;
use std::io;
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
use sandbox::Sandbox;

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
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// What became of the command.
enum Ended {
    /// Its exit code; of one that was killed 128 and the signal's number.
    Exited(u8),
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
    match run_in(&workspace, runtime, &arguments) {
        Ok(Ended::Exited(code)) => {
            finish(&workspace, out, arguments, code)?;
            Ok(code)
        }
        Ok(Ended::Stopped(signal)) => {
            end(&workspace, arguments.keep)?;
            Output::note("Stopped by a signal; nothing was committed.");
            Ok(exit_code_of_signal(signal))
        }
        Err(failure) => {
            end(&workspace, arguments.keep)?;
            Err(failure)
        }
    }
}

/// Commits or ends the workspace, and says so.
fn finish(workspace: &Workspace, out: &Output, arguments: RunArguments, code: u8) -> Result<(), Failure> {
    let RunArguments { keep, disposable, made, .. } = arguments;
    let (options, quiet) = made.options();
    if disposable {
        end(workspace, keep)?;
    } else {
        let report = if keep { workspace.commit(&options)? } else { workspace.commit_and_end(&options)? };
        if out.json {
            Output::json(
                &json!({ "exit_code": code, "report": report, "workspace": keep.then_some(workspace.name()) }),
            )?;
        } else {
            if !quiet {
                Output::note(&show::summary(&report));
            }
            Output::line(&report.image.to_string())?;
        }
    }
    if keep && !quiet {
        Output::note(&format!("The workspace {} was kept.", workspace.name()));
    }
    Ok(())
}

fn end(workspace: &Workspace, is_kept: bool) -> Result<(), Failure> {
    if is_kept { Ok(()) } else { Ok(workspace.discard()?) }
}

/// Runs the command in the workspace.
fn run_in(workspace: &Workspace, runtime: Runtime, arguments: &RunArguments) -> Result<Ended, Failure> {
    if let Some(why) = workspace.why_copy().filter(|_| !arguments.made.quiet) {
        Output::note(&format!("A full copy, not an overlay mount: {why}."));
    }
    let root = workspace.path()?;
    // Beside the files, so that it goes with them whatever happens.
    let scratch = root.with_file_name("run");
    std::fs::create_dir(&scratch).map_err(|error| Error::host(&scratch, "make a directory", error))?;
    let mut points = MountPoints::new(&root)?;
    let ended = start(workspace, runtime, arguments, (&root, &scratch), &mut points);
    points.remove();
    let _ = std::fs::remove_dir_all(&scratch);
    ended
}

fn start(
    workspace: &Workspace,
    runtime: Runtime,
    arguments: &RunArguments,
    (root, scratch): (&Path, &Path),
    points: &mut MountPoints,
) -> Result<Ended, Failure> {
    let hostname = workspace.name().as_str();
    let environment = environment(hostname, &arguments.environment);
    if let Some(code) = refuse(points, &arguments.command, &environment) {
        return Ok(Ended::Exited(code));
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
    let mut command = runtime.command(&sandbox)?;
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT]);
    let mut signals = signals.map_err(|error| Error::host(Path::new("run"), "wait for signals", error))?;
    let program = Path::new(command.get_program()).to_owned();
    let child = command.spawn().map_err(|error| Error::host(&program, "start it", error))?;
    wait(child, &mut signals).map_err(|error| Failure::Store(Error::host(&program, "wait for it", error)))
}

/// Says that the image has no such program, with the code that a shell would end with.
fn refuse(points: &MountPoints, command: &[OsString], environment: &[(String, OsString)]) -> Option<u8> {
    let program = command.first()?;
    let path = environment.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map_or(PATH.into(), |(_, path)| path.to_string_lossy());
    let (what, code) = match points.find_program(program, &path) {
        Ok(()) => return None,
        Err(Errno::ACCESS) => ("is no program that can be executed", NOT_EXECUTABLE),
        Err(_) => ("is not in the image", NOT_FOUND),
    };
    Output::note(&format!("layerstone: '{}' {what}", program.to_string_lossy()));
    Some(code)
}

/// What the command finds in its environment: later ones count.
fn environment(hostname: &str, wanted: &[String]) -> Vec<(String, OsString)> {
    let mut environment: Vec<(String, OsString)> = vec![
        ("PATH".into(), PATH.into()),
        ("HOME".into(), "/root".into()),
        ("HOSTNAME".into(), hostname.into()),
    ];
    let own = |name: &str| std::env::var_os(name).map(|value| (name.to_owned(), value));
    environment.extend(["TERM"].iter().chain(&PROXIES).filter_map(|name| own(name)));
    for variable in wanted {
        match variable.split_once('=') {
            Some((name, value)) => environment.push((name.to_owned(), value.into())),
            None => environment.extend(own(variable)),
        }
    }
    environment
}

/// Waits for the command. What asks this process to end is passed on, and remembered: a terminal tells both.
fn wait(mut child: Child, signals: &mut Signals) -> io::Result<Ended> {
    let handle = signals.handle();
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    std::thread::scope(|scope| {
        let passer = scope.spawn(|| {
            let mut stopped = None;
            for signal in signals.forever() {
                stopped.get_or_insert(signal);
                // A terminal has told the command itself.
                if let (SIGTERM | SIGHUP, Some(process)) = (signal, process) {
                    let _ = kill_process(process, Signal::TERM);
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
            Some(signal) => Ended::Stopped(signal),
            None => Ended::Exited(code),
        })
    })
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
    u8::try_from(code).unwrap_or(OWN_FAILURE)
}

fn exit_code_of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(OWN_FAILURE)
}
