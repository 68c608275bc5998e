//! The command line: the global options and the commands, each of which has its own arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use layerstone::ProjectName;

use crate::commands::{
    cat, checkout, commit, diff, export, gc, history, image, images, import, init, inspect, ls, merge,
    project, repair, rm, run, schema, tag, tree, untag, verify, workspace,
};
use crate::progress::ProgressKind;
use crate::values::seconds;

/// Keep file-system images: import, change, commit, tag, compare, check out.
#[derive(Debug, Parser)]
#[command(
    version,
    bin_name = "layerstone",
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  layerstone import rootfs.tar.zst --tag debian:12\n  layerstone run debian:12 -- sh"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArguments {
    /// Use the store in this directory [default: `LAYERSTONE_STORE`, or layerstone in the user's data directory]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) store: Option<PathBuf>,
    /// Work in this project; `public` is the scope that all projects read [default: `LAYERSTONE_PROJECT`, or default]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) project: Option<ProjectName>,
    /// Print JSON (see `layerstone schema`)
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Wait so many seconds for another process that holds the store
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds, global = true)]
    pub(crate) lock_timeout: f64,
    /// Show what a command that takes long does, on standard error
    #[arg(long, value_name = "KIND", value_enum, default_value_t, global = true)]
    pub(crate) progress: ProgressKind,
}

/// The commands, in the order in which help lists them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::InitArguments),
    #[command(subcommand, arg_required_else_help = true)]
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
    #[command(alias = "ws", subcommand, arg_required_else_help = true)]
    Workspace(workspace::WorkspaceCommand),
    Run(run::RunArguments),
    Merge(merge::MergeArguments),
    Tree(tree::TreeArguments),
    Export(export::ExportArguments),
    Verify(verify::VerifyArguments),
    Gc(gc::GcArguments),
    Repair(repair::RepairArguments),
    #[command(alias = "rmi", alias = "remove", alias = "delete")]
    Rm(rm::RmArguments),
    Schema(schema::SchemaArguments),
    /// List workspaces
    #[command(hide = true)]
    Ps,
    #[command(hide = true, subcommand, arg_required_else_help = true)]
    Image(image::ImageCommand),
}

impl Command {
    /// Whether the command is to print its result only.
    pub(crate) fn is_quiet(&self) -> bool {
        use workspace::WorkspaceCommand;
        match self {
            Self::Import(arguments) => arguments.quiet,
            Self::Tag(arguments) => arguments.quiet,
            Self::Images(arguments) => arguments.quiet,
            Self::Commit(arguments) => arguments.made.quiet,
            Self::Run(arguments) => arguments.made.quiet,
            Self::Merge(arguments) => arguments.made.quiet,
            Self::Workspace(WorkspaceCommand::Create { quiet, .. }) => *quiet,
            Self::Workspace(WorkspaceCommand::Commit { made, .. }) => made.quiet,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// A command and those below it.
    fn all(command: &clap::Command) -> Vec<clap::Command> {
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        below.flat_map(all).chain([command.clone()]).collect()
    }

    /// The words of an example, as a shell gives them to the program.
    fn words(example: &str) -> Vec<String> {
        let command = example.split(' ').take_while(|word| !matches!(*word, "|" | "<" | ">"));
        let command = command.collect::<Vec<_>>().join(" ");
        let parts = command.split('"').enumerate();
        let words = parts.flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.collect()
    }

    #[test]
    fn every_help_has_two_examples_that_the_program_takes() {
        let mut program = Arguments::command();
        program.build();
        for command in all(&program) {
            let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
            if name == "layerstone-ps" {
                continue;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<_> = help.lines().filter(|line| line.starts_with("  layerstone ")).collect();
            assert_eq!(examples.len(), 2, "{name}: {help}");
            for example in examples {
                let parsed = Arguments::try_parse_from(words(example));
                assert!(parsed.is_ok(), "{name}: {example}: {}", parsed.unwrap_err());
            }
        }
    }

    /// The parser sees such a conflict only where the global option stands behind the command's name.
    #[test]
    fn no_option_conflicts_with_a_global_one() {
        let mut program = Arguments::command();
        program.build();
        for command in all(&program) {
            for argument in command.get_arguments() {
                let conflicts = command.get_arg_conflicts_with(argument);
                let global: Vec<_> = conflicts.iter().filter(|other| other.is_global_set()).collect();
                assert!(global.is_empty(), "{} {}: {global:?}", command.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn every_option_has_a_help_line_and_global_ones_a_heading_of_their_own() {
        let mut program = Arguments::command();
        program.build();
        for command in all(&program) {
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let (name, id) = (command.get_name(), argument.get_id());
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with(char::is_uppercase) && !help.ends_with('.'), "{name} {id}: {help}");
                let heading = argument.get_help_heading();
                assert_eq!(heading, argument.is_global_set().then_some("Global options"), "{name} {id}");
            }
        }
    }
}
