//! `ls`: lists a directory of an image.

use std::io;

use clap::Args;
use layerstone::path::escape_bytes;
use layerstone::{EntryInfo, EntryKind, ImageRef, TreePath};

use super::{Context, Outcome};
use crate::output::{Output, Report};
use crate::values::{path_bytes, tree_path};

/// List a directory of an image
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  layerstone ls debian:12\n  layerstone ls debian:12 /etc")]
pub(crate) struct LsArguments {
    /// Image, by UUID, tag or name
    image: ImageRef,
    /// Path in the image
    #[arg(default_value = "/", value_parser = tree_path())]
    path: TreePath,
    /// Name the path by its bytes in hexadecimal instead, which JSON has as `path_bytes`
    #[arg(long, value_name = "HEX", value_parser = path_bytes, conflicts_with = "path")]
    path_bytes: Option<TreePath>,
}

pub(super) fn run(context: &Context, arguments: &LsArguments) -> Outcome {
    let path = arguments.path_bytes.as_ref().unwrap_or(&arguments.path);
    Ok(context.out.show(&context.project_to_read()?.find(&arguments.image)?.list(path)?)?)
}

/// As `ls -l` shows them.
impl Report for Vec<EntryInfo> {
    fn text(&self) -> io::Result<()> {
        let row = |entry: &EntryInfo| {
            let mut name = entry.path.to_string();
            if let Some(target) = &entry.target {
                name = format!("{name} -> {}", escape_bytes(target));
            }
            if let Some(first) = &entry.hard_link_to {
                name = format!("{name} (hard link to {first})");
            }
            let modified = jiff::Timestamp::from_second(entry.mtime_seconds)
                .map_or_else(|_| entry.mtime_seconds.to_string(), |modified| modified.to_string());
            let owner = format!("{}:{}", entry.uid, entry.gid);
            vec![mode(entry), owner, entry.size.to_string(), modified, name]
        };
        Output::table(&["MODE", "OWNER", "SIZE", "MODIFIED", "PATH"], &[2], self.iter().map(row).collect())
    }
}

fn mode(entry: &EntryInfo) -> String {
    let kind = match entry.kind {
        EntryKind::Directory => 'd',
        EntryKind::File => '-',
        EntryKind::Symlink => 'l',
        EntryKind::CharDevice => 'c',
        EntryKind::BlockDevice => 'b',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
    };
    let mut text = String::from(kind);
    let classes = [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')];
    for (shift, special, letter) in classes {
        let bits = entry.mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (entry.mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}
