//! What the benchmarks measure on.

use std::path::{Path, PathBuf};

use layerstone::{EntryKind, Image, TreePath};

/// Files of the generated tree; sizes follow a real root file system's: many small, few large.
const FILES: usize = 2_000;

/// The tree to measure on: generated, or `LAYERSTONE_BENCH_TREE`.
pub(crate) fn tree(scratch: &Path) -> PathBuf {
    if let Some(tree) = std::env::var_os("LAYERSTONE_BENCH_TREE") {
        return tree.into();
    }
    let root = scratch.join("tree");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for file in 0..FILES {
        let folder = root.join(format!("d{}", file / 50));
        std::fs::create_dir_all(&folder).unwrap();
        let size = if file % 50 == 0 { 500_000 } else { 200 + (file * 37) % 8_000 };
        let bytes: Vec<u8> = (0..size)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Five random bits a byte: compresses about as well as programs do.
                (state >> 59) as u8 + b'0'
            })
            .collect();
        std::fs::write(folder.join(format!("f{file}")), bytes).unwrap();
    }
    root
}

/// Files of up to 4 KiB that are not in their entries.
#[allow(dead_code, reason = "not every benchmark looks for them")]
pub(crate) fn small_files(image: &Image) -> Vec<TreePath> {
    let mut small = Vec::new();
    let mut pending = vec![TreePath::root()];
    while let Some(directory) = pending.pop() {
        for entry in image.list(&directory).unwrap() {
            match entry.kind {
                EntryKind::Directory => pending.push(entry.path),
                EntryKind::File if (100..=4096).contains(&entry.size) => small.push(entry.path),
                _ => {}
            }
        }
    }
    small
}
