//! Signals and progress of the program: what it does is undone, said in one line, and ends with the signal's exit code.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use layerstone::StoreOptions;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::cli::Cli;
use crate::run::small;

pub(crate) const SIGNALS: [(Signal, &str, i32); 3] =
    [(Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143), (Signal::HUP, "SIGHUP", 129)];
/// After so long a further signal is a wish of its own.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1_200);
/// The bits of SIGINT and SIGTERM.
const HANDLED: u64 = 1 << 1 | 1 << 14;

pub(crate) fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
}

pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}");
}

/// Starts the program, which then waits for signals.
fn start(command: &mut Command) -> Child {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_handlers(&child);
    child
}

fn wait_for_handlers(child: &Child) {
    wait_until("signals are handled", || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() & HANDLED == HANDLED
    });
}

/// A command that waits for the store, however long another has it.
fn patient(cli: &Cli, words: &[&str]) -> Command {
    cli.command(&[&["--lock-timeout", "600"], words].concat())
}

/// Waits for the end before it reads any of the output: what is read could be gone on with.
fn finish(mut child: Child) -> Output {
    child.wait().unwrap();
    child.wait_with_output().unwrap()
}

fn assert_stopped(what: &str, output: &Output, name: &str, code: i32) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{what}: {said}");
    assert_eq!(said, format!("layerstone: {name}: cancelled; nothing was changed\n"), "{what}");
}

/// The same of what its reader has got in part, and can't be taken back.
fn assert_cut_short(words: &[&str], output: &Output, name: &str, code: i32) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    assert_eq!(
        said,
        format!("layerstone: {name}: cancelled; what was written is not complete\n"),
        "{words:?}"
    );
}

/// Stops a command that is under way with each signal in turn.
fn stop(what: &str, start: impl Fn() -> Child) {
    for (signal, name, code) in SIGNALS {
        let child = start();
        send(&child, signal);
        assert_stopped(what, &finish(child), name, code);
    }
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn fifo(cli: &Cli) -> PathBuf {
    let path = cli.path("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    path
}

/// A store with an image `base` of many files.
fn many() -> Cli {
    let cli = Cli::new();
    for folder in 0..20 {
        let folder = cli.path("tree").join(folder.to_string());
        fs::create_dir_all(&folder).unwrap();
        for file in 0..150 {
            fs::write(folder.join(file.to_string()), vec![b'x'; 3_000]).unwrap();
        }
    }
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    cli
}

#[test]
fn every_command_that_waits_for_the_store_ends_on_a_signal() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    let held = StoreOptions::default().exclusive(true).open(cli.path("store")).unwrap();
    let before = names(&cli.path(""));
    let commands: [&[&str]; 12] = [
        &["images"],
        &["import", "tree"],
        &["checkout", "base", "copy"],
        &["export", "base", "-o", "base.tar"],
        &["cat", "base", "/issue"],
        &["tag", "base", "other"],
        &["rm", "base"],
        &["workspace", "create", "base"],
        &["run", "base", "--", "true"],
        &["gc"],
        &["verify"],
        &["repair"],
    ];
    for (words, (signal, name, code)) in commands.iter().zip(SIGNALS.iter().cycle()) {
        let child = start(&mut patient(&cli, words));
        send(&child, *signal);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(*code), "{words:?}: {said}");
        let is_line = said.starts_with(&format!("layerstone: {name}: ")) && said.lines().count() == 1;
        assert!(is_line && said.contains("cancelled; "), "{words:?}: {said}");
        assert_eq!(names(&cli.path("")), before, "{words:?}");
    }
    let child = start(&mut patient(&cli, &["--json", "import", "tree"]));
    send(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((output.status.code(), &said["error"]), (Some(130), &"cancelled".into()));
    drop(held);
    assert_eq!(cli.ok(&["images", "-q"]).lines().count(), 1);
}

#[test]
fn a_read_of_a_pipe_that_gives_nothing_ends_on_a_signal() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    let mut tar = cli.run(&["export", "base"]).stdout;
    tar.truncate(1024);
    for words in [&["import", "-"][..], &["commit", "--base", "base", "--layer", "-"]] {
        for (signal, name, code) in SIGNALS {
            let (reader, mut writer) = std::io::pipe().unwrap();
            writer.write_all(&tar).unwrap();
            let child = start(cli.command(words).stdin(reader.try_clone().unwrap()));
            wait_until("all of it was read", || rustix::io::ioctl_fionread(&reader).unwrap() == 0);
            send(&child, signal);
            assert_stopped(words[0], &finish(child), name, code);
        }
    }
    let fifo = fifo(&cli);
    stop("a pipe that nobody writes to", || start(&mut cli.command(&["import", "fifo"])));
    let writer = File::options().read(true).write(true).open(&fifo).unwrap();
    stop("a pipe that somebody could write to", || start(&mut cli.command(&["import", "fifo"])));
    let words = ["import", "tree", "--exclude-from", "fifo"];
    stop("patterns from a pipe", || start(&mut cli.command(&words)));
    drop(writer);
    assert_eq!(cli.ok(&["images", "-a", "-q"]).lines().count(), 1);
    cli.ok(&["verify"]);
}

