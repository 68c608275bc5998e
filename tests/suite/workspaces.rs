//! Workspaces as anyone can have them: from their making to their end, and what they protect.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use layerstone::id::ImageId;
use layerstone::{
    CommitOptions, ErrorKind, Image, Project, Store, Workspace, WorkspaceKind, WorkspaceOptions,
};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use crate::cli::Cli;
use crate::given::{Place, parse, project, read, reference, tags};
use crate::roundtrip::noise;

pub(crate) fn options(name: &str) -> WorkspaceOptions {
    WorkspaceOptions { name: Some(parse(name)), ..WorkspaceOptions::default() }
}

/// A workspace that is an overlay, which root can have.
pub(crate) fn overlay(project: &Project, base: ImageId, name: &str) -> Workspace {
    let workspace = image(project, base).create_workspace(&options(name)).unwrap();
    assert_eq!(workspace.why_copy(), None);
    assert_eq!(workspace.info().unwrap().kind, WorkspaceKind::Overlay);
    workspace
}

/// A full copy, which anyone can have.
pub(crate) fn copy(name: &str) -> WorkspaceOptions {
    WorkspaceOptions { full_copy: true, ..options(name) }
}

pub(crate) fn image(project: &Project, id: ImageId) -> Image {
    project.find(&id.into()).unwrap()
}

pub(crate) fn commit(tag: &str) -> CommitOptions {
    CommitOptions { tags: tags(&[tag]), ..CommitOptions::default() }
}

/// What is left in the folder of workspaces, but for its lock.
pub(crate) fn left(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.path("store/workspaces")).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

pub(crate) struct Given {
    pub(crate) place: Place,
    pub(crate) project: Project,
    pub(crate) base: ImageId,
}

pub(crate) fn given() -> Given {
    let place = Place::new();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let base = place.import(&project, "first", &["base"]);
    Given { place, project, base }
}

#[test]
fn a_workspace_from_its_making_to_its_end() {
    let Given { place, project, base } = given();
    let workspace = image(&project, base).create_workspace(&copy("w")).unwrap();
    assert_eq!(workspace.why_copy(), None, "it was asked for");
    let path = workspace.path().unwrap();
    let info = workspace.info().unwrap();
    assert_eq!((info.image, info.kind, info.process), (base, WorkspaceKind::Checkout, None));
    assert_eq!((&info.path, info.is_mounted), (&path, true));
    assert_eq!(project.workspaces().unwrap(), [info]);

    let unchanged = workspace.commit(&CommitOptions::default()).unwrap();
    assert_eq!((unchanged.image, unchanged.is_new), (base, false));
    fs::write(path.join("content"), "second").unwrap();
    let second = workspace.commit(&commit("second")).unwrap();
    assert_eq!(image(&project, second.image).info().parent, Some(base));
    let again = project.workspace(&parse("w")).unwrap();
    assert_eq!(again.commit(&CommitOptions::default()).unwrap().image, second.image);
    fs::write(path.join("content"), "third").unwrap();
    let third = again.commit_and_end(&commit("third")).unwrap().image;
    assert_eq!(image(&project, third).info().parent, Some(second.image));
    assert_eq!(read(&image(&project, third), "content").unwrap(), b"third");

    assert!(!path.exists() && left(&place).is_empty());
    assert_eq!(project.workspaces().unwrap(), []);
    for error in [workspace.path().unwrap_err(), workspace.discard().unwrap_err()] {
        assert!(error.is_not_found(), "{error}");
    }
    assert!(project.workspace(&parse("w")).unwrap_err().is_not_found());
}

#[test]
fn what_is_discarded_is_gone() {
    let Given { place, project, base } = given();
    let workspace = image(&project, base).create_workspace(&copy("w")).unwrap();
    fs::write(workspace.path().unwrap().join("content"), "changed").unwrap();
    workspace.discard().unwrap();
    assert!(left(&place).is_empty());
    assert_eq!(project.images(&layerstone::ListOptions::default()).unwrap().images.len(), 1);
}

