//! What `run` refuses, or says, before a command can do harm or its outcome is lost. Needs root, and what `.ci/run` installs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::Cli;
use crate::run::{code, nothing_is_left, small};

/// Runs this in a shell in which `$0` is the program.
fn shell(cli: &Cli, script: &str) -> std::process::Output {
    let program = env!("CARGO_BIN_EXE_layerstone");
    let mut command = Command::new("sh");
    command
        .args(["-c", script, program])
        .env("LAYERSTONE_STORE", cli.path("store"))
        .current_dir(cli.path(""));
    command.stdin(Stdio::null()).output().unwrap()
}

fn executable(cli: &Cli, name: &str, text: &str) {
    let path = cli.path("tree/bin").join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn no_command_is_started_that_leads_to_a_program_of_the_host_or_to_none() {
    let Some(cli) = small() else { return };
    symlink("/proc/self/exe", cli.path("tree/bin/self")).unwrap();
    executable(&cli, "by-self", "#!/proc/self/exe\n");
    executable(&cli, "first", "#!/bin/second\n");
    executable(&cli, "second", "#!/bin/nope\n");
    cli.ok(&["import", "tree", "--tag", "t", "-q"]);
    let host = "leads through /proc, where it may be a program of the host";
    for (words, expected, message) in [
        (&["self"][..], 126, format!("'self' {host}")),
        (&["/proc/1/exe"], 126, format!("'/proc/1/exe' {host}")),
        (&["-e", "PATH=/proc/self", "exe"], 126, format!("'exe' {host}")),
        (&["by-self"], 126, format!("'by-self' is run by '/proc/self/exe', which {host}")),
        (
            &["first"],
            127,
            "'first' is run by '/bin/second', which names '/bin/nope' in its first line".into(),
        ),
        (&["/dev/null"], 126, "'/dev/null' is no program that can be executed".into()),
        (&["/dev/nope"], 127, "'/dev/nope' is not in the image".into()),
        (&["/bin/cat/"], 127, "'/bin/cat/' is not in the image".into()),
        (&["-w", "/dev/null", "sh"], 125, "'/dev/null' is no directory in the image".into()),
        (&["-w", "/proc/nope", "sh"], 125, "'/proc/nope' is no directory in the image".into()),
    ] {
        let (found, text) = cli.fails(&[&["run", "t"], words].concat());
        assert_eq!(found, expected, "{words:?}: {text}");
        assert!(text.starts_with(&format!("layerstone: {message}")), "{words:?}: {text}");
        assert!(!cli.path("store/workspaces").exists(), "{words:?}");
    }
    // What only the runtime finds out it says itself, and this program that nothing was started.
    let (found, text) = cli.fails(&["run", "t", "-w", "/proc/self/nope", "sh"]);
    assert_eq!(found, 125);
    assert!(text.contains("\nlayerstone: run: bubblewrap could not start the command"), "{text}");
    nothing_is_left(&cli);
}

#[test]
fn the_host_s_runtime_is_out_of_the_command_s_reach() {
    let Some(cli) = small() else { return };
    let find = |folder: &Path| Some(folder.join("bwrap")).filter(|path| path.exists());
    let Some(bwrap) =
        std::env::split_paths(&std::env::var_os("PATH").unwrap()).find_map(|folder| find(&folder))
    else {
        return;
    };
    let mode = || bwrap.metadata().unwrap().permissions().mode() & 0o7777;
    let before = mode();
    let other = format!("{:o}", before ^ 0o022);
    let script = format!("chmod {other} /proc/1/exe; readlink /proc/1/exe; ls /proc/self/fd");
    let output = cli.run(&["run", "small", "--rm", "--", "sh", "-c", &script]);
    let found = mode();
    if found != before {
        fs::set_permissions(&bwrap, Permissions::from_mode(before)).unwrap();
    }
    assert_eq!(found, before);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "/memfd:bwrap (deleted)\n0\n1\n2\n3\n", "the last is the listing's own");
}

