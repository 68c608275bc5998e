//! `workspace`: makes, lists, commits and discards writable copies of images.

use std::io;

use clap::Subcommand;
use layerstone::{
    CommitOptions, ImageRef, LeftOver, WorkspaceInfo, WorkspaceKind, WorkspaceName, WorkspaceOptions,
    WriteReport,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::list::each;
use super::made::{MadeArguments, Written};
use super::source::ReadArguments;
use super::{Context, Outcome, made};
use crate::output::{Output, Report, age, shown};

/// Make, list, commit or discard writable copies of images
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  layerstone workspace create debian:12 --name mine\n  layerstone workspace commit mine --tag greeting"
)]
pub(crate) enum WorkspaceCommand {
    /// Make a workspace on an image, an overlay mount where this process may mount and otherwise a checkout, and print its name last
    #[command(
        after_help = "Examples:\n  layerstone workspace create debian:12\n  layerstone workspace create debian:12 --name mine --quiet"
    )]
    Create {
        /// Image, by UUID, tag or name
        image: ImageRef,
        /// Give it this name [default: one that is free]
        #[arg(long)]
        name: Option<WorkspaceName>,
        /// Make a checkout of its own, even where an overlay could be mounted
        #[arg(long)]
        copy: bool,
        /// Print the name only
        #[arg(short, long)]
        quiet: bool,
    },
    /// List workspaces
    #[command(after_help = "Examples:\n  layerstone workspace ls\n  layerstone workspace ls --json")]
    #[command(alias = "list")]
    Ls,
    /// Print the directory to work in, and mount it again after a boot
    #[command(
        after_help = "Examples:\n  layerstone workspace path mine\n  layerstone workspace path mine --json"
    )]
    Path {
        /// Name of the workspace
        name: WorkspaceName,
    },
    /// Commit what was changed as a new image, end the workspace, and print the image's UUID last
    #[command(
        after_help = "Examples:\n  layerstone workspace commit mine --tag greeting\n  layerstone workspace commit mine --keep -m \"first step\""
    )]
    Commit {
        /// Name of the workspace
        name: WorkspaceName,
        /// Keep the workspace
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        read: ReadArguments,
        #[command(flatten)]
        made: MadeArguments,
    },
    /// End workspaces and drop what was changed in them
    #[command(
        after_help = "Examples:\n  layerstone workspace discard mine\n  layerstone workspace discard mine theirs"
    )]
    #[command(alias = "rm", alias = "remove", alias = "delete")]
    Discard {
        /// Names of the workspaces
        #[arg(required = true)]
        names: Vec<WorkspaceName>,
    },
}

pub(super) fn run(context: &Context, command: &WorkspaceCommand) -> Outcome {
    let out = &context.out;
    let project = match command {
        WorkspaceCommand::Ls => context.project_to_read()?,
        _ => context.project()?,
    };
    match command {
        WorkspaceCommand::Create { image, name, copy, quiet } => {
            let options =
                WorkspaceOptions { name: name.clone(), full_copy: *copy, ..WorkspaceOptions::default() };
            let workspace = project.find(image)?.create_workspace(&options)?;
            let why_copy = workspace.why_copy();
            let created = Created { info: workspace.info()?, why_copy, quiet: *quiet };
            out.report(&created, || format!("workspace '{}' was made", workspace.name()))?;
        }
        WorkspaceCommand::Ls => out.show(&project.workspaces()?)?,
        WorkspaceCommand::Path { name } => {
            let workspace = project.workspace(name)?;
            workspace.path()?;
            out.show(&Place { info: workspace.info()? })?;
        }
        WorkspaceCommand::Commit { name, keep, read, made } => {
            let options = CommitOptions { changing: read.changing(), ..made.options() };
            let workspace = project.workspace(name)?;
            let report = if *keep { workspace.commit(&options) } else { workspace.commit_and_end(&options) }?;
            let left_over = if *keep { None } else { made::left_over(&workspace) };
            let done = made::done(&report);
            out.report(&Committed { report, left_over, message: &made.message, quiet: made.quiet }, || done)?;
        }
        WorkspaceCommand::Discard { names } => {
            return each(out, names, |name| {
                let workspace = project.workspace(name)?;
                workspace.discard()?;
                Ok(Discarded { name, left_over: made::left_over(&workspace) })
            });
        }
    }
    Ok(())
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Created<'a> {
    #[serde(flatten)]
    info: WorkspaceInfo,
    /// Why it is a checkout though that was not asked for.
    why_copy: Option<&'a str>,
    #[serde(skip)]
    quiet: bool,
}

impl Report for Created<'_> {
    fn text(&self) -> io::Result<()> {
        let info = &self.info;
        if let Some(why) = self.why_copy {
            Output::note(&format!("A full copy, not an overlay mount: {why}."));
        }
        if !self.quiet {
            Output::line(&format!("{} of image {} at {}", form(info), info.image, shown(&info.path)))?;
        }
        Output::line(&info.name.to_string())
    }
}

impl Report for Vec<WorkspaceInfo> {
    fn text(&self) -> io::Result<()> {
        let row = |info: &WorkspaceInfo| {
            let state = match (info.process, info.is_mounted) {
                (Some(process), _) => format!("used by process {process}"),
                (None, true) => "ready".to_owned(),
                (None, false) => "not mounted".to_owned(),
            };
            let (name, image) = (info.name.to_string(), info.image.to_string());
            vec![name, image, form(info).to_owned(), state, age(info.created)]
        };
        let header = ["WORKSPACE", "IMAGE", "KIND", "STATE", "CREATED"];
        Output::table(&header, &[], self.iter().map(row).collect())
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
struct Place {
    info: WorkspaceInfo,
}

impl Report for Place {
    fn text(&self) -> io::Result<()> {
        Output::path(&self.info.path)
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Committed<'a> {
    #[serde(flatten)]
    report: WriteReport,
    /// What the workspace left on the disk when it ended.
    left_over: Option<LeftOver>,
    #[serde(skip)]
    message: &'a str,
    #[serde(skip)]
    quiet: bool,
}

impl Report for Committed<'_> {
    fn text(&self) -> io::Result<()> {
        let Self { report, left_over, message, quiet } = self;
        left_over.iter().for_each(made::note_left_over);
        Written { report, message, quiet: *quiet }.text()
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Discarded<'a> {
    name: &'a WorkspaceName,
    /// What the workspace left on the disk when it ended.
    left_over: Option<LeftOver>,
}

impl Report for Discarded<'_> {
    fn text(&self) -> io::Result<()> {
        self.left_over.iter().for_each(made::note_left_over);
        Output::line(&format!("discarded {}", self.name))
    }
}

fn form(info: &WorkspaceInfo) -> &'static str {
    match info.kind {
        WorkspaceKind::Overlay => "overlay",
        WorkspaceKind::Checkout => "checkout",
    }
}
