//! Results as text.

pub(crate) mod damage;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use layerstone::id::ImageId;
use layerstone::path::escape_bytes;
use layerstone::{
    CheckoutReport, Difference, DifferenceKind, EntryInfo, EntryKind, ImageInfo, ImageKind, LayerInfo,
    LineageNode, Moment, Scope, WriteReport,
};

use crate::output::{Output, count, size};

/// How long ago a moment was, in its largest unit.
pub(crate) fn age(moment: Moment) -> String {
    let seconds = Moment::now().unix_ms().saturating_sub(moment.unix_ms()) / 1000;
    let units = [
        (604_800 * 2, 604_800, "weeks"),
        (86_400 * 2, 86_400, "days"),
        (7200, 3600, "hours"),
        (120, 60, "minutes"),
    ];
    match units.iter().find(|(from, _, _)| seconds >= *from) {
        Some((_, unit, name)) => format!("{} {name} ago", seconds / unit),
        None => format!("{} ago", count(seconds, "second", "seconds")),
    }
}

/// One row for each tag.
pub(crate) fn images(images: &[ImageInfo]) -> io::Result<()> {
    let mut rows = Vec::new();
    for image in images {
        let mut tags: Vec<String> = image.tags.iter().map(ToString::to_string).collect();
        if tags.is_empty() {
            tags.push("-".to_owned());
        }
        let scope = if image.scope == Scope::Public { "public" } else { "project" };
        let kind = if image.kind == ImageKind::Imported { "imported" } else { "committed" };
        for tag in tags {
            let (age, size) = (age(image.created), size(image.bytes));
            rows.push(vec![tag, image.id.to_string(), scope.to_owned(), kind.to_owned(), age, size]);
        }
    }
    Output::table(&["TAG", "IMAGE", "SCOPE", "KIND", "CREATED", "SIZE"], &[5], rows)
}

/// A line for each image, below the one that it came from: an only child and the last of several right below, the others
/// branching off.
pub(crate) fn lineage(nodes: &[LineageNode]) -> io::Result<()> {
    let mut children: BTreeMap<ImageId, usize> = BTreeMap::new();
    for parent in nodes.iter().filter_map(|node| node.parent) {
        *children.entry(parent).or_default() += 1;
    }
    // The columns left of an image's own children.
    let mut columns: BTreeMap<ImageId, String> = BTreeMap::new();
    for (number, node) in nodes.iter().enumerate() {
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

/// The same as a graph in the DOT language.
pub(crate) fn lineage_graph(nodes: &[LineageNode]) -> io::Result<()> {
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

/// Free text, escaped as paths are: what it shows stands for one text only.
fn escaped(text: &str) -> String {
    escape_bytes(text.as_bytes())
}

/// The steps of a history.
pub(crate) fn history(layers: &[LayerInfo]) -> io::Result<()> {
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
    Output::table(&header, &[4], layers.iter().map(row).collect())
}

/// One line for a path that differs.
pub(crate) fn difference(difference: &Difference) -> io::Result<()> {
    let sign = match difference.kind {
        DifferenceKind::Added => 'A',
        DifferenceKind::Removed => 'D',
        DifferenceKind::Modified => 'M',
    };
    let what = difference.what.join(",");
    let what = if what.is_empty() { what } else { format!("  ({what})") };
    Output::line(&format!("{sign} {}{what}", difference.path))
}

/// A directory's entries, as `ls -l` shows them.
pub(crate) fn entries(entries: &[EntryInfo]) -> io::Result<()> {
    let row = |entry: &EntryInfo| {
        let mut name = entry.path.to_string();
        if let Some(target) = &entry.target {
            name = format!("{name} -> {target}");
        }
        if let Some(first) = &entry.hard_link_to {
            name = format!("{name} (hard link to {first})");
        }
        let modified = u64::try_from(entry.mtime_seconds).ok().and_then(|seconds| seconds.checked_mul(1000));
        let modified = modified
            .map_or_else(|| entry.mtime_seconds.to_string(), |ms| Moment::from_unix_ms(ms).to_string());
        let owner = format!("{}:{}", entry.uid, entry.gid);
        vec![mode(entry), owner, entry.size.to_string(), modified, name]
    };
    Output::table(&["MODE", "OWNER", "SIZE", "MODIFIED", "PATH"], &[2], entries.iter().map(row).collect())
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

/// What an import or a commit did, and the UUID last.
pub(crate) fn written(report: &WriteReport) -> io::Result<()> {
    Output::line(&summary(report))?;
    Output::line(&report.image.to_string())
}

/// The same in one line, without the image.
pub(crate) fn summary(report: &WriteReport) -> String {
    if report.is_new {
        format!(
            "{}, {} in files; {} read, {} new, {} stored",
            paths(report.entries),
            size(report.bytes),
            report.examined,
            size(report.new_bytes),
            size(report.stored_bytes)
        )
    } else {
        "unchanged: this image was there already".to_owned()
    }
}

/// What a checkout wrote.
pub(crate) fn checked_out(report: &CheckoutReport, directory: &Path) -> io::Result<()> {
    let directory = escape_bytes(directory.as_os_str().as_bytes());
    let shared = match report.files_shared {
        0 => String::new(),
        number => format!("; {} from the cache", count(number, "file", "files")),
    };
    let (paths, size) = (paths(report.entries), size(report.bytes));
    Output::line(&format!("{paths}, {size} in files, in {directory}{shared}"))
}

/// What a checkout left out, in one line each.
pub(crate) fn left_out(report: &CheckoutReport) {
    let lines = [
        (report.owners_unset, ["has", "have"], "another owner: only root can give files away"),
        (
            report.modes_unset,
            ["has", "have"],
            "another mode: it was not allowed, or not safe with another owner",
        ),
        (
            report.xattrs_unset,
            ["lacks", "lack"],
            "extended attributes: not allowed, not supported, or only with --all-xattrs",
        ),
        (report.omitted, ["was", "were"], "not made: device nodes need --devices and root"),
    ];
    for (number, [one, many], text) in lines.iter().filter(|(number, ..)| *number > 0) {
        Output::note(&format!("{} {} {text}", paths(*number), if *number == 1 { one } else { many }));
    }
    if lines.iter().any(|(number, ..)| *number > 0) {
        Output::note("A commit takes these from the image, not for changes.");
    }
}

fn paths(number: u64) -> String {
    count(number, "path", "paths")
}