#[test]
fn a_write_to_a_pipe_that_nobody_reads_ends_on_a_signal() {
    let cli = Cli::new();
    cli.tree();
    fs::write(cli.path("tree/large"), vec![7; 1 << 20]).unwrap();
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    for words in [&["export", "base"][..], &["cat", "base", "/large"]] {
        for (signal, name, code) in SIGNALS {
            let child = start(&mut cli.command(words));
            let pipe = child.stdout.as_ref().unwrap();
            wait_until("the pipe is full", || rustix::io::ioctl_fionread(pipe).unwrap() >= 60_000);
            send(&child, signal);
            assert_cut_short(words, &finish(child), name, code);
        }
    }
    fifo(&cli);
    stop("a pipe that nobody has opened", || start(&mut cli.command(&["export", "base", "-o", "fifo"])));
    assert_eq!(names(&cli.path("")), ["fifo", "store", "tree"]);
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let cli = Cli::new();
    fifo(&cli);
    let program = env!("CARGO_BIN_EXE_layerstone");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" import fifo", program]);
    command.current_dir(cli.path("")).env("LAYERSTONE_STORE", cli.path("store"));
    let child = start(&mut command);
    send(&child, Signal::HUP);
    send(&child, Signal::TERM);
    assert_stopped("nohup", &finish(child), "SIGTERM", 143);
}

#[test]
fn who_presses_ctrl_c_twice_leaves_nothing_either() {
    let cli = many();
    for (signal, name, code) in SIGNALS {
        let mut stopped = 0;
        while stopped < 2 {
            let child = met_while_it_writes(&cli, &["checkout", "base", "copy"], "copy");
            (0..3).for_each(|_| send(&child, signal));
            let output = child.wait_with_output().unwrap();
            if !output.status.success() {
                assert_stopped("checkout", &output, name, code);
                assert_eq!(names(&cli.path("")), ["store", "tree"]);
                stopped += 1;
            }
            let _ = fs::remove_dir_all(cli.path("copy"));
        }
    }
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one_wish() {
    let cli = Cli::new();
    fifo(&cli);
    let mut command = Command::new("timeout");
    command.args(["-s", "INT", "3", env!("CARGO_BIN_EXE_layerstone"), "import", "fifo"]);
    command.current_dir(cli.path("")).env("LAYERSTONE_STORE", cli.path("store"));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "layerstone: SIGINT: cancelled; nothing was changed\n");
}

