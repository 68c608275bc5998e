//! What becomes of a workspace whose mount somebody ends, moves, copies or covers, or beside whose files somebody puts others:
//! everything refuses alike, and nothing is lost. Needs root.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use layerstone::{CommitOptions, ErrorKind, GcOptions, Project, Store, Workspace, WorkspaceOptions};
use rustix::fs::{major, minor};

use crate::cli::Cli;
use crate::given::{Place, parse, read};
use crate::system::{self, bind, program, unmount};
use crate::workspace_places::assert_refused;
use crate::workspaces::{Given, copy, given, image, left, options, overlay};

/// A shell that runs this in a directory, waits until it is let go, and runs the rest.
fn works(directory: &Path, before: &str, after: &str) -> Child {
    let script = format!("{before}; echo; read x || true; {after}");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It says when it is there.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child
}

fn release(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// Ends the workspace, and says that the image has what was written.
fn assert_ends_with(project: &Project, workspace: &Workspace, path: &str) {
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    assert_eq!(read(&image(project, made), path).unwrap(), b"new", "{path}");
}

#[test]
fn one_that_was_unmounted_under_whoever_works_in_it_waits_for_him() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    let in_it = (":", "printf new > new");
    let with_a_file = ("exec 3> new; cd /", "printf new >&3");
    for (temporary, (before, after)) in [(false, in_it), (true, in_it), (false, with_a_file)] {
        let options = WorkspaceOptions { temporary, ..options("w") };
        let workspace = image(&project, base).create_workspace(&options).unwrap();
        let path = workspace.path().unwrap();
        let child = works(&path, before, after);
        program("umount", &[Path::new("-l"), &path]);
        assert!(!workspace.info().unwrap().is_mounted);
        assert_refused(&place, &workspace, ErrorKind::InUse, "which was unmounted meanwhile (umount -l)");
        // Also while an overlay has its place that is called as the workspace's.
        mount_as_own(&place, &path);
        assert_refused(&place, &workspace, ErrorKind::InUse, "mounted on it that is not the workspace's");
        unmount(&path);
        release(child);
        assert_ends_with(&project, &workspace, "new");
    }
}

/// Mounts an overlay of other directories on a workspace's, with the source that its own would have.
fn mount_as_own(place: &Place, path: &Path) {
    let files = path.with_file_name("files").metadata().unwrap();
    let device = (u64::from(major(files.dev())) << 32) | u64::from(minor(files.dev()));
    let source = format!("layerstone-{device:x}-{:x}", files.ino());
    let directories = ["lower", "upper", "work"].map(|name| place.path(name));
    for directory in &directories {
        fs::create_dir_all(directory).unwrap();
    }
    let [lower, upper, work] = directories.each_ref().map(|directory| directory.display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let words = ["-t", "overlay", &source, "-o", &options].map(Path::new);
    program("mount", &[&words[..], &[path]].concat());
}

#[test]
fn one_whose_mount_was_moved_is_found_elsewhere() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    overlay(&project, base, "w").discard().unwrap();
    // What lies on a shared mount can't be moved.
    let folder = place.path("store/workspaces");
    bind(&folder, &folder);
    program("mount", &[Path::new("--make-private"), &folder]);
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    let elsewhere = place.directory("elsewhere", &[]);
    program("mount", &[Path::new("--move"), &path, &elsewhere]);
    let message = format!("the workspace's mount is at {}", elsewhere.display());
    assert_refused(&place, &workspace, ErrorKind::InUse, &message);
    fs::write(elsewhere.join("more"), "new").unwrap();
    unmount(&elsewhere);
    assert_eq!(fs::read(workspace.path().unwrap().join("more")).unwrap(), b"new");
    assert_ends_with(&project, &workspace, "more");
    unmount(&folder);
}

#[test]
fn one_that_is_mounted_twice_ends_when_the_other_mount_has() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    let elsewhere = place.directory("elsewhere", &[]);
    bind(&path, &elsewhere);
    workspace.commit(&CommitOptions::default()).unwrap();
    unmount(&path);
    for error in
        [workspace.discard().unwrap_err(), workspace.commit_and_end(&CommitOptions::default()).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.to_string().contains("the workspace's mount is at "), "{error}");
    }
    fs::write(elsewhere.join("new"), "new").unwrap();
    unmount(&elsewhere);
    workspace.path().unwrap();
    // On itself: whole, and a part of it.
    fs::create_dir(path.join("part")).unwrap();
    bind(&path.join("part"), &path);
    assert_refused(&place, &workspace, ErrorKind::InUse, "mounted on it that is not the workspace's");
    unmount(&path);
    bind(&path, &path);
    assert_ends_with(&project, &workspace, "new");
}

