//! Workspaces of a store that was copied, or restored, on the file system that it lies on. Needs root.

use std::fs;
use std::path::Path;

use layerstone::{CommitOptions, ErrorKind, Project, Store, Workspace, WorkspaceOptions};

use crate::given::{Place, parse, read};
use crate::system::{self, program, unmount};
use crate::workspace_places::assert_refused;
use crate::workspaces::{Given, copy, given, image, options};

type Copying = fn(&Place);

/// Beside the store, which is moved away first.
fn copied(place: &Place) {
    fs::rename(place.path("store"), place.path("old")).unwrap();
    program("cp", &[Path::new("-a"), &place.path("old"), &place.path("store")]);
}

/// From an archive, after all of the store is gone: what is made may get the same inodes.
fn restored(place: &Place) {
    archive(place);
    fs::remove_dir_all(place.path("store")).unwrap();
    unpack(place);
}

/// The same into the directory that it had.
fn restored_in_place(place: &Place) {
    archive(place);
    for entry in fs::read_dir(place.path("store")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    unpack(place);
}

fn archive(place: &Place) {
    let (archive, folder) = (place.path("store.tar"), place.path(""));
    let words = ["--xattrs", "--xattrs-include=*", "-cf"].map(Path::new);
    program("tar", &[&words[..], &[&archive, Path::new("-C"), &folder, Path::new("store")]].concat());
}

fn unpack(place: &Place) {
    let (archive, folder) = (place.path("store.tar"), place.path(""));
    let words = ["--xattrs", "--xattrs-include=*", "-xpf"].map(Path::new);
    program("tar", &[&words[..], &[&archive, Path::new("-C"), &folder]].concat());
}

/// A store with a workspace in which something was written, copied so; and the workspace of the copy.
fn given_copy(copying: Copying, options: &WorkspaceOptions) -> (Place, Project, Workspace) {
    let Given { place, project: made, base } = given();
    let workspace = image(&made, base).create_workspace(options).unwrap();
    let path = workspace.path().unwrap();
    fs::write(path.join("new"), "new").unwrap();
    if path.ends_with("merged") {
        unmount(&path);
    }
    drop((workspace, made));
    copying(&place);
    let project = Store::open(place.path("store")).unwrap().project(&parse("p")).unwrap();
    let workspace = project.workspace(&parse("w")).unwrap();
    (place, project, workspace)
}

#[test]
fn a_copied_store_goes_on_with_its_workspaces() {
    if !system::is_on() {
        return;
    }
    for copying in [copied as Copying, restored, restored_in_place] {
        for options in [copy as fn(&str) -> WorkspaceOptions, options] {
            let assert_has_new = |project: &Project, made| {
                assert_eq!(read(&image(project, made), "new").unwrap(), b"new");
                assert_eq!(read(&image(project, made), "content").unwrap(), b"first");
            };
            let (_place, project, workspace) = given_copy(copying, &options("w"));
            assert_has_new(&project, workspace.commit(&CommitOptions::default()).unwrap().image);
            let path = workspace.path().unwrap();
            assert_eq!(fs::read(path.join("new")).unwrap(), b"new");
            fs::write(path.join("newer"), "newer").unwrap();
            let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
            assert_has_new(&project, made);
            assert_eq!(read(&image(&project, made), "newer").unwrap(), b"newer");

            let (_place, project, workspace) = given_copy(copying, &options("w"));
            assert_has_new(&project, workspace.commit_and_end(&CommitOptions::default()).unwrap().image);

            let (_place, _project, workspace) = given_copy(copying, &options("w"));
            let files = workspace.info().unwrap().path.with_file_name("files");
            workspace.discard().unwrap();
            assert!(!files.exists());
        }
    }
}

#[test]
fn a_copy_of_the_files_alone_is_not_the_workspace() {
    if !system::is_on() {
        return;
    }
    for options in [copy as fn(&str) -> WorkspaceOptions, options] {
        // Also in a copy, once its workspace was used.
        let (place, project, workspace) = given_copy(copied, &options("w"));
        let path = workspace.path().unwrap();
        if path.ends_with("merged") {
            unmount(&path);
        }
        for swapped in [path.with_file_name("files"), path.parent().unwrap().to_owned()] {
            let away = place.path("away");
            fs::rename(&swapped, &away).unwrap();
            program("cp", &[Path::new("-a"), &away, &swapped]);
            assert_refused(&place, &workspace, ErrorKind::Conflict, "is another directory than");
            assert_eq!(fs::read(path.with_file_name("files").join("new")).unwrap(), b"new");
            fs::remove_dir_all(&swapped).unwrap();
            fs::rename(&away, &swapped).unwrap();
        }
        let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
        assert_eq!(read(&image(&project, made), "new").unwrap(), b"new");
    }
}
