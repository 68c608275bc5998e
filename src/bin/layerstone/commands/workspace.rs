//! The commands on workspaces.

use layerstone::{Project, Workspace, WorkspaceInfo, WorkspaceKind, WorkspaceName, WorkspaceOptions};
use serde_json::json;

use crate::arguments::WorkspaceCommand;
use crate::output::Output;
use crate::show;

use super::{Outcome, removed, written};

pub(super) fn run(project: &Project, out: &Output, command: WorkspaceCommand) -> Outcome {
    match command {
        WorkspaceCommand::Create { image, name, copy, quiet } => {
            let options = WorkspaceOptions { name, full_copy: copy, ..WorkspaceOptions::default() };
            created(out, quiet, &project.find(&image)?.create_workspace(&options)?)
        }
        WorkspaceCommand::Ls => list(out, &project.workspaces()?),
        WorkspaceCommand::Path { name } => {
            let path = project.workspace(&name)?.path()?;
            if out.json {
                return Ok(Output::json(&json!({ "path": path }))?);
            }
            Ok(Output::path(&path)?)
        }
        WorkspaceCommand::Commit { name, keep, made } => {
            let (options, quiet) = made.options();
            let workspace = project.workspace(&name)?;
            let report = if keep { workspace.commit(&options) } else { workspace.commit_and_end(&options) }?;
            written(out, quiet, &report, &options.comment)
        }
        WorkspaceCommand::Discard { names } => discard(project, out, &names),
    }
}

/// Says what was made, and why it is no overlay where one was to be expected.
fn created(out: &Output, quiet: bool, workspace: &Workspace) -> Outcome {
    let info = workspace.info()?;
    if let Some(why) = workspace.why_copy() {
        Output::note(&format!("A full copy, not an overlay mount: {why}."));
    }
    if out.json {
        return Ok(Output::json(&info)?);
    }
    if !quiet {
        Output::line(&format!("{} of image {} at {}", form(&info), info.image, info.path.display()))?;
    }
    Ok(Output::line(&info.name.to_string())?)
}

fn list(out: &Output, workspaces: &[WorkspaceInfo]) -> Outcome {
    if out.json {
        return Ok(Output::json(&workspaces)?);
    }
    let row = |info: &WorkspaceInfo| {
        let state = match (info.process, info.is_mounted) {
            (Some(process), _) => format!("used by process {process}"),
            (None, true) => "ready".to_owned(),
            (None, false) => "not mounted".to_owned(),
        };
        vec![
            info.name.to_string(),
            info.image.to_string(),
            form(info).to_owned(),
            state,
            show::age(info.created),
        ]
    };
    Ok(Output::table(
        &["WORKSPACE", "IMAGE", "KIND", "STATE", "CREATED"],
        &[],
        workspaces.iter().map(row).collect(),
    )?)
}

fn discard(project: &Project, out: &Output, names: &[WorkspaceName]) -> Outcome {
    for name in names {
        project.workspace(name)?.discard()?;
        removed(out, &json!({ "discarded": name }), &[format!("discarded {name}")])?;
    }
    Ok(())
}

fn form(info: &WorkspaceInfo) -> &'static str {
    match info.kind {
        WorkspaceKind::Overlay => "overlay",
        WorkspaceKind::Checkout => "checkout",
    }
}
