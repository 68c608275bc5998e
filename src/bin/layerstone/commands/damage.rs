//! What is damaged and what that costs, as text.

use std::io;

use layerstone::{DamagedImage, Error, TagName};

use crate::output::{Output, count};

/// Lines of one kind; what comes after them is in the JSON.
const LINES: usize = 20;

/// What is damaged.
pub(super) fn faults(faults: &[Error], all: u64) -> io::Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    Output::line("Damaged:")?;
    some_lines(faults, all, |fault| Output::line(&format!("  {fault}")))
}

/// The first of many things, and how many more there are.
pub(super) fn some_lines<T>(
    things: &[T],
    all: u64,
    mut each: impl FnMut(&T) -> io::Result<()>,
) -> io::Result<()> {
    things.iter().take(LINES).try_for_each(&mut each)?;
    let left = all.saturating_sub(things.len().min(LINES) as u64);
    if left > 0 {
        Output::line(&format!("  … and {left} more"))?;
    }
    Ok(())
}

/// An image and its paths that are lost.
pub(super) fn damaged_image(image: &DamagedImage) -> io::Result<()> {
    let tags: Vec<_> = image.tags.iter().map(TagName::as_str).collect();
    let tags = if tags.is_empty() { String::new() } else { format!(" ({})", tags.join(", ")) };
    let paths = count(image.lost_paths, "path", "paths");
    Output::line(&format!("  image {}{tags} of {}: {paths}", image.image, image.project))?;
    if let Some(cause) = &image.lost_history {
        Output::line(&format!("    its history: {cause}"))?;
    }
    let mut told = 0;
    for lost in image.lost.iter().take(LINES) {
        let following = match lost.paths {
            1 => String::new(),
            paths => format!(" and {} after it", count(paths - 1, "path", "paths")),
        };
        Output::line(&format!("    {}{following}: {}", lost.path, lost.cause.message()))?;
        told += lost.paths;
    }
    if image.lost_paths > told {
        Output::line(&format!("    … and {} more", count(image.lost_paths - told, "path", "paths")))?;
    }
    Ok(())
}
