//! `run`: a workspace, a command in it, a commit.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use layerstone::{
    CommitOptions, Error, ErrorKind, ImageRef, LeftOver, Task, Workspace, WorkspaceName, WorkspaceOptions,
    WriteReport,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::made::{self, MadeArguments, summary};
use super::source::ReadArguments;
use super::{Context, Outcome, usage};
use crate::output::{Output, Report, explained, shown};
use crate::replacement::write_new_file;
use crate::run::{self, Ended, Job, OWN_FAILURE, Printed, Runtime};
use crate::{Failure, interrupt, left};

/// Run a command in a copy of an image, commit what it changed, and print the image's UUID last
///
/// Options come before the command. With --json, standard output has the report alone, and what the command prints goes to
/// standard error.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone run debian:12 --tag with-file -- apt-get install -y file\n  layerstone run with-file --disposable -- file /bin/ls"
)]
pub(crate) struct RunArguments {
    /// Image, by UUID, tag or name
    pub(crate) image: ImageRef,
    /// Command to run, and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    pub(crate) command: Vec<OsString>,
    /// Commit nothing
    #[arg(long, visible_alias = "rm", conflicts_with_all = ["tags", "id_file"])]
    pub(crate) disposable: bool,
    /// Keep the workspace that it runs in
    #[arg(long)]
    pub(crate) keep: bool,
    /// Give the workspace this name, and the host in it [default: one that is free]
    #[arg(long)]
    pub(crate) name: Option<WorkspaceName>,
    /// Set an environment variable, or pass on this process's; may be repeated
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) environment: Vec<String>,
    /// Start in this directory of the image
    #[arg(short, long, value_name = "DIR", default_value = "/")]
    pub(crate) workdir: PathBuf,
    /// Write the image's UUID to this file, too, which must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) id_file: Option<PathBuf>,
    /// Choose what runs it [default: what is installed, bubblewrap first]
    #[arg(long)]
    pub(crate) runtime: Option<Runtime>,
    #[command(flatten)]
    read: ReadArguments,
    #[command(flatten)]
    pub(crate) made: MadeArguments,
}

pub(super) fn run(context: &Context, arguments: &RunArguments) -> Outcome {
    match run_and_commit(context, arguments)? {
        0 => Ok(()),
        code => Err(Failure::Ended(code)),
    }
}

/// Runs the command, commits what it did, and gives the exit code to end with.
fn run_and_commit(context: &Context, arguments: &RunArguments) -> Result<u8, Failure> {
    // With --json a failure is one object, so nothing else is said.
    let says = !arguments.made.quiet && !context.out.json;
    let Variables { set, unset } = variables(&arguments.environment)?;
    for name in unset.iter().filter(|_| says) {
        Output::note(&format!("{name} is not set here, so it is not set for the command."));
    }
    if says && is_size(&arguments.made.message) {
        let size = &arguments.made.message;
        Output::note(&format!("-m is the message here, not a limit of memory: '{size}' limits nothing."));
    }
    let job = Job {
        command: &arguments.command,
        environment: set,
        directory: &arguments.workdir,
        printed: if context.out.json { Printed::ToStderr } else { Printed::AsItIs },
    };
    check_places(arguments)?;
    // Of what is committed the UUID would be lost.
    left::check_stdout().map_err(Failure::Output)?;
    let project = context.project()?;
    arguments.id_file.as_deref().map_or(Ok(()), |file| context.check_is_outside("--id-file", file))?;
    let runtime = Runtime::find(arguments.runtime)?;
    let image = project.find(&arguments.image)?;
    job.check(&image)?;
    let options = WorkspaceOptions {
        name: arguments.name.clone(),
        temporary: !arguments.keep,
        ..WorkspaceOptions::default()
    };
    let workspace = image.create_workspace(&options)?;
    if let Some(why) = workspace.why_copy().filter(|_| says) {
        Output::note(&format!("A full copy, not an overlay mount: {why}."));
    }
    let ended = run::run(&workspace, &runtime, &job);
    if let Ok(Ended::Exited(code)) = ended {
        return finish(&workspace, &context.out, arguments, code, unset);
    }
    // A signal that ended what was done must not end this.
    let workspace = workspace.with_task(&Task::new());
    if !arguments.keep
        && let Err(error) = workspace.discard()
        && says
    {
        // What went wrong first counts. The next that is made clears it away.
        Output::note(&explained(&error));
    }
    let (kind, message, code) = match ended? {
        Ended::Exited(code) => return Ok(code),
        Ended::NotStarted(message) => (ErrorKind::Io, message, OWN_FAILURE),
        Ended::Stopped(signal) => {
            let message = format!("{}: cancelled; nothing was committed", interrupt::name(signal));
            (ErrorKind::Cancelled, message, interrupt::exit_code(signal))
        }
    };
    Err(Failure::Run { kind, message, code })
}

/// Whether a message is a number of bytes as Docker's `-m` has it.
fn is_size(message: &str) -> bool {
    let number = message.trim_end_matches(|unit: char| "bkmgtiBKMGTI".contains(unit));
    !number.is_empty()
        && message.len() <= number.len() + 3
        && number.bytes().all(|digit| digit.is_ascii_digit() || digit == b'.')
}

