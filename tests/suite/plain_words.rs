//! Refusals and reports in plain words: what was wrong of what was typed, and only advice that helps.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use layerstone::{ErrorKind, GcOptions, Store, Task};
use serde_json::Value;

use crate::cli::Cli;
use crate::run::small;
use crate::signals::Terminal;

fn with_image() -> Cli {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a", "-q"]);
    cli
}

#[test]
fn options_that_exclude_each_other_do_so_in_any_order() {
    let cli = with_image();
    for words in [["--json", "tree", "--dot"], ["tree", "--dot", "--json"], ["tree", "--json", "--dot"]] {
        let output = cli.run(&words);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{words:?}");
        let failure: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert!(failure["message"].as_str().unwrap().contains("--dot and --json"), "{failure}");
    }
}

#[test]
fn a_trial_that_is_cancelled_says_that_nothing_was_changed() {
    let task = Task::new();
    let cli = with_image();
    let store = Store::open(cli.path("store")).unwrap().with_task(&task);
    task.cancel();
    for (dry_run, expected) in [(true, "nothing was changed"), (false, "what it has freed stays freed")] {
        let error = store.collect_garbage(&GcOptions { dry_run, ..GcOptions::default() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(error.message().ends_with(expected), "{error}");
    }
}

#[test]
fn a_project_that_is_to_go_is_not_to_be_made() {
    let cli = with_image();
    let (code, said) = cli.fails(&["project", "rm", "nope"]);
    assert_eq!((code, &*said), (3, "layerstone: project 'nope': no such project\n"));
    let (_, said) = cli.fails(&["project", "limit", "nope", "--max-layer-bytes", "1"]);
    assert!(said.contains("'layerstone project create' makes one"), "{said}");
}

#[test]
fn words_that_are_refused_are_shown_as_they_are() {
    let cli = with_image();
    let refused = |words: &[u8]| {
        let mut command = cli.command(&[]);
        command.args(words.split(|byte| *byte == b' ').map(OsStr::from_bytes));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (words, expected) in [
        // The path may be of any bytes.
        (&b"cat n\xe9 /\xff"[..], r"'n\xe9' is no UTF-8"),
        (b"tag a b\xff", r"'b\xff' is no UTF-8"),
        (b"cat n\nx /a", r"invalid value 'n\nx' for "),
        (b"ls --n\nx", r"unexpected argument '--n\nx' found"),
        (b"n\nx", r"unrecognized subcommand 'n\nx'"),
        (b"import --format n\r\nx y", r"invalid value 'n\r\nx' for "),
    ] {
        let said = refused(words);
        assert!(said.starts_with(&format!("layerstone: {expected}")), "{said}");
    }
}

#[test]
fn descriptions_of_json_are_plain_text() {
    let schema: Value = serde_json::from_str(&Cli::new().ok(&["schema"])).unwrap();
    let mut left = vec![&schema];
    let mut seen = 0;
    while let Some(value) = left.pop() {
        match value {
            Value::Object(properties) => {
                if let Some(Value::String(text)) = properties.get("description") {
                    assert!(!text.contains("](") && !text.contains("[`"), "{text}");
                    seen += 1;
                }
                left.extend(properties.values());
            }
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn a_tar_is_not_read_from_a_terminal() {
    let cli = with_image();
    for words in [&["import", "-"][..], &["import", "/dev/stdin"], &["commit", "--base", "a", "--layer", "-"]]
    {
        let (_terminal, slave) = Terminal::new();
        let output = cli.command(words).stdin(slave).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?} {output:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("terminal"), "{words:?}");
    }
}

/// The command, in a shell that lets no file become larger than a few KiB.
fn limited(cli: &Cli, words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 64; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_layerstone")]).args(words);
    command.env("LAYERSTONE_STORE", cli.path("store")).current_dir(cli.path("")).stdin(Stdio::null());
    command
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_leaves_nothing() {
    let cli = Cli::new();
    cli.tree();
    let mut state = 1_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(1 << 20)
    .collect();
    fs::write(cli.path("tree/large"), bytes).unwrap();
    cli.ok(&["import", "tree", "--tag", "a", "-q"]);
    for words in [&["export", "a", "-o", "a.tar"][..], &["checkout", "a", "copy"]] {
        let output = limited(&cli, words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains("File too large"), "{words:?}: {said}");
        let mut names: Vec<_> =
            fs::read_dir(cli.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["store", "tree"], "{words:?}");
    }
    // To standard output as well.
    let file = File::create(cli.path("out.tar")).unwrap();
    let output = limited(&cli, &["export", "a"]).stdout(file).output().unwrap();
    assert!(output.status.code() == Some(1) && !output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_command_that_is_run_has_the_signal_of_that_limit_as_it_was() {
    let Some(cli) = small() else { return };
    let output = cli.run(&["run", "--rm", "small", "grep", "SigIgn", "/proc/self/status"]);
    let mask = String::from_utf8(output.stdout).unwrap();
    let mask = u64::from_str_radix(mask.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(mask & 1 << 24, 0, "{mask:x}");
}

#[test]
fn a_checkout_that_fails_leaves_no_empty_cache() {
    let cli = with_image();
    let pack = fs::read_dir(cli.path("store/packs")).unwrap().next().unwrap().unwrap().path();
    let sound = fs::read(&pack).unwrap();
    let mut damaged = sound.clone();
    let end = damaged.len() - 1;
    damaged[8..end].fill(0xaa);
    fs::write(&pack, &damaged).unwrap();
    let words = ["checkout", "a", "copy", "--cache", "cache", "--sharing", "hard-link"];
    assert_ne!(cli.run(&words).status.code(), Some(0));
    assert!(!cli.path("cache").exists() && !cli.path("copy").exists());
    // One that was there stays.
    fs::create_dir(cli.path("cache")).unwrap();
    assert_ne!(cli.run(&words).status.code(), Some(0));
    assert!(cli.path("cache").exists());
}

#[test]
fn a_repair_without_names_says_how_its_projects_are_called() {
    let cli = with_image();
    fs::remove_file(cli.path("store/catalog.redb")).unwrap();
    let _ = fs::remove_file(cli.path("store/catalog.dump"));
    let said = String::from_utf8(cli.run(&["repair"]).stdout).unwrap();
    assert!(said.contains(" of recovered-1, made ") && said.contains("'--project recovered-1'"), "{said}");
    assert_eq!(cli.ok(&["--project", "recovered-1", "images", "-a", "-q"]).lines().count(), 1);
}

#[test]
fn help_that_can_not_be_printed_is_a_failure() {
    let cli = Cli::new();
    for words in [&["--help"][..], &["ls", "--help"], &["help"], &["--version"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = cli.command(words).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains("standard output"), "{words:?}: {said}");
    }
}

#[test]
fn the_program_knows_its_commands_under_any_name() {
    let cli = Cli::new();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_layerstone"), cli.path("ls2")).unwrap();
    let output = Command::new(cli.path("ls2")).args(["images", "--filter", "x"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--prefix") && said.contains("Usage: layerstone images"), "{said}");
}

#[test]
fn an_error_shows_every_byte_of_a_path_of_the_host() {
    let cli = Cli::new();
    let name = OsStr::from_bytes(b"a\xffb\n");
    let output = cli.command(&["import"]).arg(name).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with(r"layerstone: a\xffb\n: "), "{said}");
    fs::write(cli.path("").join(name), [7; 2048]).unwrap();
    let output = cli.command(&["import"]).arg(name).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with(r"layerstone: a\xffb\n: "), "a tar: {said}");
}
