//! `history`: shows how an image came to be.

use std::io;

use clap::Args;
use layerstone::path::escape_bytes;
use layerstone::{ImageRef, LayerInfo};

use super::{Context, Outcome};
use crate::output::{Output, Report, age, size};

/// Show the steps that led to an image, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  layerstone history mine\n  layerstone history mine --json")]
pub(crate) struct HistoryArguments {
    /// Image, by UUID, tag or name
    image: ImageRef,
}

pub(super) fn run(context: &Context, arguments: &HistoryArguments) -> Outcome {
    Ok(context.out.show(&context.project_to_read()?.find(&arguments.image)?.history()?)?)
}

impl Report for Vec<LayerInfo> {
    fn text(&self) -> io::Result<()> {
        let row = |layer: &LayerInfo| {
            let changes = format!("+{} ~{} -{}", layer.added, layer.modified, layer.removed);
            let id = layer.id.to_string();
            let short = id.get(..12).unwrap_or(&id).to_owned();
            vec![
                short,
                age(layer.created),
                escaped(&layer.created_by),
                changes,
                size(layer.bytes),
                escaped(&layer.comment),
            ]
        };
        let header = ["LAYER", "CREATED", "CREATED BY", "PATHS", "BYTES", "COMMENT"];
        Output::table(&header, &[4], self.iter().map(row).collect())
    }
}

/// Free text, escaped as paths are: what it shows stands for one text only.
fn escaped(text: &str) -> String {
    escape_bytes(text.as_bytes())
}
