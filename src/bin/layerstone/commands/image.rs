//! `image`: the commands on images under the names that Docker gives them.

use clap::Subcommand;

use super::{Context, Outcome, history, images, import, inspect, rm, tag};

/// List, show, tag, import or remove images
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  layerstone image ls\n  layerstone image rm mine")]
pub(crate) enum ImageCommand {
    #[command(alias = "list")]
    Ls(images::ImagesArguments),
    Inspect(inspect::InspectArguments),
    History(history::HistoryArguments),
    Tag(tag::TagArguments),
    Import(import::ImportArguments),
    #[command(alias = "remove")]
    Rm(rm::RmArguments),
}

pub(super) fn run(context: &Context, command: &ImageCommand) -> Outcome {
    match command {
        ImageCommand::Ls(arguments) => images::run(context, arguments),
        ImageCommand::Inspect(arguments) => inspect::run(context, arguments),
        ImageCommand::History(arguments) => history::run(context, arguments),
        ImageCommand::Tag(arguments) => tag::run(context, arguments),
        ImageCommand::Import(arguments) => import::run(context, arguments),
        ImageCommand::Rm(arguments) => rm::run(context, arguments),
    }
}
