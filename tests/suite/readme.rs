//! The README's command-line sessions, run as they stand there, on a real root file system.

use std::process::{Command, Stdio};

use crate::system;

/// The sessions: each command and the lines that it prints. One that is shown in part is left out: `run` has tests of its
/// own for that.
fn sessions() -> Vec<(String, Vec<String>)> {
    let blocks = include_str!("../../README.md").split("```console\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("```").unwrap().0);
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for line in blocks.filter(|block| !block.contains('…')).flat_map(str::lines) {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push((command.to_owned(), Vec::new())),
            None => steps.last_mut().unwrap().1.push(line.to_owned()),
        }
    }
    steps
}

/// A line without what differs from run to run: numbers and their units, ids, columns' widths.
fn essence(line: &str) -> String {
    let word = |word: &str| {
        let is_id = word.len() == 36 && word.bytes().filter(|byte| *byte == b'-').count() == 4;
        let is_unit = matches!(word.trim_end_matches([',', ';']), "B" | "kB" | "MB" | "GB");
        if is_id {
            "ID".to_owned()
        } else if is_unit {
            "BYTES".to_owned()
        } else if word.contains("/workspaces/") {
            "PATH".to_owned()
        } else if word.starts_with("second") {
            "seconds".to_owned()
        } else if word.parse::<f64>().is_ok() {
            "N".to_owned()
        } else {
            word.to_owned()
        }
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_sessions_in_the_readme_are_what_happens() {
    if !system::is_on() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_layerstone"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let shell = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{command} 2>&1")]).current_dir(scratch.path()).env("PATH", &path);
        shell.env("LAYERSTONE_STORE", scratch.path().join("store")).env_remove("LAYERSTONE_PROJECT");
        let output = shell.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    shell(&format!("tar -C '{}' -cf - . | zstd -q -o rootfs.tar.zst", system::debian().display()));
    let steps = sessions();
    assert!(
        steps.iter().any(|(command, _)| command.contains("workspace commit")),
        "both sessions were found"
    );
    for (command, shown) in steps {
        let printed = shell(&command);
        // Notes go to stderr and may come before or after the result.
        let sorted = |lines: &mut dyn Iterator<Item = &str>| {
            let mut lines: Vec<_> = lines.map(essence).collect();
            lines.sort();
            lines
        };
        assert_eq!(
            sorted(&mut printed.lines()),
            sorted(&mut shown.iter().map(String::as_str)),
            "`{command}` prints:\n{printed}"
        );
    }
}
