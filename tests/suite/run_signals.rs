//! Signals that come when the command of a `run` has ended: what it did is kept, and said. Needs root, and what `.ci/run`
//! installs.

use std::cell::Cell;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStderr, Stdio};

use layerstone::{Store, StoreOptions};
use rustix::process::Signal;

use crate::cli::Cli;
use crate::run::{code, image, nothing_is_left, small};
use crate::signals::{PATIENCE, SIGNALS, full_pipe, send, wait_until};

/// A run that has changed its image and whose commit waits for the store, which is given with it.
fn committing(cli: &Cli, words: &[&str]) -> (Child, BufReader<ChildStderr>, Store) {
    let script = "echo text > /new; echo there; read line";
    let words =
        [&["--progress", "plain", "--lock-timeout", "600", "run"], words, &["sh", "-c", script]].concat();
    let mut command = cli.command(&words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "there\n");
    let held = StoreOptions::default().exclusive(true).open(cli.path("store")).unwrap();
    child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    while !line.contains("waiting for process") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it says what it waits for");
    }
    (child, said, held)
}

#[test]
fn a_signal_during_the_commit_of_a_run_keeps_what_the_command_did() {
    let Some(cli) = small() else { return };
    for (signal, name, expected) in SIGNALS {
        let (mut child, mut said, held) = committing(&cli, &["--name", "kept", "--tag", "never", "small"]);
        send(&child, signal);
        drop(held);
        assert_eq!(child.wait().unwrap().code(), Some(expected), "{name}");
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap();
        let last = text.lines().last().unwrap();
        assert!(last.ends_with("is kept in the workspace kept: layerstone workspace commit kept"), "{text}");
        assert_eq!(cli.fails(&["inspect", "never"]).0, 3);
        let made = cli.ok(&["workspace", "commit", "kept", "-q"]);
        assert_eq!(cli.ok(&["cat", made.trim(), "/new"]), "text\n");
        nothing_is_left(&cli);
    }
}

#[test]
fn a_second_signal_during_the_commit_of_a_run_ends_it_at_once() {
    let Some(cli) = small() else { return };
    let (mut child, mut said, held) = committing(&cli, &["small"]);
    send(&child, Signal::INT);
    std::thread::sleep(PATIENCE);
    send(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(143), "it does not wait for the store");
    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    assert!(text.lines().last().unwrap().starts_with("layerstone: SIGTERM: ended at once; "), "{text}");
    drop(held);
    // The workspace ended with its process, and the next run clears it away.
    cli.ok(&["run", "small", "--rm", "--", "sh", "-c", ":"]);
    nothing_is_left(&cli);
}

#[test]
fn a_run_whose_output_nobody_reads_ends_on_a_signal() {
    let Some(cli) = small() else { return };
    // While the command prints, it is the command that ends.
    for (signal, name, expected) in SIGNALS {
        let script = "echo text > /new; while :; do echo line; done";
        let mut command = cli.command(&["run", "small", "--tag", "never", "--", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Writes that are no pages leave room in a full pipe: it is full when nothing comes any more.
        let (length, quiet) = (Cell::new(0), Cell::new(0));
        wait_until("the pipe is full", || {
            let found = rustix::io::ioctl_fionread(child.stdout.as_ref().unwrap()).unwrap();
            quiet.set(if found > 0 && length.replace(found) == found { quiet.get() + 1 } else { 0 });
            quiet.get() > 30
        });
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(expected));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("layerstone: {name}: cancelled; nothing was committed\n"));
        assert_eq!(cli.fails(&["inspect", "never"]).0, 3);
        nothing_is_left(&cli);
    }
    // Once it was committed, the image is there, and is named.
    let base = image(&cli, "small");
    for (number, (signal, name, expected)) in SIGNALS.into_iter().enumerate() {
        let tag = format!("made{number}");
        let script = format!("echo {number} > /new");
        let (reader, writer) = full_pipe();
        let mut command = cli.command(&["run", "-q", "small", "--tag", &tag, "--", "sh", "-c", &script]);
        let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("it is committed", || cli.run(&["inspect", &tag]).status.success());
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), expected);
        drop(reader);
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        let made = image(&cli, &tag);
        assert_eq!(said, format!("layerstone: {name}: image {made} was made\n"));
        assert_ne!(made, base);
        nothing_is_left(&cli);
    }
}
