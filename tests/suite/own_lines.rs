//! What `run` says beside what its command prints: lines of their own, wherever the command left off. Needs root, and what
//! `.ci/run` installs.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Stdio;

use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use crate::cli::Cli;
use crate::run::{code, command, image, small};
use crate::signals::Terminal;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn what_is_said_on_standard_error_begins_a_line() {
    let Some(cli) = small() else { return };
    let base = image(&cli, "small");
    for runtime in ["bubblewrap", "crun"] {
        for script in ["printf text", "printf text >&2", "echo a; printf text >&2", "echo text >&2; printf b"]
        {
            let refused = format!("echo 12345 > /new; {script}");
            let words = ["--json", "--max-layer-bytes", "1", "--", "sh", "-c", &refused];
            let output = command(&cli, runtime, &words).output().unwrap();
            let last = text(&output.stderr).lines().last().unwrap();
            let failure: Value =
                serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {output:?}"));
            assert_eq!((code(&output), &failure["error"]), (125, &"quota_exceeded".into()), "{script}");
            let output = command(&cli, runtime, &["--", "sh", "-c", script]).output().unwrap();
            let said = text(&output.stderr);
            assert!(said.lines().last().unwrap().starts_with("unchanged: "), "{script}: {said}");
            assert_eq!(text(&output.stdout).lines().last().unwrap(), base, "{script}");
        }
    }
    // In one file each is one, too, in the order in which it was printed.
    let log = File::create(cli.path("log")).unwrap();
    let mut both = cli.command(&["run", "small", "sh", "-c", "printf a; echo b >&2; printf c >&2"]);
    both.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
    let log = fs::read_to_string(cli.path("log")).unwrap();
    let lines: Vec<_> = log.lines().collect();
    assert!(
        matches!(&lines[..], ["ab", "c", said, last] if said.starts_with("unchanged") && *last == base),
        "{log}"
    );
    // With --json both are in one order.
    let script = "echo 1; echo 2 >&2; echo 3; echo 4 >&2; printf 5";
    let output = cli.run(&["run", "--json", "--rm", "small", "sh", "-c", script]);
    assert_eq!(text(&output.stderr), "1\n2\n3\n4\n5");
}

/// What a terminal of a width (0 if it is not known) gets.
fn on_terminal(cli: &Cli, width: u16, script: &str) -> String {
    let (mut terminal, slave): (Terminal, OwnedFd) = Terminal::new();
    let size = Winsize { ws_row: 24, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&slave, size).unwrap();
    let mut command = cli.command(&["run", "-q", "small", "sh", "-c", script]);
    command.env("TERM", "xterm").stdin(Stdio::null());
    command.stdout(slave.try_clone().unwrap()).stderr(slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    terminal.read_until(None);
    assert!(child.wait().unwrap().success());
    terminal.text
}

#[test]
fn a_terminal_gets_no_empty_line() {
    let Some(cli) = small() else { return };
    let base = image(&cli, "small");
    // From the begin of a line as many spaces as it has stay in it; from anywhere else they lead to the next.
    let spaces = format!("{}\r\u{1b}[K", " ".repeat(20));
    assert_eq!(on_terminal(&cli, 20, ":"), format!("{spaces}{base}\r\n"));
    assert_eq!(on_terminal(&cli, 20, "printf text"), format!("text{spaces}{base}\r\n"));
    assert_eq!(on_terminal(&cli, 0, ":"), format!("{base}\r\n"));
}

#[test]
fn what_is_mounted_over_the_image_is_not_looked_up_in_it() {
    let Some(cli) = small() else { return };
    symlink("/dev/shm", cli.path("tree/shared")).unwrap();
    symlink("/proc/self/root/bin/ls", cli.path("tree/bin/link")).unwrap();
    let script = cli.path("tree/bin/script");
    fs::write(&script, "#!/proc/self/root/bin/sh\necho script\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    cli.ok(&["import", "tree", "--tag", "small", "-q"]);
    for runtime in ["bubblewrap", "crun"] {
        let run = |directory: &str, words: &[&str]| {
            let words = [&["--rm", "-w", directory, "--"], words].concat();
            let output = command(&cli, runtime, &words).output().unwrap();
            (code(&output), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
        };
        for directory in ["/proc", "/dev", "/dev/shm", "/sys", "/sys/kernel", "/proc/self"] {
            assert_eq!(run(directory, &["sh", "-c", ":"]).0, 0, "{runtime} {directory}");
        }
        assert_eq!(run("/shared", &["sh", "-c", "pwd -P"]).1, "/dev/shm\n", "{runtime}");
        assert_eq!(run("/proc", &["../bin/sh", "-c", "echo a"]).1, "a\n", "{runtime}");
        // What may be any program of the host is none for a command.
        for words in [&["/proc/self/root/bin/ls", "-d", "/"][..], &["link", "-d", "/"], &["script"]] {
            let (code, _, said) = run("/", words);
            assert!(
                code == 126 && said.contains("leads through /proc"),
                "{runtime} {words:?}: {code} {said}"
            );
        }
        let (code, _, said) = run("/proc/nowhere", &["sh"]);
        assert!(code == 125 && said.contains("/proc/nowhere"), "{runtime}: {code} {said}");
        assert_eq!(run("/", &["/proc/nope"]).0, 127, "{runtime}");
    }
}

#[test]
fn what_a_script_or_a_program_lacks_is_named() {
    let Some(cli) = small() else { return };
    let executable = |name: &str, bytes: &[u8]| {
        let path = cli.path("tree/bin").join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    executable("crlf", b"#!/bin/sh\r\necho text\r\n");
    executable("bytes", b"#! /bin/\xe9\x1b\n");
    executable("outer", b"#!/bin/crlf\n");
    let mut own = fs::read("/bin/sh").unwrap();
    let loader = own.windows(4).position(|bytes| bytes == b"/lib").unwrap();
    own[loader + 1] = b'L';
    executable("loaded", &own);
    cli.ok(&["import", "tree", "--tag", "small", "-q"]);
    for (name, expected) in [
        (
            "crlf",
            r"'crlf' names '/bin/sh\r' in its first line, which is not in the image; end its lines with LF alone",
        ),
        ("outer", r"'outer' is run by '/bin/crlf', which names '/bin/sh\r' in its first line, which"),
        ("bytes", r"'bytes' names '/bin/\xe9\u{1b}' in its first line, which"),
        ("loaded", "'loaded' needs the loader '/Lib"),
    ] {
        let output = cli.run(&["run", "small", name]);
        assert_eq!(code(&output), 127, "{output:?}");
        assert!(text(&output.stderr).starts_with(&format!("layerstone: {expected}")), "{output:?}");
    }
}
