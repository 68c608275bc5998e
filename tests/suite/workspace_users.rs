//! Who works in a workspace while it is to end: nothing is deleted under him, and what is refused stays as it was.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use layerstone::{CommitOptions, ErrorKind, Store};

use crate::given::{parse, read};
use crate::system::{self, bind, program, unmount};
use crate::workspace_places::assert_refused;
use crate::workspaces::{Given, copy, given, image, overlay};

/// A program that works until it is let go, once it says that it does.
fn works(mut command: Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child
}

fn shell(directory: &Path, before: &str, path: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before}; echo; read x || true")]).arg(path).current_dir(directory);
    command
}

fn release(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_full_copy_is_not_ended_under_whoever_works_in_it() {
    let Given { place, project, base } = given();
    let workspace = image(&project, base).create_workspace(&copy("w")).unwrap();
    let path = workspace.path().unwrap();
    fs::create_dir(path.join("below")).unwrap();
    fs::copy("/bin/cat", path.join("program")).unwrap();
    let here = Path::new("/");
    let mut users = vec![
        shell(&path, ":", &path),
        shell(&path.join("below"), ":", &path),
        shell(here, "exec 3> \"$0\"/open", &path),
        shell(here, "exec 3> \"$0\"/open; rm \"$0\"/open", &path),
        shell(here, "\"$0\"/program; true", &path),
    ];
    if system::is_on() {
        // Under another path, in a mount namespace of its own.
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0\"/below \"$1\" && cd \"$1\"; echo; read x || true";
        command.args(["--mount", "sh", "-c", script]).arg(&path).arg(place.directory("elsewhere", &[]));
        users.push(command);
    }
    for mut user in users {
        // The program says nothing of itself: what it is given, it says.
        user.stdin(Stdio::piped());
        let child = if format!("{user:?}").contains("program; true") {
            let child = user.stdout(Stdio::null()).spawn().unwrap();
            while !fs::read_dir("/proc").unwrap().flatten().any(|process| {
                fs::read_link(process.path().join("exe")).is_ok_and(|program| program == path.join("program"))
            }) {
                std::thread::yield_now();
            }
            child
        } else {
            works(user)
        };
        let store = Store::open(place.path("store")).unwrap();
        for error in [
            workspace.commit_and_end(&CommitOptions::default()).unwrap_err(),
            workspace.discard().unwrap_err(),
            store.remove_project(&parse("p"), true).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
            assert!(error.to_string().contains("files: is busy: process "), "{error}");
        }
        assert!(path.join("below").exists());
        workspace.commit(&CommitOptions::default()).unwrap();
        release(child);
    }
    fs::write(path.join("new"), "new").unwrap();
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    assert_eq!(read(&image(&project, made), "new").unwrap(), b"new");
}

#[test]
fn one_that_is_mounted_elsewhere_too_stays_mounted_when_its_end_is_refused() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    let elsewhere = place.directory("elsewhere", &[]);
    fs::create_dir(path.join("part")).unwrap();
    for part in [path.clone(), path.join("part")] {
        bind(&part, &elsewhere);
        for error in [
            workspace.discard().unwrap_err(),
            workspace.commit_and_end(&CommitOptions::default()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InUse);
            assert!(error.to_string().contains("merged: is mounted at "), "{error}");
            assert!(workspace.info().unwrap().is_mounted && path.join("part").exists());
        }
        workspace.commit(&CommitOptions::default()).unwrap();
        unmount(&elsewhere);
    }
    // In another mount namespace alone, where somebody works.
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" \"$1\" && cd \"$1\" && echo && read x || true";
    let words = ["--mount", "--propagation", "private", "sh", "-c", script];
    command.args(words).arg(&path).arg(&elsewhere);
    let child = works(command);
    for error in
        [workspace.discard().unwrap_err(), workspace.commit_and_end(&CommitOptions::default()).unwrap_err()]
    {
        assert!(error.to_string().contains("works in it, where it is mounted in another"), "{error}");
        assert!(workspace.info().unwrap().is_mounted && path.join("part").exists());
    }
    fs::write(path.join("new"), "new").unwrap();
    release(child);
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    assert_eq!(read(&image(&project, made), "new").unwrap(), b"new");
}

#[test]
fn one_whose_folder_is_under_a_mount_is_not_taken_for_gone() {
    if !system::is_on() {
        return;
    }
    for options in [crate::workspaces::options as fn(&str) -> _, copy] {
        let Given { place, project, base } = given();
        let workspace = image(&project, base).create_workspace(&options("w")).unwrap();
        fs::write(workspace.path().unwrap().join("new"), "new").unwrap();
        let folder = place.path("store/workspaces");
        program("mount", &[Path::new("-t"), Path::new("tmpfs"), Path::new("none"), &folder]);
        assert_refused(
            &place,
            &workspace,
            ErrorKind::InUse,
            "workspaces: is a mount point without the workspace's",
        );
        unmount(&folder);
        let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
        assert_eq!(read(&image(&project, made), "new").unwrap(), b"new");
    }
}

/// Whoever writes by a full copy's path, a file at a time, fails once its last commit reads it: what was written is in the image.
#[test]
fn what_is_written_while_a_full_copy_ends_is_in_its_image() {
    let Given { place: _place, project, base } = given();
    let workspace = image(&project, base).create_workspace(&copy("w")).unwrap();
    let path = workspace.path().unwrap();
    for number in 0..400 {
        fs::write(path.join(format!("old{number}")), format!("{number}")).unwrap();
    }
    let mut writer = Command::new("sh");
    let script = "i=0; echo; while echo $i 2>/dev/null > \"$0\"/new$i; do i=$((i+1)); done; echo $i";
    let writer = works({
        writer.args(["-c", script]).arg(&path).current_dir("/").stderr(Stdio::null());
        writer
    });
    let report = loop {
        match workspace.commit_and_end(&CommitOptions::default()) {
            Ok(report) => break report,
            // It had a file open at that moment.
            Err(error) => assert_eq!(error.kind(), ErrorKind::InUse, "{error}"),
        }
    };
    let output = writer.wait_with_output().unwrap();
    let written: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let image = image(&project, report.image);
    for number in 0..written {
        assert_eq!(read(&image, &format!("new{number}")).unwrap(), format!("{number}\n").as_bytes());
    }
    assert!(!path.exists());
}

#[test]
fn a_full_copy_whose_last_commit_was_killed_goes_on() {
    let Given { place: _place, project, base } = given();
    let workspace = image(&project, base).create_workspace(&copy("w")).unwrap();
    let path = workspace.path().unwrap();
    fs::write(path.join("new"), "new").unwrap();
    fs::rename(&path, path.with_file_name(".layerstone-ending")).unwrap();
    assert_eq!(workspace.path().unwrap(), path);
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap();
    assert_eq!(read(&image(&project, made.image), "new").unwrap(), b"new");
}