#[test]
fn a_closed_standard_output_is_noticed_before_the_command_runs() {
    let Some(cli) = small() else { return };
    let before = cli.ok(&["images", "-q"]);
    for options in ["", "--json"] {
        let output = shell(&cli, &format!("\"$0\" {options} run small sh -c '> /new' >&-"));
        assert_eq!(code(&output), 125, "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("standard output: could not write: "));
        assert!(!cli.path("store/workspaces").exists());
    }
    assert_eq!(cli.ok(&["images", "-q"]), before);
    // Others say what they did.
    fs::write(cli.path("tree/more"), "more").unwrap();
    let output = shell(&cli, "\"$0\" import tree >&-");
    assert_eq!(code(&output), 1);
    let said = String::from_utf8(output.stderr).unwrap();
    let made = said.split_once("; image ").and_then(|(_, rest)| rest.split_once(" was made")).unwrap().0;
    assert_eq!(cli.ok(&["cat", made, "/more"]), "more");
    assert_eq!(code(&shell(&cli, "\"$0\" images > /dev/null")), 0);
}

#[test]
fn a_message_that_docker_takes_for_a_limit_is_said_to_be_none() {
    let Some(cli) = small() else { return };
    let note = "-m is the message here, not a limit of memory";
    for (message, is_size) in
        [("1g", true), ("512M", true), ("1.5GiB", true), ("100", true), ("1 big", false), ("g", false)]
    {
        let output = cli.run(&["run", "small", "--rm", "-m", message, "--", "cat", "/dev/null"]);
        assert_eq!(code(&output), 0);
        assert_eq!(String::from_utf8_lossy(&output.stderr).contains(note), is_size, "{message}");
    }
}

/// Runs the program as a user without privileges, in a shell, in a folder of its own.
fn as_ordinary_user(cli: &Cli, script: &str) -> Option<std::process::Output> {
    let program = cli.path("layerstone");
    fs::copy(env!("CARGO_BIN_EXE_layerstone"), &program).unwrap();
    fs::set_permissions(cli.path(""), Permissions::from_mode(0o777)).unwrap();
    let namespaces = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let can = Command::new("setpriv").args(namespaces).args(["unshare", "--user", "true"]).output().unwrap();
    if !can.status.success() {
        println!("skipped: ordinary users can have no namespaces here");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args(namespaces).args(["sh", "-c", script]).arg(program).current_dir(cli.path(""));
    command.env("LAYERSTONE_STORE", cli.path("own"));
    Some(command.stdin(Stdio::null()).output().unwrap())
}

#[test]
fn an_ordinary_user_runs_an_image_whose_directories_their_owner_can_t_enter() {
    let Some(cli) = small() else { return };
    for mode in ["0", "600"] {
        let script = String::from(
            "\"$0\" init > /dev/null && \"$0\" import mine.tar --tag t -q > /dev/null || exit 99
             \"$0\" run t --tag u -q -- sh -c 'cat /etc/hosts > /dev/null && echo there > /new && ls -ld /etc /run'
             code=$?; \"$0\" diff t u; chmod -R 700 own; rm -rf own; exit $code"
        );
        let made = shell(
            &cli,
            &format!(
                "rm -rf mine && cp -r tree mine && mkdir -p mine/etc/deep mine/run && ln -s deep/hosts mine/etc/hosts &&
                 ln -s /run/resolve/it mine/etc/resolv.conf && chmod {mode} mine/etc mine/run && tar cf mine.tar -C mine ."
            ),
        );
        assert_eq!(code(&made), 0, "{made:?}");
        let Some(output) = as_ordinary_user(&cli, &script) else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(code(&output), 0, "{output:?}");
        let shown = if mode == "0" { "d---------" } else { "drw-------" };
        assert_eq!(text.matches(shown).count(), 2, "{output:?}");
        assert!(text.ends_with("M /  (mtime)\nA /new\n"), "{output:?}");
    }
}
