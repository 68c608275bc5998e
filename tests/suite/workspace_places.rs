//! What lies where a workspace's files should be and is not the workspace's: nothing keeps, commits, ends or deletes it. Needs
//! root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use layerstone::{CommitOptions, Error, ErrorKind, GcOptions, Store, Workspace, WorkspaceOptions};

use crate::cli::Cli;
use crate::given::{Place, parse};
use crate::system::{self, bind, program, unmount};
use crate::workspaces::{Given, copy, given, image, left, options, overlay};

/// What everything that reads, keeps or ends the workspace says.
pub(crate) fn refusals(place: &Place, workspace: &Workspace) -> Vec<Error> {
    let store = Store::open(place.path("store")).unwrap();
    let options = CommitOptions::default();
    store.collect_garbage(&GcOptions::default()).unwrap();
    vec![
        workspace.path().unwrap_err(),
        workspace.commit(&options).unwrap_err(),
        workspace.commit_and_end(&options).unwrap_err(),
        workspace.keep().unwrap_err(),
        workspace.discard().unwrap_err(),
        store.remove_project(&parse("p"), true).unwrap_err(),
    ]
}

pub(crate) fn assert_refused(place: &Place, workspace: &Workspace, kind: ErrorKind, message: &str) {
    for error in refusals(place, workspace) {
        assert_eq!(error.kind(), kind, "{message}: {error}");
        assert!(error.to_string().contains(message), "{message}: {error}");
    }
}

#[test]
fn what_was_written_where_nothing_is_mounted_is_not_deleted() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    for temporary in [false, true] {
        let options = WorkspaceOptions { temporary, ..options("w") };
        let workspace = image(&project, base).create_workspace(&options).unwrap();
        let path = workspace.path().unwrap();
        fs::write(path.join("new"), "new").unwrap();
        unmount(&path);
        fs::write(path.join("lost"), "?").unwrap();
        assert_refused(&place, &workspace, ErrorKind::Conflict, "move them away");
        assert_eq!(fs::read(path.join("lost")).unwrap(), b"?");
        assert_eq!(workspace.info().unwrap().process, None, "what was done in a temporary one is kept");
        fs::rename(path.join("lost"), place.path("moved")).unwrap();
        assert_eq!(fs::read(workspace.path().unwrap().join("new")).unwrap(), b"new");
        let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
        assert_eq!(crate::given::read(&image(&project, made), "new").unwrap(), b"new");
    }
}

#[test]
fn what_a_mount_hid_is_not_deleted() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    let other = place.directory("other", &[]);
    bind(&path, &other);
    unmount(&path);
    fs::write(path.join("hidden"), "?").unwrap();
    // The overlay again, as a user would move it back.
    bind(&other, &path);
    unmount(&other);
    workspace.commit(&CommitOptions::default()).unwrap();
    for error in
        [workspace.commit_and_end(&CommitOptions::default()).unwrap_err(), workspace.discard().unwrap_err()]
    {
        assert!(
            error.is_conflict() && error.to_string().contains("unmount it, and move them away"),
            "{error}"
        );
        assert!(workspace.info().unwrap().is_mounted, "it stays as it is");
    }
    let error = Store::open(place.path("store")).unwrap().remove_project(&parse("p"), true).unwrap_err();
    assert!(error.is_conflict() && error.to_string().contains("unmount it"), "{error}");
    unmount(&path);
    assert_eq!(fs::read(path.join("hidden")).unwrap(), b"?");
    fs::remove_file(path.join("hidden")).unwrap();
    workspace.discard().unwrap();
}

#[test]
fn what_another_mount_namespace_wrote_under_the_mount_is_found_before_that_ends() {
    if !system::is_on() {
        return;
    }
    let Given { place: _place, project, base } = given();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    fs::write(path.join("new"), "new").unwrap();
    let script = "umount \"$0\" && echo f > \"$0/hidden\"";
    let words = ["--mount", "--propagation", "private", "sh", "-c", script].map(Path::new);
    program("unshare", &[&words[..], &[&path]].concat());
    for error in
        [workspace.commit_and_end(&CommitOptions::default()).unwrap_err(), workspace.discard().unwrap_err()]
    {
        assert!(
            error.is_conflict() && error.to_string().contains("unmount it, and move them away"),
            "{error}"
        );
        assert!(workspace.info().unwrap().is_mounted && path.join("new").exists());
    }
    unmount(&path);
    fs::remove_file(path.join("hidden")).unwrap();
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    assert_eq!(crate::given::read(&image(&project, made), "new").unwrap(), b"new");
}

