//! `workspace`: makes, lists, commits and discards writable copies of images.

use std::io;

use clap::Subcommand;
use layerstone::{CommitOptions, ImageRef, WorkspaceInfo, WorkspaceKind, WorkspaceName, WorkspaceOptions};
use schemars::JsonSchema;
use serde::Serialize;

use super::list::each;
use super::made::MadeArguments;
use super::source::ReadArguments;
use super::{Context, Outcome, made};
use crate::output::{Output, Report, age};

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
    #[command(alias = "rm", alias = "remove")]
    Discard {
        /// Names of the workspaces
        #[arg(required = true)]
        names: Vec<WorkspaceName>,
    },
}

pub(super) fn run(context: &Context, command: &WorkspaceCommand) -> Outcome {
    let (out, project) = (&context.out, context.project()?);
    match command {
        WorkspaceCommand::Create { image, name, copy, quiet } => {
            let options =
                WorkspaceOptions { name: name.clone(), full_copy: *copy, ..WorkspaceOptions::default() };
            let workspace = project.find(image)?.create_workspace(&options)?;
            if let Some(why) = workspace.why_copy() {
                Output::note(&format!("A full copy, not an overlay mount: {why}."));
            }
            out.show(&Created { info: workspace.info()?, quiet: *quiet })?;
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
            if !keep {
                made::note_left_over(&workspace);
            }
            made::show(out, made.quiet, &report, &made.message)?;
        }
        WorkspaceCommand::Discard { names } => {
            return each(out, names, |name| {
                let workspace = project.workspace(name)?;
                workspace.discard()?;
                made::note_left_over(&workspace);
                Ok(Discarded { name })
            });
        }
    }
    Ok(())
}

#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Created {
    info: WorkspaceInfo,
    #[serde(skip)]
    quiet: bool,
}

impl Report for Created {
    fn text(&self) -> io::Result<()> {
        let info = &self.info;
        if !self.quiet {
            Output::line(&format!("{} of image {} at {}", form(info), info.image, info.path.display()))?;
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
pub(super) struct Discarded<'a> {
    name: &'a WorkspaceName,
}

impl Report for Discarded<'_> {
    fn text(&self) -> io::Result<()> {
        Output::line(&format!("discarded {}", self.name))
    }
}

fn form(info: &WorkspaceInfo) -> &'static str {
    match info.kind {
        WorkspaceKind::Overlay => "overlay",
        WorkspaceKind::Checkout => "checkout",
    }
}
