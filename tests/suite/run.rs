//! `run` with real sandboxes, one of them on a real Debian system. Needs root, and what `.ci/run` installs.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::cli::{Cli, last_line};
use crate::system;

const PROGRAMS: [&str; 7] = ["sh", "cat", "chmod", "grep", "readlink", "sleep", "ls"];

/// A store with an image that has a few programs and nothing else: not even mount points.
pub(crate) fn small() -> Option<Cli> {
    if !system::is_on() {
        return None;
    }
    let cli = Cli::new();
    let tree = cli.path("tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    for program in PROGRAMS {
        let path = Path::new("/bin").join(program);
        copy(&path, &tree.join("bin").join(program));
        let libraries = Command::new("ldd").arg(&path).output().unwrap();
        for word in String::from_utf8(libraries.stdout).unwrap().split_whitespace() {
            if let Some(library) = word.strip_prefix('/') {
                copy(Path::new(word), &tree.join(library));
            }
        }
    }
    cli.ok(&["import", "tree", "--tag", "small", "-q"]);
    Some(cli)
}

pub(crate) fn image(cli: &Cli, reference: &str) -> String {
    let inspected: serde_json::Value = serde_json::from_str(&cli.ok(&["inspect", reference])).unwrap();
    inspected[0]["image"].as_str().unwrap().to_owned()
}

