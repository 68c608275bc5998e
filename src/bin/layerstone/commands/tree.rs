//! `tree`: shows which image came from which.

use std::collections::BTreeMap;
use std::io;

use clap::Args;
use layerstone::id::ImageId;
use layerstone::{ImageRef, LineageNode};

use super::{Context, Outcome, usage};
use crate::output::{Output, Report, age, size};

/// Show which image came from which
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  layerstone tree\n  layerstone tree debian:12 --dot")]
pub(crate) struct TreeArguments {
    /// Show only this image and what came from it
    image: Option<ImageRef>,
    /// Print a graph for Graphviz
    #[arg(long)]
    dot: bool,
}

pub(super) fn run(context: &Context, arguments: &TreeArguments) -> Outcome {
    if arguments.dot && context.out.json {
        return Err(usage("tree", "--dot and --json are two formats; ask for one"));
    }
    let nodes = context.project_to_read()?.lineage(arguments.image.as_ref())?;
    Ok(if arguments.dot { graph(&nodes) } else { context.out.show(&nodes) }?)
}

/// A line for each image, below the one that it came from: an only child and the last of several right below, the others
/// branching off.
impl Report for Vec<LineageNode> {
    fn text(&self) -> io::Result<()> {
        let mut children: BTreeMap<ImageId, usize> = BTreeMap::new();
        for parent in self.iter().filter_map(|node| node.parent) {
            *children.entry(parent).or_default() += 1;
        }
        // The columns left of an image's own children.
        let mut columns: BTreeMap<ImageId, String> = BTreeMap::new();
        for (number, node) in self.iter().enumerate() {
            let parent = node.parent.and_then(|parent| Some((parent, children.get_mut(&parent)?)));
            let (branch, column) = if let Some((parent, left)) = parent {
                *left -= 1;
                let column = columns.get(&parent).cloned().unwrap_or_default();
                let is_last = *left == 0;
                if is_last {
                    (column.clone(), column)
                } else {
                    (format!("{column}├─"), format!("{column}│ "))
                }
            } else {
                if number > 0 {
                    Output::line("")?;
                }
                (String::new(), String::new())
            };
            columns.insert(node.id, column);
            let what = match &node.info {
                Some(info) => {
                    let tags: Vec<_> = info.tags.iter().map(ToString::to_string).collect();
                    let tags = if tags.is_empty() { String::new() } else { format!("  {}", tags.join(" ")) };
                    format!("{tags}  +{}  {}", size(node.added_bytes), age(node.created))
                }
                None => format!("  removed  {}", age(node.created)),
            };
            Output::line(&format!("{branch}● {}{what}", node.id))?;
        }
        Ok(())
    }
}

/// The same as a graph in the DOT language.
fn graph(nodes: &[LineageNode]) -> io::Result<()> {
    Output::line("digraph lineage {")?;
    Output::line("  node [shape=box];")?;
    for node in nodes {
        let tags = node.info.iter().flat_map(|info| &info.tags).map(ToString::to_string);
        let label: Vec<_> = tags.chain([node.id.to_string()]).collect();
        let style = if node.info.is_some() { "" } else { ", style=dashed" };
        // Tags and UUIDs have nothing in them that needs an escape; a line break of the label is two characters.
        Output::line(&format!("  \"{}\" [label=\"{}\"{style}];", node.id, label.join("\\n")))?;
        if let Some(parent) = node.parent {
            Output::line(&format!("  \"{parent}\" -> \"{}\";", node.id))?;
        }
    }
    Output::line("}")
}