/// A pipe that takes no byte more.
pub(crate) fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while (&writer).write(&[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// Where even saying so takes for ever.
#[test]
fn a_second_signal_ends_the_program_at_once() {
    let cli = Cli::new();
    fifo(&cli);
    let (reader, writer) = full_pipe();
    let mut child = cli.command(&["import", "fifo"]).stderr(writer).spawn().unwrap();
    wait_for_handlers(&child);
    send(&child, Signal::INT);
    std::thread::sleep(PATIENCE);
    assert!(child.try_wait().unwrap().is_none(), "it waits for somebody to read");
    send(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(reader);
}

/// Starts a command until it is met while it has something beside its destination, and gives it.
fn met_while_it_writes(cli: &Cli, words: &[&str], destination: &str) -> Child {
    let is_private = |name: &String| name.starts_with(".layerstone-");
    for _ in 0..20 {
        let mut child = start(&mut cli.command(words));
        while child.try_wait().unwrap().is_none() {
            if names(&cli.path("")).iter().any(is_private) {
                return child;
            }
        }
        let _ = fs::remove_dir_all(cli.path(destination));
        let _ = fs::remove_file(cli.path(destination));
    }
    panic!("{words:?} was never met while it writes");
}

#[test]
fn a_checkout_that_is_stopped_leaves_nothing_and_what_a_killed_one_leaves_goes() {
    let cli = many();
    for (words, destination) in
        [(&["checkout", "base", "copy"][..], "copy"), (&["export", "base", "-o", "base.tar"], "base.tar")]
    {
        let (mut stopped, mut killed) = (0, 0);
        while stopped < 3 || killed == 0 {
            let is_kill = stopped == 3;
            let mut child = met_while_it_writes(&cli, words, destination);
            send(&child, if is_kill { Signal::KILL } else { SIGNALS[stopped].0 });
            let status = child.wait().unwrap();
            if is_kill {
                killed +=
                    usize::from(names(&cli.path("")).iter().any(|name| name.starts_with(".layerstone-")));
            } else if !status.success() {
                assert_eq!(status.code(), Some(SIGNALS[stopped].2), "{words:?}");
                assert_eq!(names(&cli.path("")), ["store", "tree"], "{words:?}");
                stopped += 1;
            }
            // It was done before.
            let _ = fs::remove_dir_all(cli.path(destination));
            let _ = fs::remove_file(cli.path(destination));
        }
        cli.ok(words);
        let mut expected = vec![destination, "store", "tree"];
        expected.sort_unstable();
        assert_eq!(names(&cli.path("")), expected, "{words:?}");
        let _ = fs::remove_dir_all(cli.path(destination));
        let _ = fs::remove_file(cli.path(destination));
    }
}

/// A terminal, and what the program writes to it.
pub(crate) struct Terminal {
    pub(crate) master: File,
    pub(crate) text: String,
}

impl Terminal {
    pub(crate) fn new() -> (Self, OwnedFd) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(name).unwrap();
        (Self { master: master.into(), text: String::new() }, slave.into())
    }

    /// Reads until the text has been written, or to the end.
    pub(crate) fn read_until(&mut self, text: Option<&str>) {
        let mut buffer = [0; 4096];
        while text.is_none_or(|text| !self.text.contains(text)) {
            match self.master.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => self.text.push_str(&String::from_utf8_lossy(&buffer[..read])),
            }
        }
    }
}

#[test]
fn a_terminal_shows_what_is_waited_for_and_nothing_of_it_stays() {
    let cli = Cli::new();
    cli.tree();
    let held = StoreOptions::default().exclusive(true).open(cli.path("store")).unwrap();
    let (mut terminal, slave) = Terminal::new();
    let mut command = patient(&cli, &["import", "tree"]);
    command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(slave);
    let child = command.spawn().unwrap();
    drop(command);
    let waiting = format!("waiting for process {}, which uses the store", std::process::id());
    terminal.read_until(Some(&waiting));
    drop(held);
    terminal.read_until(None);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(terminal.text.ends_with("\r\u{1b}[2K") && !terminal.text.contains('\n'), "{:?}", terminal.text);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(!stdout.contains('\u{1b}') && stdout.lines().count() == 2, "{stdout:?}");
}

#[test]
fn lines_of_progress_are_for_who_asks_for_them() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    let held = StoreOptions::default().exclusive(true).open(cli.path("store")).unwrap();
    for words in [&["--json", "--progress", "plain", "images"][..], &["--progress=plain", "images", "-q"]] {
        let mut child = start(&mut patient(&cli, words));
        let mut line = vec![0; 60];
        child.stderr.as_mut().unwrap().read_exact(&mut line).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(line.starts_with("layerstone: waiting for process ") && !line.contains('\u{1b}'), "{line}");
        send(&child, Signal::INT);
        child.wait().unwrap();
    }
    for words in
        [&["images"][..], &["--progress", "none", "images"], &["--progress", "plain", "images", "-q"]]
    {
        let is_plain = words.contains(&"plain");
        let mut child = start(&mut patient(&cli, words));
        std::thread::sleep(Duration::from_secs(1));
        send(&child, Signal::INT);
        let mut said = String::new();
        child.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
        child.wait().unwrap();
        assert_eq!(said.lines().count(), if is_plain { 2 } else { 1 }, "{words:?}: {said}");
    }
    // A terminal is no reason where only the result is wanted.
    for words in [&["--json", "images"][..], &["images", "-q"], &["--progress", "none", "images"]] {
        let (mut terminal, slave) = Terminal::new();
        let mut command = patient(&cli, words);
        command.env("TERM", "xterm").stdout(Stdio::null()).stderr(slave);
        let mut child = command.spawn().unwrap();
        drop(command);
        wait_for_handlers(&child);
        std::thread::sleep(Duration::from_secs(1));
        send(&child, Signal::KILL);
        child.wait().unwrap();
        terminal.read_until(None);
        assert_eq!(terminal.text, "", "{words:?}");
    }
    drop(held);
}

