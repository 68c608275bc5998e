//! What `run` says, to whom and where, and what it lets through to the command. Needs root, and what `.ci/run` installs.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::cli::Cli;
use crate::run::{code, command, image, nothing_is_left, small};

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The same command, started by a shell that has descriptors 8 and 9 open, as it is told to.
fn with_descriptors(inner: &Command, opened: &str) -> Output {
    let mut outer = Command::new("sh");
    outer.args(["-c", &format!("exec {opened}; exec \"$@\""), "sh"]);
    outer.arg(inner.get_program()).args(inner.get_args());
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.current_dir(inner.get_current_dir().unwrap_or(std::path::Path::new("/")));
    outer.output().unwrap()
}

#[test]
fn a_command_gets_three_descriptors_and_no_other() {
    let Some(cli) = small() else { return };
    let (host, log) = (cli.path("host"), cli.path("log"));
    fs::create_dir(&host).unwrap();
    fs::write(host.join("f"), "before").unwrap();
    let opened = format!("9< '{}' 8>> '{}'", host.display(), log.display());
    for runtime in ["bubblewrap", "crun"] {
        let script = "ls /proc/self/fd; echo end; echo changed > /proc/self/fd/9/f; echo changed >&8";
        let words = ["--disposable", "--", "sh", "-c", script];
        let output = with_descriptors(&command(&cli, runtime, &words), &opened);
        // The last is that of the listing itself.
        assert_eq!(text(&output.stdout), "0\n1\n2\n3\nend\n", "{runtime}: {output:?}");
        assert_eq!(fs::read(host.join("f")).unwrap(), b"before", "{runtime}");
        assert_eq!(fs::read(&log).unwrap(), b"", "{runtime}");
    }
}

#[test]
fn a_command_sees_nothing_of_this_process_s_environment() {
    let Some(cli) = small() else { return };
    let variables = [("SECRET", "hidden"), ("NOTIFY_SOCKET", "/nowhere/hidden"), ("LISTEN_FDS", "1")];
    for runtime in ["bubblewrap", "crun"] {
        let script = "cat /proc/1/environ /proc/self/environ; echo $LISTEN_PID $LISTEN_FDS; ls /";
        let output =
            command(&cli, runtime, &["--rm", "--", "sh", "-c", script]).envs(variables).output().unwrap();
        assert_eq!(code(&output), 0, "{runtime}: {output:?}");
        let seen = String::from_utf8_lossy(&output.stdout);
        for word in ["hidden", "LISTEN", "LAYERSTONE", "nowhere"] {
            assert!(!seen.contains(word), "{runtime} {word}: {seen}");
        }
    }
}

#[test]
fn what_starts_a_sandbox_is_missed_before_anything_is_prepared() {
    let Some(cli) = small() else { return };
    for missing in ["setpriv", "unshare", "flock"] {
        let programs = cli.path(missing);
        fs::create_dir(&programs).unwrap();
        for program in ["bwrap", "sh", "setpriv", "unshare", "flock"] {
            if program != missing {
                symlink(Path::new("/usr/bin").join(program), programs.join(program)).unwrap();
            }
        }
        fs::write(programs.join(missing), "no program").unwrap();
        let output = cli.command(&["run", "--json", "small", "sh"]).env("PATH", &programs).output().unwrap();
        assert_eq!((code(&output), text(&output.stdout)), (125, ""), "{missing}");
        let said: Value = serde_json::from_slice(&output.stderr).unwrap();
        let message = said["message"].as_str().unwrap();
        assert!(message.contains(missing) && message.ends_with("apt-get install util-linux"), "{message}");
        assert!(!cli.path("store/workspaces").exists(), "{missing}");
    }
}

