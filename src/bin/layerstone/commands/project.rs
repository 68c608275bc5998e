//! `project`: makes, lists, limits and removes projects.

use std::io;

use clap::Subcommand;
use layerstone::{ProjectInfo, ProjectLimits, ProjectName, Store};
use schemars::JsonSchema;
use serde::Serialize;

use super::list::each;
use super::{Context, Outcome};
use crate::output::{Output, Report, count, size};
use crate::values::{Limit, limit};

/// Make, list, limit or remove projects
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  layerstone project create demo\n  layerstone project ls")]
pub(crate) enum ProjectCommand {
    /// Make a project
    #[command(
        after_help = "Examples:\n  layerstone project create demo\n  layerstone project create demo --json"
    )]
    Create {
        /// Name of the project
        name: ProjectName,
    },
    /// List projects
    #[command(after_help = "Examples:\n  layerstone project ls\n  layerstone project ls --json")]
    #[command(alias = "list")]
    Ls,
    /// Set what a project may have
    #[command(
        after_help = "Examples:\n  layerstone project limit demo --max-layer-bytes 500MB\n  layerstone project limit demo --max-layer-bytes none"
    )]
    Limit {
        /// Name of the project
        name: ProjectName,
        /// Refuse commits with more bytes of changed files than this (500MB, 2GiB), or `none`
        #[arg(long, value_name = "BYTES", value_parser = limit)]
        max_layer_bytes: Limit,
    },
    /// Remove projects
    #[command(
        after_help = "Examples:\n  layerstone project rm demo\n  layerstone project rm --force demo test"
    )]
    #[command(alias = "remove", alias = "delete")]
    Rm {
        /// Names of the projects
        #[arg(required = true)]
        names: Vec<ProjectName>,
        /// Remove them with their images and tags
        #[arg(short, long)]
        force: bool,
    },
}

pub(super) fn run(context: &Context, command: &ProjectCommand) -> Outcome {
    let store = match command {
        ProjectCommand::Create { .. } => context.new_store()?,
        _ => context.store()?,
    };
    match command {
        ProjectCommand::Create { name } => {
            store.create_project(name)?;
            show(context, &store, name)
        }
        ProjectCommand::Ls => Ok(context.out.show(&store.projects()?)?),
        ProjectCommand::Limit { name, max_layer_bytes } => {
            store.limit_project(name, ProjectLimits::default().max_layer_bytes(max_layer_bytes.0))?;
            show(context, &store, name)
        }
        ProjectCommand::Rm { names, force } => each(&context.out, names, |name| {
            store.remove_project(name, *force)?;
            Ok(Removed { name })
        }),
    }
}

/// Says what the project is now.
fn show(context: &Context, store: &Store, name: &ProjectName) -> Outcome {
    let info = store.projects()?.into_iter().find(|project| project.name == *name);
    // Another process may have removed it since.
    info.map_or(Ok(()), |info| context.out.report(&info, || format!("project '{name}' is as asked for")))
}

impl Report for ProjectInfo {
    fn text(&self) -> io::Result<()> {
        let limit = self.limits.max_layer_bytes.map_or("no limit".to_owned(), size);
        let images = count(self.image_count, "image", "images");
        Output::line(&format!("project {}: {images}; most in one commit: {limit}", self.name))
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Removed<'a> {
    name: &'a ProjectName,
}

impl Report for Removed<'_> {
    fn text(&self) -> io::Result<()> {
        Output::line(&format!("removed {}", self.name))
    }
}

impl Report for Vec<ProjectInfo> {
    fn text(&self) -> io::Result<()> {
        let row = |project: &ProjectInfo| {
            let limit = project.limits.max_layer_bytes.map_or("none".to_owned(), size);
            vec![
                project.name.to_string(),
                project.image_count.to_string(),
                limit,
                project.created.to_string(),
            ]
        };
        let header = ["PROJECT", "IMAGES", "MAX LAYER", "CREATED"];
        Output::table(&header, &[1, 2], self.iter().map(row).collect())
    }
}