#[test]
fn what_else_is_mounted_there_is_left_alone() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    let victim = place.directory("victim", &[("kept", b"kept")]);
    let another = overlay(&project, base, "another").path().unwrap();
    let message = "has something mounted on it that is not the workspace's";
    for (is_unmounted, from) in [(true, &victim), (false, &victim), (true, &another), (false, &another)] {
        let workspace = overlay(&project, base, "w");
        let path = workspace.path().unwrap();
        fs::write(path.join("new"), "new").unwrap();
        if is_unmounted {
            unmount(&path);
        }
        bind(from, &path);
        assert!(!workspace.info().unwrap().is_mounted);
        assert_refused(&place, &workspace, ErrorKind::InUse, message);
        assert!(victim.join("kept").exists() && another.join("content").exists());
        unmount(&path);
        let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
        assert_eq!(crate::given::read(&image(&project, made), "new").unwrap(), b"new");
    }
    // Over the files themselves, and over the whole directory of a workspace, also of a full copy.
    for options in [copy as fn(&str) -> WorkspaceOptions, options] {
        for above in ["files", ""] {
            let workspace = image(&project, base).create_workspace(&options("w")).unwrap();
            let path = workspace.path().unwrap();
            let target = path.parent().unwrap().join(above);
            bind(&victim, &target);
            assert_refused(&place, &workspace, ErrorKind::InUse, message);
            unmount(&target);
            workspace.discard().unwrap();
        }
    }
    assert_eq!(fs::read(victim.join("kept")).unwrap(), b"kept");
}

#[test]
fn another_directory_in_the_place_of_the_files_is_not_committed() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    let outside = place.directory("outside", &[("kept", b"kept")]);
    for options in [copy as fn(&str) -> WorkspaceOptions, options] {
        let workspace = image(&project, base).create_workspace(&options("w")).unwrap();
        let path = workspace.path().unwrap();
        let files = path.with_file_name("files");
        fs::write(path.join("new"), "new").unwrap();
        if path != files {
            unmount(&path);
        }
        let away = place.path("away");
        fs::rename(&files, &away).unwrap();
        symlink(&outside, &files).unwrap();
        assert_refused(&place, &workspace, ErrorKind::Conflict, "is not the directory that the store made");
        fs::remove_file(&files).unwrap();
        fs::create_dir(&files).unwrap();
        fs::write(files.join("swapped"), "?").unwrap();
        assert_refused(&place, &workspace, ErrorKind::Conflict, "is another directory than");
        assert_eq!(fs::read(files.join("swapped")).unwrap(), b"?");
        fs::remove_dir_all(&files).unwrap();
        fs::rename(&away, &files).unwrap();
        let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
        assert_eq!(crate::given::read(&image(&project, made), "new").unwrap(), b"new");
    }
    // The mount point, and the workspace's directory.
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    unmount(&path);
    fs::remove_dir(&path).unwrap();
    symlink(&outside, &path).unwrap();
    assert_refused(&place, &workspace, ErrorKind::Conflict, "is not the directory that the store made");
    fs::remove_file(&path).unwrap();
    assert_eq!(workspace.path().unwrap(), path, "one that is missing is made again");
    unmount(&path);
    let (own, away) = (path.parent().unwrap(), place.path("away"));
    fs::rename(own, &away).unwrap();
    symlink(&away, own).unwrap();
    assert_refused(&place, &workspace, ErrorKind::Conflict, "is not the directory that the store made");
    fs::remove_file(own).unwrap();
    fs::rename(&away, own).unwrap();
    workspace.discard().unwrap();
    assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept");
}

#[test]
fn what_is_left_of_a_dead_one_is_not_deleted_with_what_is_not_its_own() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    let victim = place.directory("victim", &[("kept", b"kept")]);
    overlay(&project, base, "w").discard().unwrap();
    let stray = place.path("store/workspaces/0000000077");
    for directory in ["files", "work", "merged"] {
        fs::create_dir_all(stray.join(directory)).unwrap();
    }
    let clean = || overlay(&project, base, "w").discard().unwrap();
    fs::write(stray.join("merged/lost"), "?").unwrap();
    clean();
    assert_eq!(fs::read(stray.join("merged/lost")).unwrap(), b"?");
    fs::remove_file(stray.join("merged/lost")).unwrap();
    for above in ["merged", "files", ""] {
        bind(&victim, &stray.join(above));
        clean();
        unmount(&stray.join(above));
        assert!(victim.join("kept").exists(), "{above}");
        fs::create_dir_all(stray.join("files")).unwrap();
        fs::create_dir_all(stray.join("merged")).unwrap();
    }
    clean();
    assert!(!stray.exists());
    assert_eq!(left(&place).len(), 1);
}

#[test]
fn a_commit_of_an_unmounted_workspace_says_what_to_do() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    cli.ok(&["workspace", "create", "base", "--name", "u", "-q"]);
    let path = cli.ok(&["workspace", "path", "u"]);
    let path = Path::new(path.trim_end());
    unmount(path);
    fs::write(path.join("f"), "x\n").unwrap();
    for words in [
        &["workspace", "path", "u"][..],
        &["workspace", "commit", "u"],
        &["workspace", "commit", "u", "--keep"],
        &["workspace", "discard", "u"],
    ] {
        let (code, message) = cli.fails(words);
        assert_eq!(code, 4, "{words:?}");
        assert!(
            message.contains("merged: has files that were written while nothing was mounted"),
            "{message}"
        );
    }
    assert_eq!(fs::read(path.join("f")).unwrap(), b"x\n");
    fs::remove_file(path.join("f")).unwrap();
    cli.ok(&["workspace", "discard", "u"]);
}