#[test]
fn an_ordinary_user_s_image_has_no_mount_points_whatever_modes_its_directories_have() {
    let Some(cli) = small() else { return };
    let everybody = |path: &str, mode| {
        fs::set_permissions(cli.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    everybody("", 0o777);
    fs::copy(env!("CARGO_BIN_EXE_layerstone"), cli.path("program")).unwrap();
    cli.ok(&["export", "small", "-o", "small.tar"]);
    everybody("small.tar", 0o644);
    let as_user = |program: &Path, words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(program);
        command.args(words).current_dir(cli.path("")).env("LAYERSTONE_STORE", cli.path("theirs"));
        command.output().unwrap()
    };
    let sandbox = as_user(Path::new("bwrap"), &["--unshare-user", "--ro-bind", "/", "/", "true"]);
    if !sandbox.status.success() {
        println!("skipped: ordinary users may not make namespaces here: {sandbox:?}");
        return;
    }
    let run = |words: &[&str]| {
        let output = as_user(&cli.path("program"), words);
        assert_eq!(code(&output), 0, "{words:?}: {output:?}");
        text(&output.stdout).to_owned()
    };
    run(&["import", "small.tar", "--tag", "a"]);
    for (base, mode, made) in [("a", "0555", "b"), ("b", "0", "c"), ("c", "0700", "d")] {
        let output = run(&["run", base, "--tag", made, "-q", "sh", "-c", &format!("chmod {mode} /")]);
        assert_eq!(output.lines().count(), 1, "{output}");
        assert_eq!(run(&["diff", base, made]), "M /  (mode)\n", "{base}");
    }
}

#[test]
fn a_command_that_the_image_lacks_is_missed_before_anything_is_prepared() {
    let Some(cli) = small() else { return };
    for (words, expected) in [
        (&["nope"][..], 127),
        (&["/lib"], 126),
        (&["-w", "/nowhere", "sh"], 125),
        (&["-w", "bin", "sh"], 125),
    ] {
        assert_eq!(code(&cli.run(&[&["run", "small"], words].concat())), expected, "{words:?}");
        assert!(!cli.path("store/workspaces").exists(), "{words:?}");
    }
    fs::create_dir_all(cli.path("alone/bin")).unwrap();
    fs::copy("/bin/sh", cli.path("alone/bin/sh")).unwrap();
    cli.ok(&["import", "alone", "--tag", "alone", "-q"]);
    let output = cli.run(&["run", "alone", "sh"]);
    assert_eq!(code(&output), 127);
    assert!(text(&output.stderr).contains("needs the loader '/"), "{output:?}");
    assert!(!cli.path("store/workspaces").exists());
}

/// Puts a program into the tree.
fn executable(cli: &Cli, name: &str, bytes: &[u8]) {
    let path = cli.path("tree/bin").join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_the_kernel_does_not_execute_is_said_alike_by_every_runtime() {
    let Some(cli) = small() else { return };
    let own = fs::read("/bin/sh").unwrap();
    let mut other = own.clone();
    // Of a machine that does not exist.
    other[18..20].fill(0xee);
    executable(&cli, "text", b"echo text > /new\n");
    executable(&cli, "empty", b"");
    executable(&cli, "garbage", b"\x7fELF\x02\x01\x01 and nothing more");
    executable(&cli, "cut", &own[..64]);
    executable(&cli, "other", &other);
    executable(&cli, "of-text", b"#!/bin/text\n");
    executable(&cli, "nameless", b"#!\n");
    executable(&cli, "script", b"#!/bin/sh\nexit 3\n");
    cli.ok(&["import", "tree", "--tag", "small", "-q"]);
    for runtime in ["bubblewrap", "crun"] {
        for name in ["text", "empty", "garbage", "cut", "other", "of-text", "nameless"] {
            let output = command(&cli, runtime, &["--tag", "never", "--", name]).output().unwrap();
            assert_eq!((code(&output), text(&output.stdout)), (126, ""), "{runtime}: {name}: {output:?}");
            let by = if name == "of-text" { "is run by '/bin/text', which " } else { "" };
            let expected =
                format!("layerstone: '{name}' {by}is neither a program for this machine nor a script");
            assert!(text(&output.stderr).starts_with(&expected), "{runtime}: {name}: {output:?}");
            assert!(!cli.path("store/workspaces").exists(), "{runtime}: {name}");
        }
    }
    assert_eq!(cli.fails(&["inspect", "never"]).0, 3);
    for runtime in ["bubblewrap", "crun"] {
        assert_eq!(
            code(&command(&cli, runtime, &["--rm", "--", "script"]).output().unwrap()),
            3,
            "{runtime}"
        );
    }
}

#[test]
fn with_json_a_failure_is_one_object_and_a_success_another() {
    let Some(cli) = small() else { return };
    executable(&cli, "text", b"echo text\n");
    cli.ok(&["import", "tree", "--tag", "small", "-q"]);
    let file = cli.path("taken");
    fs::write(&file, "mine").unwrap();
    let file = file.to_str().unwrap();
    for (words, expected, error, message) in [
        (&["small", "nope"][..], 127, "not_found", "'nope' is not in the image"),
        (&["small", "/lib"], 126, "invalid", "'/lib' is no program that can be executed"),
        (&["small", "text"], 126, "invalid", "'text' is neither a program for this machine nor a script"),
        (&["-w", "/nowhere", "small", "sh"], 125, "not_found", "'/nowhere' is no directory in the image"),
        (&["-w", "bin", "small", "sh"], 125, "invalid", "--workdir: 'bin' is not absolute"),
        (&["-e", "A B", "small", "sh"], 125, "invalid", "--env: 'A B' is no variable"),
        (&["--id-file", file, "small", "sh"], 125, "invalid", "exists already"),
        (&["--id-file", "/nowhere/id", "small", "sh"], 125, "invalid", "'/nowhere' is no directory"),
        (&["--id-file"], 125, "invalid", "a value is required"),
        (&["--runtime", "none", "small", "sh"], 125, "invalid", "'none'"),
        (&["absent", "sh"], 125, "not_found", "absent"),
        (
            &["--max-layer-bytes", "3", "small", "sh", "-c", "echo text > /new"],
            125,
            "quota_exceeded",
            "is kept in the workspace ",
        ),
    ] {
        let output = cli.run(&[&["--json", "run"], words].concat());
        assert_eq!(code(&output), expected, "{output:?}");
        assert_eq!(text(&output.stdout), "", "{words:?}");
        let found: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(found["error"], error, "{found}");
        assert!(found["message"].as_str().unwrap().contains(message), "{found}");
    }
    assert_eq!(fs::read(file).unwrap(), b"mine");
    // What the command prints is apart from the report, whatever it is.
    let script = "echo '{\"exit_code\": 0}'; printf broken >&2; exit 3";
    let output = cli.run(&["--json", "run", "small", "sh", "-c", script]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), &report["exit_code"]), (3, &serde_json::json!(3)));
    assert_eq!(report["report"]["image"], image(&cli, "small"));
    let printed = text(&output.stderr);
    assert!(printed.contains("{\"exit_code\": 0}\n") && printed.contains("broken"), "{printed}");
    let output = cli.run(&["--json", "run", "--disposable", "small", "sh", "-c", "exit 4"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        report,
        serde_json::json!({
            "exit_code": 4, "report": null, "workspace": null, "left_over": null, "why_copy": null, "unset": [],
        })
    );
}

#[test]
fn the_image_s_uuid_is_a_line_of_its_own_and_in_a_file() {
    let Some(cli) = small() else { return };
    let base = image(&cli, "small");
    for (script, printed) in
        [("printf text", "text\n"), ("echo text", "text\n"), (":", ""), ("printf 'a\\nb'", "a\nb\n")]
    {
        let output = cli.run(&["run", "-q", "small", "sh", "-c", script]);
        assert_eq!(text(&output.stdout), format!("{printed}{base}\n"), "{script}");
    }
    // With standard error in the same file, in the order in which it was printed.
    let log = fs::File::create(cli.path("log")).unwrap();
    let script = "echo a; echo b >&2; echo c; printf d >&2";
    let mut both = cli.command(&["run", "-q", "small", "sh", "-c", script]);
    both.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
    assert_eq!(fs::read_to_string(cli.path("log")).unwrap(), format!("a\nb\nc\nd\n{base}\n"));

    let file = cli.path("id");
    let words = ["run", "--id-file", file.to_str().unwrap(), "small", "sh", "-c", "echo text > /new; exit 5"];
    let output = cli.run(&words);
    let made = fs::read_to_string(&file).unwrap();
    assert_eq!((code(&output), text(&output.stdout)), (5, &*made));
    assert_eq!(cli.ok(&["cat", made.trim_end(), "/new"]), "text\n");
    // It is not replaced, and nothing is run.
    assert_eq!(code(&cli.run(&words)), 125);
    assert_eq!(fs::read_to_string(&file).unwrap(), made);
    // One that can't be written keeps nobody from the UUID of what was committed.
    let output = cli.run(&["run", "-q", "--id-file", &"x".repeat(300), "small", "sh", "-c", ":"]);
    assert_eq!((code(&output), text(&output.stdout)), (125, &*format!("{base}\n")), "{output:?}");
    nothing_is_left(&cli);
}

#[test]
fn the_words_of_other_programs_are_understood() {
    let Some(cli) = small() else { return };
    let run = |words: &[&str]| {
        let output = cli.run(&[&["run"], words].concat());
        (code(&output), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
    };
    let script = "echo $0 $1 $2; echo text > /new";
    assert_eq!(run(&["--rm", "small", "sh", "-c", script, "--tag", "--", "-q"]).1, "--tag -- -q\n");
    assert_eq!(cli.ok(&["images", "-a", "-q"]).lines().count(), 1, "nothing was committed");
    assert_eq!(run(&["small", "--rm", "--", "sh", "-c", script, "a"]).1, "a\n");
    let (code, _, said) = run(&["-e", "MISSING", "small", "sh", "-c", "exit ${MISSING-7}"]);
    assert_eq!(code, 7);
    assert!(said.starts_with("MISSING is not set here"), "{said}");
    let report = cli.run(&["run", "--json", "-e", "MISSING", "--rm", "small", "sh", "-c", ":"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["unset"], serde_json::json!(["MISSING"]));
    let (_, _, said) = run(&["-m", "why", "small", "sh", "-c", ":"]);
    assert!(said.starts_with("This image was there already and keeps its comment"), "{said}");
    for words in [&["-e", "A B"][..], &["-e", "A B=c"], &["-e", "=c"], &["-e", ""], &["-e", "A\n=c"]] {
        let (code, _, said) = run(&[words, &["small", "sh"]].concat());
        assert_eq!(code, 125, "{words:?}");
        assert!(said.contains("NAME or NAME=VALUE is expected"), "{words:?}: {said}");
    }
    assert_eq!(run(&["-q", "-e", "A=b c", "-e", "A.B=", "--rm", "small", "sh", "-c", "echo $A"]).1, "b c\n");
}

#[test]
fn a_command_types_nothing_into_the_terminal() {
    let Some(cli) = small() else { return };
    let copy = |from: &str| {
        let to = cli.path("tree").join(from.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    copy("/usr/bin/perl");
    let libraries = Command::new("ldd").arg("/usr/bin/perl").output().unwrap();
    text(&libraries.stdout).split_whitespace().filter(|word| word.starts_with('/')).for_each(copy);
    cli.ok(&["import", "tree", "--tag", "small", "-q"]);
    // Not a terminal is error 25, not permitted 1. The kernel takes the low half of a request.
    let script = "for (0x5412, 0x541C, 0x5413) { ioctl(STDIN, $_, $b = 'x' x 64); print $!+0, ' ' }";
    for runtime in ["bubblewrap", "crun"] {
        let words = ["--rm", "--", "/usr/bin/perl", "-e", script];
        let output = command(&cli, runtime, &words).output().unwrap();
        assert_eq!(text(&output.stdout), "1 1 25 ", "{runtime}: {output:?}");
    }
}

#[test]
fn an_image_is_named_even_where_standard_output_takes_nothing() {
    let Some(cli) = small() else { return };
    for (words, expected) in [
        (&["run", "small", "--id-file", "id", "--", "sh", "-c", "echo text > /new"][..], 125),
        (&["run", "small", "--json", "--", "sh", "-c", "echo json > /new"], 125),
        (&["run", "small", "--", "sh", "-c", "echo printed; echo printing > /new"], 125),
        (&["import", "tree/bin"], 1),
        (&["import", "tree/bin"], 1),
        (&["merge", "small", "small"], 1),
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = cli.command(words).stdout(full).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(code(&output), expected, "{words:?}: {said}");
        let last = said.lines().last().unwrap();
        let newest = cli.ok(&["images", "--all", "-q", "-n", "1"]);
        let image = if words[0] == "merge" { image(&cli, "small") } else { newest.trim().to_owned() };
        assert!(last.contains("No space left on device") && last.contains(&image), "{words:?}: {said}");
    }
    assert_eq!(cli.ok(&["cat", fs::read_to_string(cli.path("id")).unwrap().trim(), "/new"]), "text\n");
    // A reader that goes away changes no exit code.
    let mut child = cli.command(&["run", "small", "sh", "-c", "exit 5"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(child.stdout(writer).status().unwrap().code(), Some(5));
    nothing_is_left(&cli);
}

#[test]
fn devices_of_a_sandbox_are_not_the_host_s() {
    use std::os::unix::fs::MetadataExt as _;
    let Some(cli) = small() else { return };
    // Only looked at: a mode set on the host's would stay.
    let script =
        "for name in null zero full random urandom tty; do ls -i /dev/$name; done; echo gone > /dev/null";
    let said = cli.ok(&["run", "small", "--rm", "--", "sh", "-ec", script]);
    for (line, name) in said.lines().zip(["null", "zero", "full", "random", "urandom", "tty"]) {
        let inode: u64 = line.trim().split(' ').next().unwrap().parse().unwrap();
        let host = fs::metadata(Path::new("/dev").join(name)).unwrap();
        assert_ne!(inode, host.ino(), "{said}");
    }
    assert_eq!(said.lines().count(), 6, "{said}");
    nothing_is_left(&cli);
}

#[test]
fn a_run_whose_workspace_somebody_else_writes_to_is_refused_or_keeps_what_could_be_read() {
    let Some(cli) = small() else { return };
    for (rule, expected) in [("refuse", 125), ("keep", 0)] {
        let script = "echo line > /log; until [ -e /go ]; do sleep 0.01; done";
        let words = ["run", "small", "--keep", "--name", rule, "--changing", rule, "--", "sh", "-c", script];
        let child = cli.command(&words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let find = || {
            let listed: Value = serde_json::from_str(&cli.ok(&["--json", "workspace", "ls"])).unwrap();
            let listed =
                listed.as_array().unwrap().iter().find(|workspace| workspace["name"] == rule)?.clone();
            let path = Path::new(listed["path"].as_str().unwrap()).to_owned();
            path.join("log").exists().then_some(path)
        };
        let path = (0..1_000).find_map(|_| find()).unwrap();
        let log = fs::OpenOptions::new().write(true).open(path.join("log")).unwrap();
        // It takes longer to read than the clock takes to go on.
        (0..32).for_each(|part| log.write_all_at(&[b'x'; 1 << 20], part << 20).unwrap());
        let is_done = AtomicBool::new(false);
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    // It grows no longer than this, and changes all the time.
                    log.write_all_at(&[b'x'; 1 << 20], 0).unwrap();
                }
            });
            fs::write(path.join("go"), "").unwrap();
            let output = child.wait_with_output().unwrap();
            is_done.store(true, Ordering::Relaxed);
            output
        });
        let said = text(&output.stderr);
        assert_eq!(code(&output), expected, "{said}");
        let words = if rule == "keep" { "/log: the image has what could be read" } else { "--changing keep" };
        assert!(said.contains(words), "{said}");
        drop(log);
        cli.ok(&["workspace", "discard", rule]);
    }
}

/// What appears at the file's name meanwhile stays as it is, and what a link there leads to.
#[test]
fn the_id_file_replaces_nothing_that_came_after_the_command_began() {
    let Some(cli) = small() else { return };
    for make in ["echo theirs > id", "echo theirs > other; ln -s other id"] {
        let _ = fs::remove_file(cli.path("id"));
        // The command waits until somebody has made it.
        let mut child = cli
            .command(&["run", "--id-file", "id", "small", "sh", "-c", "read line; echo $line > /made"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while cli.run(&["workspace", "ls", "--json"]).stdout == b"[]\n" {
            std::thread::yield_now();
        }
        crate::overlay::shell(&cli.path(""), make);
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), make.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert_eq!(fs::read_to_string(cli.path("id")).unwrap(), "theirs\n");
        assert!(!output.stdout.is_empty(), "the image is named");
    }
}
