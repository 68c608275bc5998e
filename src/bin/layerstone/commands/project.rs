//! `project`: makes, lists, limits and removes projects.

use std::io;

use clap::Subcommand;
use layerstone::{ProjectInfo, ProjectLimits, ProjectName};

use super::{Context, Outcome};
use crate::output::{Output, Report, size};
use crate::values::{Limit, limit};

/// Make, list or remove projects
#[derive(Debug, Subcommand)]
pub(crate) enum ProjectCommand {
    /// Make a project
    Create {
        /// Its name
        name: ProjectName,
    },
    /// List projects
    Ls,
    /// Set what a project may have
    Limit {
        /// Its name
        name: ProjectName,
        /// Most bytes of changed files in one commit, or `none`
        #[arg(long, value_name = "BYTES", value_parser = limit)]
        max_layer_bytes: Limit,
    },
    /// Remove a project
    Rm {
        /// Its name
        name: ProjectName,
        /// Remove it with its images and tags
        #[arg(short, long)]
        force: bool,
    },
}

pub(super) fn run(context: &Context, command: &ProjectCommand) -> Outcome {
    let store = context.store()?;
    match command {
        ProjectCommand::Create { name } => store.create_project(name).map(drop)?,
        ProjectCommand::Ls => context.out.show(&store.projects()?)?,
        ProjectCommand::Limit { name, max_layer_bytes } => {
            store.limit_project(name, ProjectLimits::default().max_layer_bytes(max_layer_bytes.0))?;
        }
        ProjectCommand::Rm { name, force } => store.remove_project(name, *force)?,
    }
    Ok(())
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