/// Whether a process has a file of the folder of workspaces open, as it has while it waits for one that is locked.
fn is_waiting_for_a_lock(child: &Child) -> bool {
    let files = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
    let names = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
    names.into_iter().any(|name| name.to_string_lossy().contains("/workspaces/lock-"))
}

/// What prepares the files that workspaces share is locked by another, as if that one was at it.
#[test]
fn a_workspace_that_is_being_prepared_ends_on_a_signal() {
    let Some(cli) = small() else { return };
    let folder = cli.path("store/workspaces");
    fs::create_dir(&folder).unwrap();
    let lock = |number: u8| {
        let file = File::create(folder.join(format!("lock-{number:02x}"))).unwrap();
        file.lock().unwrap();
        file
    };
    let locks: Vec<_> = (0..32).map(lock).collect();
    let before = names(&folder);
    for words in [&["workspace", "create", "small"][..], &["run", "small", "--", "sh", "-c", ":"]] {
        stop(words[0], || {
            let child = start(&mut cli.command(words));
            wait_until("it waits for a lock", || is_waiting_for_a_lock(&child));
            child
        });
        assert_eq!(names(&folder), before, "{words:?}");
        assert_eq!(cli.ok(&["--json", "workspace", "ls"]).trim(), "[]");
    }
    drop(locks);
}

#[test]
fn a_cancelled_export_to_a_pipe_is_not_complete() {
    let cli = Cli::new();
    cli.tree();
    fs::write(cli.path("tree/big"), vec![7; 1 << 20]).unwrap();
    cli.ok(&["import", "tree", "--tag", "a"]);
    let words = ["export", "a", "-o", "fifo"];
    let fifo = fifo(&cli);
    let child = start(&mut cli.command(&words));
    let mut reader = File::open(fifo).unwrap();
    reader.read_exact(&mut [0]).unwrap();
    send(&child, Signal::INT);
    assert_cut_short(&words, &finish(child), "SIGINT", 130);
}
