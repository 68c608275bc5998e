//! Text that the program prints and takes: of images, of others, of a wrong command line.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{Cli, last_line};

/// Clears a terminal, begins a line, and does both again by what is no ASCII.
const HOSTILE: &str = "x\u{1b}[2J\nforged\u{9b}2J\u{2028}\u{202e}\\";

fn assert_harmless(text: &str) {
    let is_active = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{2028}' | '\u{202e}'));
    assert!(!text.contains(is_active), "{text:?}");
    assert!(text.lines().all(|line| !line.starts_with("forged")), "{text:?}");
}

#[test]
fn what_others_wrote_does_nothing_to_a_terminal() {
    let cli = Cli::new();
    cli.tree();
    std::fs::write(cli.path("tree").join(HOSTILE), "").unwrap();
    std::os::unix::fs::symlink(HOSTILE, cli.path("tree/link")).unwrap();
    cli.ok(&["import", "tree", "--tag", "a", "-m", HOSTILE]);
    let history = cli.ok(&["history", "a"]);
    assert_eq!(history.lines().count(), 2, "{history}");
    let shown = r"x\u{1b}[2J\nforged\u{9b}2J\u{2028}\u{202e}\\";
    assert!(history.contains(shown), "{history}");
    std::fs::write(cli.path("tree/issue"), "two\n").unwrap();
    cli.ok(&["import", "tree", "--tag", "b"]);
    let texts = [
        history,
        cli.ok(&["inspect", "a"]),
        cli.ok(&["--json", "history", "a"]),
        cli.ok(&["ls", "a"]),
        cli.ok(&["--json", "ls", "a"]),
        cli.ok(&["diff", "a", "b"]),
        cli.ok(&["checkout", "a", HOSTILE]),
        cli.fails(&["cat", "a", HOSTILE]).1,
        cli.fails(&["--json", "cat", "a", HOSTILE]).1,
        cli.fails(&["cat", HOSTILE, "x"]).1,
        cli.fails(&["tag", "a", HOSTILE]).1,
        cli.fails(&["import", HOSTILE]).1,
        cli.fails(&["--store", &format!("tree/issue/{HOSTILE}"), "images"]).1,
        cli.fails(&[HOSTILE]).1,
    ];
    for text in &texts {
        assert_harmless(text);
    }
    for words in [["inspect", "a"], ["history", "a"]] {
        let mut words = words.to_vec();
        words.push("--json");
        let value: serde_json::Value = serde_json::from_str(&cli.ok(&words)).unwrap();
        assert_eq!(value[0]["comment"], HOSTILE, "JSON is exact");
    }
}

#[test]
fn a_wrong_command_line_is_refused_as_any_other_failure() {
    let cli = Cli::new();
    let cases: &[(&[&str], &str, Option<&str>)] = &[
        (&["rm"], "required arguments were not provided: <IMAGES>...", Some("rm [OPTIONS] <IMAGES>...")),
        (&["ls", "--bogus", "x"], "unexpected argument '--bogus'", Some("ls [OPTIONS] <IMAGE> [PATH]")),
        (&["imort", "x"], "a similar subcommand exists: 'import'", Some("[OPTIONS] <COMMAND>")),
        (&["import", "--format", "zip", "x"], "'zip'", None),
        (&["cat", "x", "../y"], "'..' component", None),
        (&["cat", "x y", "z"], "position 2", None),
    ];
    for (words, text, usage) in cases {
        let (code, said) = cli.fails(words);
        assert_eq!(code, 2, "{words:?}");
        let (first, rest) = said.trim_end().split_once('\n').unwrap_or((said.trim_end(), ""));
        assert!(first.starts_with("layerstone: ") && first.contains(text), "{words:?}: {said}");
        assert_eq!(rest, usage.map(|usage| format!("Usage: layerstone {usage}")).unwrap_or_default());
        let words = [&["--json"], *words].concat();
        let output = cli.run(&words);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
        let value: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(value["error"], "invalid", "{words:?}");
        assert_eq!(format!("layerstone: {}", value["message"].as_str().unwrap()), first);
    }
    for words in [&["--help"][..], &["--json", "help"], &["rm", "--help"], &["--version"]] {
        assert!(cli.ok(words).contains("layerstone"), "{words:?}");
    }
}

#[test]
fn paths_that_are_not_utf8_are_taken_as_they_are() {
    let cli = Cli::new();
    let odd = OsStr::from_bytes(b"latin-\xe9");
    let directory = cli.path("tree").join(odd);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(odd), "bytes\n").unwrap();
    cli.ok(&["import", "tree", "--tag", "a"]);
    let read = cli.command(&["cat", "a"]).arg(Path::new(odd).join(odd)).output().unwrap();
    assert_eq!(read.stdout, b"bytes\n");
    let listed = cli.command(&["ls", "a"]).arg(odd).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains(r"/latin-\xe9/latin-\xe9"));
}

#[test]
fn lists_of_one_and_lists_of_ids() {
    let cli = Cli::new();
    std::fs::create_dir(cli.path("tree")).unwrap();
    let imported = cli.ok(&["import", "tree", "--tag", "a"]);
    assert!(imported.starts_with("1 path, "), "{imported}");
    assert!(cli.ok(&["checkout", "a", "work"]).starts_with("1 path, "));
    let ids: Vec<String> = serde_json::from_str(&cli.ok(&["images", "-q", "--json"])).unwrap();
    assert_eq!(ids, [last_line(&imported)]);
}

#[test]
fn a_message_that_is_not_used_is_not_dropped_silently() {
    let cli = Cli::new();
    cli.tree();
    let first = cli.run(&["import", "tree", "--tag", "a", "-m", "first"]);
    assert_eq!(first.stderr, b"");
    cli.ok(&["checkout", "a", "work"]);
    for words in [&["import", "tree", "-m", "second"][..], &["import", "tree", "-q", "-m", "second"]] {
        let output = cli.run(words);
        assert!(output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.lines().count() == 1 && said.contains("was there already"), "{words:?}: {said}");
    }
    let output = cli.run(&["commit", "work", "-m", "second", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["is_new"], output.stderr.as_slice()), (&false.into(), &b""[..]));
    assert_eq!(cli.run(&["import", "tree"]).stderr, b"");
    assert!(cli.ok(&["history", "a"]).contains("first"));
}