#[test]
fn one_that_was_mounted_again_to_be_read_only_is_committed() {
    if !system::is_on() {
        return;
    }
    let Given { place: _place, project, base } = given();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    fs::write(path.join("new"), "new").unwrap();
    program("mount", &[Path::new("-o"), Path::new("remount,ro"), &path]);
    workspace.commit(&CommitOptions::default()).unwrap();
    assert_ends_with(&project, &workspace, "new");
}

#[test]
fn what_is_mounted_in_one_is_named() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    let other = place.directory("other", &[("hides", b"this")]);
    for options in [copy as fn(&str) -> WorkspaceOptions, options] {
        let workspace = image(&project, base).create_workspace(&options("w")).unwrap();
        let path = workspace.path().unwrap();
        let is_overlay = path.ends_with("merged");
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/file"), "new").unwrap();
        bind(&other, &path.join("sub"));
        let kept = workspace.commit(&CommitOptions::default());
        assert_eq!(kept.is_ok(), is_overlay);
        if let Ok(kept) = kept {
            assert_eq!(kept.source.mounts_left_out, [parse("/sub")]);
            assert_eq!(read(&image(&project, kept.image), "sub/file").unwrap(), b"new");
        }
        for error in [
            workspace.discard().unwrap_err(),
            workspace.commit_and_end(&CommitOptions::default()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InUse);
            assert!(error.to_string().contains("sub: is mounted in the workspace"), "{error}");
        }
        assert!(workspace.info().unwrap().is_mounted);
        unmount(&path.join("sub"));
        assert_ends_with(&project, &workspace, "sub/file");
    }
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    cli.ok(&["workspace", "create", "base", "--name", "w", "-q"]);
    let path = cli.ok(&["workspace", "path", "w"]);
    let sub = Path::new(path.trim_end()).join("etc");
    bind(&other, &sub);
    let output = cli.run(&["workspace", "commit", "w", "--keep"]);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("What is mounted at 1 path (/etc) was left out"), "{notes}");
    unmount(&sub);
    cli.ok(&["workspace", "discard", "w"]);
}

#[test]
fn what_somebody_put_beside_the_files_is_not_deleted() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    for (options, places) in [
        (copy as fn(&str) -> WorkspaceOptions, &["notes", "run"][..]),
        (options, &["notes", "lower", "work/notes", "work/work/notes"]),
    ] {
        for name in places {
            let workspace = image(&project, base).create_workspace(&options("w")).unwrap();
            let path = workspace.path().unwrap();
            fs::write(path.join("new"), "new").unwrap();
            let notes = path.parent().unwrap().join(name);
            fs::write(&notes, "mine").unwrap();
            assert_refused(
                &place,
                &workspace,
                ErrorKind::Conflict,
                "is not what the store made; move it away",
            );
            assert_eq!(fs::read(&notes).unwrap(), b"mine", "{name}");
            fs::remove_file(&notes).unwrap();
            assert_ends_with(&project, &workspace, "new");
        }
    }
    // Of what has no row any more all else goes, and a collection names it.
    let stray = place.path("store/workspaces/0000000077");
    fs::create_dir_all(stray.join("files/sub")).unwrap();
    fs::create_dir_all(stray.join("notes")).unwrap();
    fs::write(stray.join("notes/today"), "mine").unwrap();
    let store = Store::open(place.path("store")).unwrap();
    for _ in 0..2 {
        let report = store.collect_garbage(&GcOptions::default()).unwrap();
        let [found] = report.left_over.try_into().unwrap();
        assert_eq!((found.path.as_path(), stray.join("files").exists()), (stray.as_path(), false));
        assert!(found.reason.contains("notes: is not what the store made"), "{}", found.reason);
    }
    assert_eq!(fs::read(stray.join("notes/today")).unwrap(), b"mine");
    fs::remove_dir_all(&stray).unwrap();
    store.collect_garbage(&GcOptions { caches: true, ..Default::default() }).unwrap();
    assert!(left(&place).is_empty());
}