#[test]
fn names_are_unique_in_a_project_and_made_up_where_none_is_given() {
    let Given { place, project, base } = given();
    let base = image(&project, base);
    let free = WorkspaceOptions { full_copy: true, ..WorkspaceOptions::default() };
    // What the next one would be called.
    base.create_workspace(&copy("w2")).unwrap();
    let names = [(); 3].map(|()| base.create_workspace(&free).unwrap().name().to_string());
    let mut unique = names.to_vec();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 3, "{names:?}");
    let error = base.create_workspace(&copy("w2")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(left(&place).len(), 4, "what was refused leaves nothing");
}

#[test]
fn another_project_sees_nothing_of_it() {
    let Given { place, project, base } = given();
    image(&project, base).create_workspace(&copy("w")).unwrap();
    let store = Store::open(place.path("store")).unwrap();
    let other = crate::given::project(&store, "other");
    assert_eq!(other.workspaces().unwrap(), []);
    let error = other.workspace(&parse("w")).unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("project 'other' has no such workspace"));
    let mine = place.import(&other, "first", &[]);
    image(&other, mine).create_workspace(&copy("w")).unwrap();
}

#[test]
fn the_base_is_no_option_of_a_commit() {
    let Given { place: _place, project, base } = given();
    let workspace = image(&project, base).create_workspace(&copy("w")).unwrap();
    let options = CommitOptions { base: Some(base.into()), ..CommitOptions::default() };
    assert_eq!(workspace.commit(&options).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_store_in_memory_has_none() {
    let place = Place::new();
    let project = project(&Store::in_memory().unwrap(), "p");
    let base = place.import(&project, "first", &[]);
    let error = image(&project, base).create_workspace(&copy("w")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn two_containers_on_an_image_as_with_docker() {
    for options in [copy as fn(&str) -> WorkspaceOptions, options] {
        let Given { place, project, base } = given();
        let [one, two] =
            ["one", "two"].map(|name| image(&project, base).create_workspace(&options(name)).unwrap());
        let made = [&one, &two].map(|workspace| {
            fs::write(workspace.path().unwrap().join("new"), workspace.name().as_str()).unwrap();
            workspace.commit(&commit(workspace.name().as_str())).unwrap().image
        });
        for reference in [reference("base"), base.into()] {
            let error = project.remove(&reference, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InUse);
            assert!(error.to_string().contains("workspace 'one' and 1 more use it"), "{error}");
        }
        // A tag that is not the last can go.
        project.tag(&base.into(), &tags(&["more"])).unwrap();
        assert_eq!(project.remove(&reference("more"), false).unwrap().removed, None);
        // What was committed is not in use.
        project.remove(&made[0].into(), false).unwrap();

        let removed = project.remove(&reference("base"), true).unwrap();
        assert_eq!((removed.untagged, removed.removed), (tags(&["base"]), Some(base)));
        assert!(project.find(&base.into()).unwrap_err().is_not_found());
        assert_eq!(fs::read(one.path().unwrap().join("content")).unwrap(), b"first", "its content stays");
        fs::write(one.path().unwrap().join("new"), "newer").unwrap();
        let last = one.commit_and_end(&commit("last")).unwrap().image;
        assert_eq!(read(&image(&project, last), "content").unwrap(), b"first");
        two.discard().unwrap();
        assert_eq!(project.workspaces().unwrap(), []);
        drop(place);
    }
}

#[test]
fn who_removes_a_public_image_is_not_told_who_uses_it() {
    let Given { place, project, .. } = given();
    let store = Store::open(place.path("store")).unwrap();
    let public = store.project(&parse("public")).unwrap();
    let os = place.import(&public, "public", &["os"]);
    let workspace = project.find(&reference("os")).unwrap().create_workspace(&copy("w")).unwrap();
    assert_eq!(public.remove(&reference("os"), false).unwrap().removed, Some(os));
    fs::write(workspace.path().unwrap().join("new"), "new").unwrap();
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    assert_eq!(read(&image(&project, made), "content").unwrap(), b"public");
}

#[test]
fn a_project_with_workspaces_is_removed_by_force_only() {
    let Given { place, project, base } = given();
    let workspace = image(&project, base).create_workspace(&options("w")).unwrap();
    project.remove(&reference("base"), true).unwrap();
    let store = Store::open(place.path("store")).unwrap();
    let error = store.remove_project(project.name(), false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(workspace.path().unwrap().join("content").exists());
    store.remove_project(project.name(), true).unwrap();
    assert!(workspace.path().is_err());
}

#[test]
fn more_than_a_delta_may_have_is_refused_and_the_workspace_stays() {
    for options in [copy as fn(&str) -> WorkspaceOptions, options] {
        let Given { place: _place, project, base } = given();
        let workspace = image(&project, base).create_workspace(&options("w")).unwrap();
        fs::write(workspace.path().unwrap().join("big"), noise(100_000, 1)).unwrap();
        let small = CommitOptions { max_layer_bytes: Some(99_999), ..CommitOptions::default() };
        let path = workspace.path().unwrap();
        assert_eq!(workspace.commit_and_end(&small).unwrap_err().kind(), ErrorKind::QuotaExceeded);
        // Whoever works there goes on where it was.
        fs::write(path.join("more"), "more").unwrap();
        assert_eq!(workspace.path().unwrap(), path);
        let enough = CommitOptions { max_layer_bytes: Some(100_004), ..CommitOptions::default() };
        let made = workspace.commit_and_end(&enough).unwrap().image;
        assert_eq!(read(&image(&project, made), "more").unwrap(), b"more");
    }
}

#[test]
fn one_whose_files_somebody_removed_can_be_ended() {
    let Given { place, project, base } = given();
    let workspace = image(&project, base).create_workspace(&copy("w")).unwrap();
    fs::remove_dir_all(&left(&place)[0]).unwrap();
    for error in
        [workspace.path().unwrap_err(), workspace.commit_and_end(&CommitOptions::default()).unwrap_err()]
    {
        assert!(error.is_corrupt() && error.to_string().contains("or discard the workspace"), "{error}");
    }
    workspace.discard().unwrap();
    project.remove(&base.into(), false).unwrap();
}

#[test]
fn however_deep_it_is_it_can_be_discarded() {
    let Given { place, project, base } = given();
    let workspace = image(&project, base).create_workspace(&copy("w")).unwrap();
    let name = "d".repeat(250);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut directory = openat(CWD, workspace.path().unwrap(), flags, Mode::empty()).unwrap();
    for _ in 0..40 {
        mkdirat(&directory, &name, Mode::from_raw_mode(0o700)).unwrap();
        directory = openat(&directory, &name, flags, Mode::empty()).unwrap();
    }
    mkdirat(&directory, "last", Mode::from_raw_mode(0o700)).unwrap();
    drop(directory);
    workspace.discard().unwrap();
    assert!(left(&place).is_empty());
}

#[test]
fn nobody_else_reaches_an_image_s_files() {
    let Given { place, project, base } = given();
    image(&project, base).create_workspace(&copy("w")).unwrap();
    let mode = fs::metadata(place.path("store/workspaces")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn on_the_command_line() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base"]);
    let base = cli.ok(&["images", "-q"]);
    let output = cli.run(&["workspace", "create", "base", "--name", "one", "--copy"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("checkout of image ") && text.ends_with("\none\n"), "{text}");
    assert_eq!(output.stderr, b"");
    let path = PathBuf::from(cli.ok(&["workspace", "path", "one"]).trim_end());
    fs::write(path.join("issue"), "two\n").unwrap();
    let listed = cli.ok(&["workspace", "ls"]);
    assert!(listed.lines().nth(1).unwrap().starts_with("one "), "{listed}");
    let (code, message) = cli.fails(&["rm", "base"]);
    assert_eq!(code, 4);
    assert!(message.contains("workspace 'one' uses it; end that first, or force"), "{message}");
    let kept = cli.ok(&["workspace", "commit", "one", "--keep", "--tag", "two", "-q"]);
    assert_ne!(kept, base);
    let ended = cli.ok(&["workspace", "commit", "one", "-q"]);
    assert_eq!(kept, ended, "nothing was changed since");
    assert_eq!(cli.ok(&["cat", "two", "/issue"]), "two\n");
    assert_eq!(cli.fails(&["workspace", "path", "one"]).0, 3);
    let named = cli.ok(&["workspace", "create", "two", "--copy", "-q"]);
    assert_eq!(cli.ok(&["workspace", "discard", named.trim_end()]), format!("discarded {named}"));
    assert_eq!(cli.ok(&["--json", "workspace", "ls"]).trim_end(), "[]");
    assert!(Path::new(&path).parent().is_some_and(|place| !place.exists()));
}
