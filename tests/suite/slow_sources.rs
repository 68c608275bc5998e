//! Sources that keep an import waiting, and options that say nothing of a source.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::cli::Cli;
use crate::raw_tar::{archive, file};

/// Imports from a pipe that stays open, once `bytes` were in it; the code and what was said.
fn stalled(cli: &Cli, words: &[&str], bytes: &[u8]) -> (Option<i32>, String) {
    let mut child = cli
        .command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(pipe);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_pipe_that_gives_nothing_is_waited_for_no_longer_than_the_timeout() {
    let cli = Cli::new();
    let tar = archive(&[file("a", "a"), file("b", vec![7; 100_000])]);
    // Nothing, in a header, between members, in a file, before the end mark, and behind it.
    for len in [0, 100, 1024, 3000, tar.len() - 1024, tar.len()] {
        let words = ["import", "-", "--timeout", "0.3", "--tag", "x"];
        let (code, text) = stalled(&cli, &words, &tar[..len]);
        assert_eq!(code, Some(8), "{len}: {text}");
        assert!(text.contains("standard input: takes longer than the limit of 300ms"), "{text}");
        assert!(text.contains("raise it with --timeout"), "{text}");
        assert!(!cli.path("store").exists());
    }
    let (code, text) = stalled(&cli, &["import", "-", "--timeout", "0.3", "--json"], &[]);
    assert!(code == Some(8) && text.contains("\"timed_out\"") || text.contains("timed"), "{text}");
}

#[test]
fn a_named_pipe_without_a_writer_is_waited_for_no_longer_either() {
    let cli = Cli::new();
    cli.tree();
    rustix::fs::mkfifoat(rustix::fs::CWD, cli.path("pipe"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .unwrap();
    for words in [
        &["import", "pipe", "--timeout", "0.3"][..],
        &["import", "tree", "--exclude-from", "pipe", "--timeout", "0.3"],
    ] {
        let (code, text) = cli.fails(words);
        assert!(code == 8 && text.contains("takes longer than the limit of 300ms"), "{code}: {text}");
        // One that has a writer, which writes nothing.
        let begun = Instant::now();
        let _writer = File::options().read(true).write(true).open(cli.path("pipe")).unwrap();
        assert_eq!(cli.fails(words).0, 8);
        assert!(begun.elapsed() < Duration::from_secs(600));
    }
}

#[test]
fn options_that_say_nothing_of_the_source_are_refused_by_name() {
    let cli = Cli::new();
    cli.tree();
    std::fs::write(cli.path("a.tar"), archive(&[file("a", "a")])).unwrap();
    for (source, options) in [
        ("tree", &["--require-end"][..]),
        ("tree", &["--max-metadata-bytes", "1M"]),
        ("a.tar", &["--reread"]),
        ("a.tar", &["--changing", "keep"]),
        ("a.tar", &["--changing", "refuse"]),
        ("a.tar", &["--one-file-system"]),
        ("a.tar", &["--exclude", "a"]),
        ("a.tar", &["--exclude-from", "a.tar"]),
        ("tree", &["--format", "tar"]),
        ("a.tar", &["--format", "dir"]),
    ] {
        let (code, text) = cli.fails(&[&["import", source], options].concat());
        assert!(code == 2 && text.contains(options[0]), "{options:?}: {code}: {text}");
        assert!(!cli.path("store").exists(), "{options:?}");
    }
    let (code, text) = cli.fails(&["import", "tree", "--exclude-from", "tree"]);
    assert!(code == 2 && text.contains("tree is a directory, where a file"), "{code}: {text}");
    cli.ok(&["import", "tree", "--tag", "tree", "--changing", "refuse", "--reread"]);
    let (code, text) = cli.fails(&["commit", "--layer", "tree", "--base", "tree"]);
    assert!(code == 2 && text.contains("tree is a directory, where a file"), "{code}: {text}");
    let mut command = cli.command(&["import", "-"]);
    let output = command.stdin(File::open(cli.path("tree")).unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    cli.ok(&["import", "a.tar", "--require-end", "--max-metadata-bytes", "1M"]);
    let (code, text) = cli.fails(&["commit", "--layer", "a.tar", "--base", "tree", "--changing", "keep"]);
    assert!(code == 2 && text.contains("--changing"), "{code}: {text}");
}

#[test]
fn a_pattern_that_is_not_utf_8_is_refused_with_advice() {
    let cli = Cli::new();
    cli.tree();
    let bytes = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let output = cli.command(&["import", "tree", "--exclude"]).arg(bytes).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && text.contains("put '*' in the place"), "{text}");
    std::fs::write(cli.path("patterns"), b"a\ncaf\xe9\n").unwrap();
    let (code, text) = cli.fails(&["import", "tree", "--exclude-from", "patterns"]);
    assert!(code == 2 && text.contains("line 2") && text.contains("put '*' in the place"), "{text}");
    std::fs::write(cli.path("tree").join(bytes), "").unwrap();
    cli.ok(&["import", "tree", "--tag", "all"]);
    cli.ok(&["import", "tree", "--tag", "less", "--exclude", "caf*"]);
    assert!(cli.ok(&["diff", "all", "less"]).contains("/caf"));
}
