//! The sessions of the README and of the pages in `docs`, run as they stand there, on a real root file system; and the page of all
//! commands against what the program says.

use std::process::{Command, Stdio};

use crate::system;

/// The sessions: each command and the lines that it prints. One that is shown in part is left out: `run` has tests of its
/// own for that.
fn sessions() -> Vec<(String, Vec<String>)> {
    let pages = [include_str!("../../README.md"), include_str!("../../docs/workspaces.md")];
    let blocks = pages.into_iter().flat_map(|page| page.split("```console\n").skip(1));
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
fn the_sessions_are_what_happens() {
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

/// The page of all commands: the help of each, with the global options once.
#[test]
fn the_page_of_commands_is_what_the_program_says() {
    let mut page = "# Commands\n\nWhat `layerstone help` and `layerstone help COMMAND` print.\n".to_owned();
    add_help(&mut page, &[]);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");
    if std::env::var_os("LAYERSTONE_UPDATE_TRANSCRIPTS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == page,
        "docs/commands.md is not what the program says: write it with LAYERSTONE_UPDATE_TRANSCRIPTS=1"
    );
}

/// Adds the help of a command and of those below it.
fn add_help(page: &mut String, command: &[&str]) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_layerstone"));
    let output = program.arg("help").args(command).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let name = if command.is_empty() { "layerstone".to_owned() } else { command.join(" ") };
    let (own, global) = text.split_once("Global options:").unwrap();
    let examples = global.split_once("\nExamples:").map_or("", |(_, examples)| examples);
    let shown = match command {
        [] => text.clone(),
        _ if examples.is_empty() => own.to_owned(),
        _ => format!("{own}Examples:{examples}"),
    };
    let lines: Vec<_> = shown.trim_end().lines().map(str::trim_end).collect();
    page.push_str(&["\n## ", &name, "\n\n```text\n", &lines.join("\n"), "\n```\n"].concat());
    let commands = own.split_once("Commands:\n").map_or("", |(_, commands)| commands);
    let names = commands.lines().take_while(|line| !line.is_empty());
    for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        add_help(page, &[command, &[name]].concat());
    }
}