/// Variables that are asked for.
#[derive(Default)]
struct Variables<'a> {
    /// With their values, those of this process with its own.
    set: Vec<(String, OsString)>,
    /// Names that this process was to pass on and does not have.
    unset: Vec<&'a str>,
}

fn variables(wanted: &[String]) -> Result<Variables<'_>, Failure> {
    let mut variables = Variables::default();
    for variable in wanted {
        let (name, value) =
            variable.split_once('=').map_or((&**variable, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            let message =
                format!("'{}' is no variable; NAME or NAME=VALUE is expected", variable.escape_debug());
            return Err(usage("--env", &message));
        }
        match value {
            Some(value) => variables.set.push((name.to_owned(), value.into())),
            None => match run::own_variable(name) {
                Some(own) => variables.set.push(own),
                None => variables.unset.push(name),
            },
        }
    }
    Ok(variables)
}

/// Refuses paths that would only fail once the command has run.
fn check_places(arguments: &RunArguments) -> Outcome {
    if !arguments.workdir.is_absolute() {
        let message =
            format!("'{}' is not absolute; a path in the image is expected", shown(&arguments.workdir));
        return Err(usage("--workdir", &message));
    }
    let Some(file) = &arguments.id_file else { return Ok(()) };
    if file.symlink_metadata().is_ok() {
        let message = format!("'{}' exists already; remove it, or name another file", shown(file));
        return Err(usage("--id-file", &message));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(usage("--id-file", &format!("'{}' is no directory to write it in", shown(folder))));
    }
    Ok(())
}

/// Commits or ends the workspace, says so, and gives the exit code to end with.
fn finish(
    workspace: &Workspace,
    out: &Output,
    arguments: &RunArguments,
    exit_code: u8,
    unset: Vec<&str>,
) -> Result<u8, Failure> {
    let RunArguments { keep, disposable, read, made, id_file, .. } = arguments;
    let quiet = made.quiet;
    let options = CommitOptions { changing: read.changing(), ..made.options() };
    let report = match (disposable, keep) {
        (true, true) => None,
        (true, false) => {
            workspace.discard()?;
            None
        }
        (false, true) => Some(workspace.commit(&options)),
        (false, false) => Some(workspace.commit_and_end(&options)),
    };
    let report = report.transpose().map_err(|error| keep_what_was_done(workspace, &error))?;
    let written = match (id_file, &report) {
        (Some(file), Some(report)) => write_new_file(file, |mut to| {
            writeln!(to, "{}", report.image).map_err(|error| Error::host(file, "write it", error))
        }),
        _ => Ok(()),
    };
    let left_over = if *keep { None } else { made::left_over(workspace) };
    let kept = keep.then_some(workspace.name());
    let done = report.as_ref().map_or("nothing was to be committed".to_owned(), made::done);
    let (message, why_copy) = (&*made.message, workspace.why_copy());
    let ran = Ran { exit_code, report, workspace: kept, left_over, why_copy, unset, message, quiet };
    // The image is there, even if the file is not.
    match out.report(&ran, || done) {
        // The reader of what the command printed has gone, which changes nothing.
        Err(failure) if failure.is_broken_pipe() => {}
        shown => shown?,
    }
    written?;
    Ok(exit_code)
}

/// What failed, and where what the command did is: it may have worked for hours.
fn keep_what_was_done(workspace: &Workspace, error: &Error) -> Failure {
    let name = workspace.name();
    let kept = match workspace.with_task(&Task::new()).keep() {
        Ok(()) => {
            format!(
                "what the command did is kept in the workspace {name}: layerstone workspace commit {name}"
            )
        }
        Err(_) if workspace.info().is_ok_and(|info| info.process.is_none()) => {
            format!("what the command did stays in the workspace {name}")
        }
        Err(error) => format!("what the command did could not be kept: {}", explained(&error)),
    };
    let message = format!("{}; {kept}", explained(error));
    let code = interrupt::signal().map_or(OWN_FAILURE, interrupt::exit_code);
    Failure::Run { kind: error.kind(), message, code }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Ran<'a> {
    exit_code: u8,
    report: Option<WriteReport>,
    /// The workspace, if it was kept.
    workspace: Option<&'a WorkspaceName>,
    /// What the workspace left on the disk when it ended.
    left_over: Option<LeftOver>,
    /// Why the workspace was a full copy, if it was.
    why_copy: Option<&'a str>,
    /// Variables that were to be passed on and are not set here.
    unset: Vec<&'a str>,
    #[serde(skip)]
    message: &'a str,
    #[serde(skip)]
    quiet: bool,
}

impl Report for Ran<'_> {
    fn text(&self) -> io::Result<()> {
        self.left_over.iter().for_each(made::note_left_over);
        self.report.iter().for_each(|report| made::note(report, self.message));
        if let Some(report) = &self.report {
            if !self.quiet {
                Output::note(&summary(report));
            }
            Output::line(&report.image.to_string())?;
        }
        if let Some(name) = self.workspace.filter(|_| !self.quiet) {
            Output::note(&format!("The workspace {name} was kept."));
        }
        Ok(())
    }
}