/// The last line of what a run printed, and the lines before.
fn outcome(output: &Output) -> (String, String) {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let (before, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
    (last.to_owned(), before.to_owned())
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Neither workspaces nor mounts.
pub(crate) fn nothing_is_left(cli: &Cli) {
    assert_eq!(cli.ok(&["--json", "workspace", "ls"]).trim(), "[]");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let store = cli.path("store");
    assert!(!mounts.contains(store.to_str().unwrap()), "{mounts}");
}

#[test]
fn a_package_is_installed_on_a_debian_system_and_used() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    let debian = system::debian();
    cli.ok(&["import", debian.to_str().unwrap(), "--tag", "debian"]);
    let apt = "apt-get update -qq && apt-get install -y -qq file";
    cli.ok(&[
        "run",
        "debian",
        "--tag",
        "with-file",
        "-e",
        "DEBIAN_FRONTEND=noninteractive",
        "--",
        "sh",
        "-c",
        apt,
    ]);
    let output = cli.run(&["run", "with-file", "--", "file", "/bin/ls"]);
    let (made, said) = outcome(&output);
    assert!(said.starts_with("/bin/ls: ELF 64-bit"), "{output:?}");
    assert_eq!(made, image(&cli, "with-file"), "nothing was changed");
    // What was mounted over files of the image is not in it, nor that it was.
    let differences = cli.ok(&["diff", "debian", "with-file"]);
    assert!(differences.contains("A /usr/bin/file"), "{differences}");
    for path in ["/etc/resolv.conf", "/etc/hosts", "/proc", "/dev", "/sys"] {
        assert!(!differences.lines().any(|line| line[2..].starts_with(path)), "{differences}");
    }

    let mut runs: Vec<_> = (0..20)
        .map(|number| {
            let script = format!("echo {number} > /number; echo there; read line; cat /number");
            let mut command = cli.command(&["run", "with-file", "-q", "--", "sh", "-c", &script]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    // All of them are there at once, and none holds the store.
    let mut outputs: Vec<_> = runs.iter_mut().map(|run| BufReader::new(run.stdout.take().unwrap())).collect();
    for output in &mut outputs {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "there\n");
    }
    cli.ok(&["--lock-timeout", "5", "images"]);
    for (number, (mut run, mut output)) in runs.into_iter().zip(outputs).enumerate() {
        run.stdin.take().unwrap().write_all(b"go on\n").unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        let rest = run.wait_with_output().unwrap();
        let (said, made) = text.trim_end().split_once('\n').unwrap_or_else(|| panic!("{rest:?}"));
        assert_eq!(said, number.to_string(), "{rest:?}");
        assert_eq!(cli.ok(&["cat", made, "/number"]).trim(), said);
    }
    nothing_is_left(&cli);
}

#[test]
fn what_comes_of_a_command_is_committed_and_its_exit_code_passed_on() {
    let Some(cli) = small() else { return };
    let base = image(&cli, "small");
    // A program whose interpreter is not there is only noticed when it is executed.
    fs::write(cli.path("tree/bin/broken"), "#!/nowhere/sh\n").unwrap();
    rustix::fs::chmod(cli.path("tree/bin/broken"), rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    cli.ok(&["import", "tree", "--tag", "interpreted", "-q"]);
    let output = cli.run(&["run", "small", "--", "sh", "-c", "read x; echo got $x; echo no >&2; exit 7"]);
    assert_eq!((code(&output), outcome(&output)), (7, (base.clone(), "got".to_owned())));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("no\nunchanged"), "{output:?}");

    let made =
        cli.ok(&["run", "small", "--tag", "new", "-q", "-m", "why", "--", "sh", "-c", "echo text > /new"]);
    assert_eq!(made.trim(), image(&cli, "new"));
    assert_eq!(cli.ok(&["cat", "new", "/new"]), "text\n");
    assert_eq!(cli.ok(&["diff", "small", "new"]), "M /  (mtime)\nA /new\n");
    // Also of one that fails.
    let output = cli.run(&["run", "new", "--tag", "failed", "--", "sh", "-c", "echo more > /more; exit 3"]);
    assert_eq!((code(&output), outcome(&output).0), (3, image(&cli, "failed")));

    let output = cli.run(&["run", "small", "--disposable", "--", "sh", "-c", "echo text > /new; cat /new"]);
    assert_eq!((code(&output), output.stdout), (0, b"text\n".to_vec()));
    assert_eq!(cli.ok(&["images", "-a", "-q"]).lines().count(), 4);

    // What could not be started changes nothing, and no tag.
    let new = image(&cli, "new");
    for (words, expected, message) in [
        (&["--", "nope"][..], 127, "'nope' is not in the image"),
        (&["--", "/lib"], 126, "'/lib' is no program that can be executed"),
        (&["-w", "/nowhere", "--", "sh"], 125, "'/nowhere' is no directory in the image"),
        (&["-w", "/bin", "--", "./nope"], 127, "'./nope' is not in the image"),
        (&["--", "/bin/broken"], 127, "'/bin/broken' names '"),
        (&["-e", "=x", "--", "sh"], 125, "NAME=VALUE is expected"),
    ] {
        let output = cli.run(&[&["run", "interpreted", "-q", "--tag", "new"], words].concat());
        assert_eq!((code(&output), &output.stdout), (expected, &Vec::new()), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(message), "{output:?}");
        assert_eq!(image(&cli, "new"), new);
    }
    let long = "x".repeat(100);
    let output =
        cli.run(&["run", "small", "--name", &long, "-q", "-w", "/bin", "--", "./sh", "-c", "exit 4"]);
    assert_eq!(code(&output), 4, "{output:?}");
    assert_eq!(cli.fails(&["run", "absent", "--", "true"]).0, 125);
    let large =
        ["run", "small", "--max-layer-bytes", "3", "--tag", "large", "--", "sh", "-c", "echo text > /new"];
    let output = cli.run(&large);
    assert_eq!(code(&output), 125);
    assert_eq!(cli.fails(&["inspect", "large"]).0, 3);
    // What it did is not lost.
    let text = String::from_utf8(output.stderr).unwrap();
    let (_, name) = text.split_once("is kept in the workspace ").unwrap();
    let name = name.split(':').next().unwrap();
    let kept = cli.ok(&["workspace", "path", name]);
    assert_eq!(fs::read(Path::new(kept.trim_end()).join("new")).unwrap(), b"text\n");
    cli.ok(&["workspace", "commit", name, "--tag", "large"]);
    assert_eq!(cli.ok(&["cat", "large", "/new"]), "text\n");
    nothing_is_left(&cli);
}

#[test]
fn a_workspace_is_kept_where_that_is_asked_for() {
    let Some(cli) = small() else { return };
    cli.ok(&[
        "run",
        "small",
        "--keep",
        "--name",
        "mine",
        "--tag",
        "one",
        "-q",
        "--",
        "sh",
        "-c",
        "echo 1 > /one",
    ]);
    let path = PathBuf::from(cli.ok(&["workspace", "path", "mine"]).trim_end());
    assert_eq!(fs::read(path.join("one")).unwrap(), b"1\n");
    assert!(!path.join("etc").exists(), "what was mounted on is gone");
    assert_eq!(cli.ok(&["workspace", "commit", "mine", "-q"]).trim(), image(&cli, "one"));
    let output = cli.run(&[
        "run",
        "small",
        "--keep",
        "--disposable",
        "--name",
        "kept",
        "--",
        "sh",
        "-c",
        "echo 1 > /one",
    ]);
    assert_eq!((code(&output), output.stdout), (0, Vec::new()));
    cli.ok(&["workspace", "discard", "kept"]);
    nothing_is_left(&cli);
}

/// Starts the program where crun can work: it refuses hosts whose control groups are of two kinds.
pub(crate) fn command(cli: &Cli, runtime: &str, words: &[&str]) -> Command {
    let words = [&["run", "small", "--runtime", runtime], words].concat();
    let is_unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if runtime == "bubblewrap" || is_unified {
        return cli.command(&words);
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", "mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$@\"", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_layerstone")).args(words);
    command.env("LAYERSTONE_STORE", cli.path("store"));
    command
}

#[test]
fn what_a_command_gets_to_see() {
    let Some(cli) = small() else { return };
    let base = image(&cli, "small");
    // Docker's default, and the same without CAP_MKNOD, which crun could not confine here.
    for (runtime, capabilities) in [("bubblewrap", "00000000a80425fb"), ("crun", "00000000a00425fb")] {
        let script = "
            for kind in pid ipc uts mnt net; do readlink /proc/self/ns/$kind; done
            grep CapEff /proc/self/status; read name < /proc/sys/kernel/hostname; echo $name
            read line; echo $line; echo $PATH; echo $HOME; echo $MORE; echo $LAYERSTONE_STORE; echo $PWD
            ls /dev; ls /proc/1/exe /sys/kernel > /dev/null; cat /etc/hosts /etc/resolv.conf
            echo > /dev/null; echo changed > /etc/hosts; echo $HOSTNAME
            if grep \"[ ,]rw[ ,].* /sys\" /proc/self/mounts; then echo writable; fi
            value=$(cat /proc/sys/vm/swappiness)
            if (echo $value > /proc/sys/vm/swappiness) 2> /dev/null; then echo writable; fi
            if (echo > /proc/sysrq-trigger) 2> /dev/null; then echo writable; fi
            if read value < /proc/timer_list; then echo unmasked; fi
        ";
        let words = ["--name", "box", "-e", "MORE=more", "-w", "/bin", "--", "sh", "-ec", script];
        let mut child = command(&cli, runtime, &words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"from outside\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let (made, said) = outcome(&output);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((code(&output), &made), (0, &base), "{runtime}: {said} {text}");
        let lines: Vec<_> = said.lines().collect();
        let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
        for (index, kind) in ["pid", "ipc", "uts", "mnt"].iter().enumerate() {
            assert_ne!(lines[index], own(kind), "{runtime}");
        }
        assert_eq!(lines[4], own("net"), "{runtime}");
        assert_eq!(lines[5], format!("CapEff:\t{capabilities}"), "{runtime}");
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(lines[6..13], ["box", "from outside", path, "/root", "more", "", "/bin"], "{runtime}");
        for expected in ["null", "pts", "shm", "127.0.1.1\tbox", "box"] {
            assert!(lines[13..].contains(&expected), "{runtime}: {said}");
        }
        let resolver = fs::read_to_string("/etc/resolv.conf").unwrap();
        assert!(said.contains(resolver.trim()), "{runtime}: {said}");
        assert!(!fs::read_to_string("/etc/hosts").unwrap().contains("changed"));
        assert!(!lines.contains(&"writable"), "{runtime}: {said}");
        assert!(!lines.contains(&"unmasked"), "{runtime}: {said}");
        let output = command(&cli, runtime, &["-q", "--", "sh", "-c", "exit 9"]).output().unwrap();
        assert_eq!((code(&output), outcome(&output).0), (9, base.clone()), "{runtime}");
        nothing_is_left(&cli);
    }
}

#[test]
fn links_of_an_image_lead_nowhere_outside_it() {
    let Some(cli) = small() else { return };
    let outside = cli.path("outside");
    fs::create_dir(&outside).unwrap();
    let tree = cli.path("tree");
    symlink(&outside, tree.join("etc")).unwrap();
    symlink("/run/systemd", tree.join("sys")).unwrap();
    cli.ok(&["import", "tree", "--tag", "links", "-q"]);
    let script = "ls /etc/resolv.conf /sys/kernel > /dev/null && echo seen";
    let output = cli.run(&["run", "links", "--", "sh", "-c", script]);
    assert_eq!(outcome(&output), (image(&cli, "links"), "seen".to_owned()), "{output:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn without_a_sandbox_program_it_says_what_to_install() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "small", "-q"]);
    let empty = cli.path("empty");
    fs::create_dir(&empty).unwrap();
    let mut command = cli.command(&["run", "small", "--", "true"]);
    let output = command.env("PATH", &empty).output().unwrap();
    assert_eq!(code(&output), 125);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("is installed") || text.contains("is not installed"), "{text}");
    assert!(text.contains("apt-get install bubblewrap"), "{text}");
    assert_eq!(output.stdout, b"");
}

/// A run whose command says when it is there and then sleeps.
fn sleeping(cli: &Cli, runtime: &str, words: &[&str]) -> Child {
    let script = "echo new > /new; echo there; sleep 1234.5 & sleep 1234.5";
    let words = [words, &["--", "sh", "-c", script]].concat();
    let mut command = command(cli, runtime, &words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("SECRET", "hidden");
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "there\n");
    child
}

/// The command lines of all processes.
fn command_lines() -> String {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n").collect()
}

/// How many processes have a command line that begins so.
fn processes_with(words: &str) -> usize {
    command_lines().lines().filter(|line| line.starts_with(words)).count()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_run_that_is_stopped_commits_nothing_and_one_that_is_killed_leaves_nothing() {
    let Some(cli) = small() else { return };
    for runtime in ["bubblewrap", "crun"] {
        for (signal, expected) in [("-TERM", 143), ("-INT", 130), ("-HUP", 129)] {
            let child = sleeping(&cli, runtime, &["--tag", "never"]);
            // To it alone, or, as a terminal does, to all that are in the foreground.
            let others = if signal == "-HUP" { children(child.id()) } else { Vec::new() };
            let words: Vec<_> = others.iter().chain([&child.id()]).map(ToString::to_string).collect();
            assert!(Command::new("kill").arg(signal).args(&words).status().unwrap().success());
            let output = child.wait_with_output().unwrap();
            assert_eq!(code(&output), expected, "{runtime}: {output:?}");
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("cancelled; nothing was committed"), "{text}");
            assert_eq!(cli.fails(&["inspect", "never"]).0, 3);
            wait_until("the command is gone", || processes_with("sleep 1234.5") == 0);
            nothing_is_left(&cli);
        }

        let mut child = sleeping(&cli, runtime, &["--tag", "never", "-e", "SECRET"]);
        assert!(!command_lines().contains("hidden"), "what a command is told is nobody else's to read");
        assert!(cli.ok(&["workspace", "ls"]).contains(&format!("used by process {}", child.id())));
        let (code, message) = cli.fails(&["rm", "small"]);
        assert!(code == 4 && message.contains("uses it"), "{message}");
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("the command is gone", || processes_with("sleep 1234.5") == 0);
        assert_eq!(cli.ok(&["--json", "workspace", "ls"]).trim(), "[]", "it ended with its process");
        // The next clears up.
        cli.ok(&["run", "small", "--disposable", "--", "sh", "-c", ":"]);
        nothing_is_left(&cli);
        let left = fs::read_dir(cli.path("store/workspaces")).unwrap();
        let left = left.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
        assert_eq!(left, 1, "{runtime}: what they lie over");
        assert_eq!(last_line(&cli.ok(&["images", "-a", "-q"])), image(&cli, "small"));
    }
}

#[test]
fn a_run_that_is_killed_while_it_starts_leaves_nothing_running() {
    let Some(cli) = small() else { return };
    for runtime in ["bubblewrap", "crun"] {
        for kill in 0..60_u64 {
            let mut command = command(&cli, runtime, &["-q", "--", "sh", "-c", "sleep 1234.25"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(5 + kill));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        wait_until("all have ended", || processes_with("sleep 1234.25") == 0);
    }
    // A directory in which mounts are tried is somebody's for a second.
    std::thread::sleep(Duration::from_millis(1_100));
    cli.ok(&["run", "small", "--disposable", "--", "sh", "-c", ":"]);
    nothing_is_left(&cli);
}

#[test]
fn a_run_that_ended_with_its_process_namespace_is_known_to_have() {
    let Some(cli) = small() else { return };
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--", env!("CARGO_BIN_EXE_layerstone")]);
    command.args(["run", "small", "--", "sh", "-c", "echo there; sleep 1234.5"]);
    command.env("LAYERSTONE_STORE", cli.path("store")).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "there\n");
    assert!(cli.ok(&["workspace", "ls"]).contains("used by process"));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("nobody uses it", || cli.ok(&["workspace", "ls"]).lines().count() == 1);
    cli.ok(&["rm", "small"]);
}

#[test]
fn what_a_command_leaves_running_writes_nothing_after_it() {
    let Some(cli) = small() else { return };
    // More than can be ended at once.
    let script = "
        i=0; while [ $i -lt 60 ]; do ( while :; do echo x; done > /log$i ) & i=$((i + 1)); done; sleep 0.1; exit 0
    ";
    for turn in 0..4 {
        let tag = format!("t{turn}");
        cli.ok(&["run", "small", "--tag", &tag, "-q", "--", "sh", "-c", script]);
        assert_eq!(cli.ok(&["workspace", "create", &tag, "--name", "w", "-q"]), "w\n");
        let path = cli.ok(&["workspace", "path", "w"]);
        let listed: serde_json::Value = serde_json::from_str(&cli.ok(&["--json", "ls", &tag, "/"])).unwrap();
        let listed = listed.as_array().unwrap();
        assert!(listed.len() > 30, "{listed:?}");
        // If it lies over what the command wrote, that is the image.
        for entry in listed.iter().filter(|entry| entry["kind"] == "file") {
            let path = Path::new(path.trim_end()).join(&entry["path"].as_str().unwrap()[1..]);
            assert_eq!(entry["size"], fs::metadata(&path).unwrap().len(), "{}", path.display());
        }
        let there = fs::read_dir(path.trim_end()).unwrap().count();
        assert_eq!(there, listed.len());
        assert!(cli.ok(&["workspace", "commit", "w"]).starts_with("unchanged"));
        nothing_is_left(&cli);
    }
}

fn children(process: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    list.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// Makes, commits and runs on, and says so of each once it was acknowledged; until it is killed.
const WORK: &str = r#"
    turn=$1
    while :; do
        name=$($LAYERSTONE workspace create small -q) || exit 1
        echo "made $name $turn"
        echo $turn > $($LAYERSTONE workspace path $name)/turn || exit 1
        $LAYERSTONE workspace commit $name --tag c$turn -q > /dev/null || exit 1
        echo "ended $name c$turn"
        $LAYERSTONE run c$turn --tag r$turn -q -- sh -c 'echo run >> turn' > /dev/null || exit 1
        echo "ran r$turn"
        turn=$((turn + 1))
    done
"#;

#[test]
fn what_was_acknowledged_survives_a_kill_and_nothing_needs_a_helping_hand() {
    let Some(cli) = small() else { return };
    let mut made = std::collections::BTreeMap::new();
    let mut tags = Vec::new();
    let mut kill = 0_u64;
    while kill < 40 || tags.len() <= 40 {
        kill += 1;
        // A session of its own, so that all of it is killed at once.
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", WORK, "sh", &(kill * 1_000).to_string()]).stdout(Stdio::piped());
        command
            .env("LAYERSTONE", env!("CARGO_BIN_EXE_layerstone"))
            .env("LAYERSTONE_STORE", cli.path("store"));
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        // Behind so much that was acknowledged, at any moment of what follows.
        for _ in 0..kill % 5 {
            assert!(output.read_line(&mut text).unwrap() > 0, "it ended by itself: {text}");
        }
        std::thread::sleep(Duration::from_millis(kill * 37 % 200));
        let group = format!("-{}", child.id());
        assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
        output.read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "it ended by itself: {text}");
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["made", name, turn] => drop(made.insert(name.to_owned(), turn.to_owned())),
                ["ended", name, tag] => {
                    made.remove(name);
                    tags.push(tag.to_owned());
                }
                ["ran", tag] => tags.push(tag.to_owned()),
                // Killed in the middle of it.
                _ => {}
            }
        }
    }
    for tag in &tags {
        let expected = format!("{}\n{}", &tag[1..], if tag.starts_with('r') { "run\n" } else { "" });
        assert_eq!(cli.ok(&["cat", tag, "/turn"]), expected, "{tag}");
    }
    // A commit that was killed may have ended its workspace without saying so.
    for (name, turn) in &made {
        let path = cli.run(&["workspace", "path", name]);
        if !path.status.success() {
            assert_eq!(cli.ok(&["cat", &format!("c{turn}"), "/turn"]), format!("{turn}\n"));
            continue;
        }
        let path = PathBuf::from(String::from_utf8(path.stdout).unwrap().trim_end());
        assert!(path.join("bin/sh").exists(), "{name}");
        if let Ok(text) = fs::read_to_string(path.join("turn")) {
            assert!(text.is_empty() || text == format!("{turn}\n"));
        }
        cli.ok(&["workspace", "commit", name, "-q"]);
    }
    cli.ok(&["verify"]);
    // Those that were made and not acknowledged.
    let listed: serde_json::Value = serde_json::from_str(&cli.ok(&["--json", "workspace", "ls"])).unwrap();
    for workspace in listed.as_array().unwrap() {
        cli.ok(&["workspace", "discard", workspace["name"].as_str().unwrap()]);
    }
    cli.ok(&["run", "small", "--disposable", "--", "sh", "-c", ":"]);
    nothing_is_left(&cli);
    let left = fs::read_dir(cli.path("store/workspaces")).unwrap();
    let left = left.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert!(left <= 1 + 4 * 2, "{left} directories are left: more than lie below what is idle");
}
