//! The command line: the global options and the commands, each of which has its own arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use layerstone::ProjectName;

use crate::commands::{
    cat, checkout, commit, diff, export, gc, history, images, import, inspect, ls, merge, project, repair,
    rm, run, tag, tree, untag, verify, workspace,
};
use crate::values::seconds;

/// Keep file-system images: import, change, commit, tag, compare, check out.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, subcommand_required = true, arg_required_else_help = false)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The options of every command.
#[derive(Debug, Args)]
pub(crate) struct GlobalArguments {
    /// Directory of the store; made on first use [default: `LAYERSTONE_STORE`, or layerstone in the user's data directory]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) store: Option<PathBuf>,
    /// Project to work in; `public` is the scope that all projects read [default: `LAYERSTONE_PROJECT`, or default]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) project: Option<ProjectName>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Seconds to wait for another process that holds the store
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds, global = true)]
    pub(crate) lock_timeout: f64,
}

/// The commands, in the order in which help lists them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(subcommand, arg_required_else_help = false)]
    Project(project::ProjectCommand),
    Import(import::ImportArguments),
    Tag(tag::TagArguments),
    Untag(untag::UntagArguments),
    Images(images::ImagesArguments),
    Inspect(inspect::InspectArguments),
    History(history::HistoryArguments),
    Diff(diff::DiffArguments),
    Ls(ls::LsArguments),
    Cat(cat::CatArguments),
    Checkout(checkout::CheckoutArguments),
    Commit(commit::CommitArguments),
    #[command(subcommand, arg_required_else_help = false)]
    Workspace(workspace::WorkspaceCommand),
    Run(run::RunArguments),
    Merge(merge::MergeArguments),
    Tree(tree::TreeArguments),
    Export(export::ExportArguments),
    Verify(verify::VerifyArguments),
    Gc(gc::GcArguments),
    Repair(repair::RepairArguments),
    Rm(rm::RmArguments),
}
