//! What the code's structure promises: dependencies point down, files stay readable.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer of the crate, top first: a module uses modules of lower layers, and those beside it where `BESIDE` says so.
const LAYERS: &[&[&str]] = &[
    &["maintenance"],
    &["store"],
    &["ledger"],
    &["engine"],
    &["ingest"],
    &["host", "archive", "layer"],
    &["tree", "catalog"],
    &["pack"],
    &["disk"],
    &[
        "format", "chunk", "path", "id", "name", "error", "object", "time", "threads", "task", "json",
        "sync", "layout",
    ],
];

/// Modules without any I/O: they reach objects through a trait and files not at all.
const PURE: &[&str] = &["tree", "layer", "chunk", "format", "path", "id", "name", "error", "object", "json"];
const IMPURE_WORDS: &[&str] = &["std::fs", "rustix", "redb", "crate::disk", "crate::host", "SystemTime"];

const MAX_LINES: usize = 600;

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
                found.push((path, text[..tests].to_owned()));
            }
        }
    }
    assert!(found.len() > 50, "the sources were found");
    found
}

/// The crate's module that a file belongs to.
fn module(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = inside.iter().next().unwrap().to_string_lossy();
    let name = first.strip_suffix(".rs").unwrap_or(&first).to_owned();
    (!matches!(name.as_str(), "lib" | "bin")).then_some(name)
}

fn is_test_file(path: &Path) -> bool {
    path.iter()
        .any(|part| part == "tests" || part == "tests.rs" || part == "testing.rs" || part == "memory.rs")
}

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .unwrap_or_else(|| panic!("'{module}' has no layer"))
}

#[test]
fn dependencies_point_down() {
    for (path, text) in sources() {
        let Some(from) = module(&path).filter(|_| !is_test_file(&path)) else { continue };
        for (index, _) in text.match_indices("crate::") {
            let rest = &text[index + "crate::".len()..];
            let to: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if to.is_empty() || to == from || !LAYERS.concat().contains(&to.as_str()) {
                continue;
            }
            // The pure modules at the bottom know each other; `error` names what everything is about.
            let is_below =
                layer(&from) < layer(&to) || (layer(&from) == layer(&to) && layer(&to) == LAYERS.len() - 1);
            assert!(is_below, "{}: '{from}' uses '{to}', which is not below it", path.display());
        }
    }
}

#[test]
fn pure_modules_do_no_input_or_output() {
    for (path, text) in sources() {
        let Some(module) = module(&path).filter(|_| !is_test_file(&path)) else { continue };
        if PURE.contains(&module.as_str()) {
            for word in IMPURE_WORDS {
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                assert!(code.clone().all(|line| !line.contains(word)), "{} uses {word}", path.display());
            }
        }
        let knows_redb = text.contains("redb::");
        assert!(!knows_redb || module == "catalog", "{}: only 'catalog' knows redb", path.display());
    }
}

#[test]
fn files_stay_readable() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{}: {lines} lines; split it", path.display());
    }
}
