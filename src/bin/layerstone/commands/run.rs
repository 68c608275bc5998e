//! `run`: a workspace, a command in it, a commit.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use layerstone::{Error, ImageRef, Workspace, WorkspaceName, WorkspaceOptions, WriteReport};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::made::{MadeArguments, summary};
use super::{Context, Outcome};
use crate::Failure;
use crate::output::{Output, Report};
use crate::run::{self, Ended, Job, OWN_FAILURE, Runtime};

/// Run a command in a copy of an image, commit what it changed, and print the image's UUID last
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone run debian:12 --tag with-file -- apt-get install -y file\n  layerstone run with-file --disposable -- file /bin/ls"
)]
pub(crate) struct RunArguments {
    /// Image, by UUID, tag or name
    pub(crate) image: ImageRef,
    /// Command to run, and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
    /// Commit nothing
    #[arg(long, conflicts_with = "tags")]
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
    /// Choose what runs it [default: what is installed, bubblewrap first]
    #[arg(long)]
    pub(crate) runtime: Option<Runtime>,
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
    let project = context.project()?;
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
    if let Some(why) = workspace.why_copy().filter(|_| !arguments.made.quiet) {
        Output::note(&format!("A full copy, not an overlay mount: {why}."));
    }
    let job = Job {
        command: &arguments.command,
        environment: &arguments.environment,
        directory: &arguments.workdir,
    };
    let ended = run::run(&workspace, &runtime, &job, &mut signals);
    if let Ok(Ended::Exited(code)) = ended {
        finish(&workspace, &context.out, arguments, code)?;
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
fn finish(workspace: &Workspace, out: &Output, arguments: &RunArguments, code: u8) -> Outcome {
    let RunArguments { keep, disposable, made, .. } = arguments;
    let quiet = made.quiet;
    match (disposable, keep) {
        (true, true) => {}
        (true, false) => workspace.discard()?,
        (false, _) => {
            let options = made.options();
            let made = if *keep { workspace.commit(&options) } else { workspace.commit_and_end(&options) };
            let report = made.inspect_err(|_| keep_what_was_done(workspace))?;
            let workspace = keep.then_some(workspace.name());
            out.show(&Ran { exit_code: code, report, workspace, quiet })?;
        }
    }
    if *keep && !quiet {
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

#[derive(Serialize)]
struct Ran<'a> {
    exit_code: u8,
    report: WriteReport,
    workspace: Option<&'a WorkspaceName>,
    #[serde(skip)]
    quiet: bool,
}

impl Report for Ran<'_> {
    fn text(&self) -> io::Result<()> {
        if !self.quiet {
            Output::note(&summary(&self.report));
        }
        Output::line(&self.report.image.to_string())
    }
}
