//! Workspaces that are overlays, really mounted: what they show, what others lie over, and what else uses them. Needs root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use layerstone::{
    CheckoutOptions, CommitOptions, ErrorKind, Image, ImportOptions, Store, TreePath, Workspace,
    WorkspaceOptions,
};

use crate::cli::Cli;
use crate::compare::{Seen, snapshot};
use crate::given::{Place, parse, project, read};
use crate::overlay::{EVERYTHING, differences, shell};
use crate::roundtrip::{noise, write_everything};
use crate::system::{self, bind, unmount};
use crate::workspaces::{Given, copy, given, image, left, options, overlay};

/// The image with the tree that tests of fidelity use, and overlays on it.
fn everything() -> Given {
    let place = Place::new();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let source = place.directory("source", &[]);
    write_everything(&source);
    for file in ["d/one", "d/two", "d/sub/three", "d/sub/deep/four", "e/five", "f/six", "g/seven", "h/eight"]
    {
        fs::create_dir_all(source.join(file).parent().unwrap()).unwrap();
        fs::write(source.join(file), format!("the file {file}")).unwrap();
    }
    fs::write(source.join("big"), noise(3_000_000, 5)).unwrap();
    let base = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    Given { place, project, base }
}

fn seen(workspace: &Workspace) -> BTreeMap<PathBuf, Seen> {
    snapshot(&workspace.path().unwrap())
}

/// What the image itself has.
fn checked_out(place: &Place, image: &Image) -> BTreeMap<PathBuf, Seen> {
    let out = place.path("out");
    let _ = fs::remove_dir_all(&out);
    let everything = CheckoutOptions { devices: true, all_xattrs: true, ..CheckoutOptions::default() };
    image.check_out(&out, everything).unwrap();
    snapshot(&out)
}

fn assert_same(expected: &BTreeMap<PathBuf, Seen>, found: &BTreeMap<PathBuf, Seen>, what: &str) {
    assert_eq!(differences(expected, found), Vec::<String>::new(), "{what}");
}

#[test]
fn each_lies_over_what_the_one_before_wrote() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = everything();
    let scripts = [
        EVERYTHING,
        "rm -r h; mkdir h; echo again > h/again; mv moved back; chown 7:8 big; rm -r new; ln -s x new; chmod 644 plain",
        "mv back/more plain; mkdir moved; mv back moved/again; mv big moved/; echo x >> moved/big; rm d/y; mkdir e/five/more",
        "rm -r moved; mv dd d/d; touch -d 2002-02-02 .; mv ddd dd; rm a; mkdir a; echo 1 > a/1",
    ];
    let mut id = base;
    for (turn, script) in scripts.iter().enumerate() {
        // Of another, a mount namespace that another test makes may have a copy, and then nothing lies over it.
        let temporary = WorkspaceOptions { temporary: true, ..options("w") };
        let workspace = image(&project, id).create_workspace(&temporary).unwrap();
        assert_eq!(workspace.why_copy(), None);
        assert_same(&checked_out(&place, &image(&project, id)), &seen(&workspace), "before");
        shell(&workspace.path().unwrap(), script);
        let expected = seen(&workspace);
        id = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
        assert_same(&expected, &checked_out(&place, &image(&project, id)), script);
        assert_eq!(left(&place).len(), 2 + turn, "no image was checked out again to work on it");
    }
}

/// How many directories lie over each other in a workspace, its own included.
fn depth(workspace: &Workspace) -> usize {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let path = workspace.path().unwrap();
    let mount = mounts.lines().find(|line| line.contains(path.to_str().unwrap())).unwrap();
    mount.matches("/files").count()
}

#[test]
fn one_on_what_no_workspace_wrote_lies_over_what_it_came_from() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = everything();
    overlay(&project, base, "first").discard().unwrap();
    let scripts = [
        // With many names gone, all would be written.
        &EVERYTHING.replace("rm -r many; ", ""),
        "ln plain again; rm -r h; echo x > h; rm e/five/below; ln -f d/y dd/one; chmod 4755 plain; rm empty -r",
        "rm h; mkdir -p h/a/b; echo x > h/a/b/c; echo more >> again; setfattr -n user.x -v y dd; touch -d 2003-03-03 .",
        "rm -r new ddd moved; mkdir moved; ln again moved/yet; mkfifo pipe; ln pipe epip",
    ];
    let mut id = base;
    for (turn, script) in scripts.into_iter().enumerate() {
        let root = place.path("changed");
        let _ = fs::remove_dir_all(&root);
        let everything = CheckoutOptions { devices: true, all_xattrs: true, ..CheckoutOptions::default() };
        image(&project, id).check_out(&root, everything).unwrap();
        shell(&root, script);
        id = project.commit(&root, &CommitOptions::default()).unwrap().image;
        let workspace = overlay(&project, id, "w");
        assert_same(&checked_out(&place, &image(&project, id)), &seen(&workspace), script);
        assert_eq!(depth(&workspace), 3 + turn, "{script}");
        let untouched = workspace.commit_and_end(&CommitOptions::default()).unwrap();
        assert_eq!((untouched.image, untouched.is_new), (id, false), "{script}");
    }
    // Of what has little in common with it, all is written.
    let listed = image(&project, id).list(&TreePath::root()).unwrap();
    let other =
        listed.iter().fold(image(&project, id).edit(), |edit, entry| edit.remove(entry.path.to_relative()));
    let other = other.write("/only", "x").commit(&CommitOptions::default()).unwrap().image;
    let workspace = overlay(&project, other, "w");
    assert_same(&checked_out(&place, &image(&project, other)), &seen(&workspace), "little");
    assert_eq!(depth(&workspace), 2);
}

#[test]
fn what_is_kept_is_committed_again_as_a_step_from_what_it_was_committed_as() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = everything();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    shell(&path, EVERYTHING);
    let first = workspace.commit(&CommitOptions::default()).unwrap();
    assert_eq!(workspace.commit(&CommitOptions::default()).unwrap().image, first.image);
    shell(&path, "echo once more > plain; rm dd/one; echo back > many");
    let second = workspace.commit(&CommitOptions::default()).unwrap();
    let steps = image(&project, second.image).history().unwrap();
    assert_eq!((steps[0].added, steps[0].modified, steps[0].removed), (1, 3, 1), "{:?}", steps[0]);
    assert_eq!(image(&project, second.image).info().parent, Some(first.image));
    assert_same(&seen(&workspace), &checked_out(&place, &image(&project, second.image)), "second");
    // Without the image in between there is only the first to step from.
    project.remove(&second.image.into(), false).unwrap();
    let third = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    assert_eq!(image(&project, third).info().parent, Some(base));
    assert_eq!(image(&project, third).info().root, steps[0].root);
}

#[test]
fn a_commit_opens_nothing_of_what_it_lies_over() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = everything();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    shell(&path, EVERYTHING);
    let expected = seen(&workspace);
    unmount(&path);
    let own = path.parent().unwrap();
    for below in left(&place).iter().filter(|directory| *directory != own) {
        fs::remove_dir_all(below.join("files")).unwrap();
        fs::write(below.join("files"), "gone").unwrap();
    }
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    assert_same(&expected, &checked_out(&place, &image(&project, made)), "committed");
}

#[test]
fn an_untouched_one_gives_its_image_back() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = everything();
    let workspace = overlay(&project, base, "w");
    shell(&workspace.path().unwrap(), "find . -type f -exec cat {} + > /dev/null");
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap();
    assert_eq!((made.image, made.is_new, made.examined), (base, false, 1));
    assert_eq!(left(&place).len(), 1, "what it lay over is there for the next");
}

#[test]
fn twenty_on_one_image_at_once() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = everything();
    let workspaces: Vec<_> = std::thread::scope(|scope| {
        let make = |number| {
            // Each through a store of its own, as processes do.
            let store = Store::open(place.path("store")).unwrap();
            let project = store.project(&parse("p")).unwrap();
            scope.spawn(move || overlay(&project, base, &format!("w{number}x")))
        };
        let made: Vec<_> = (0..20).map(make).collect();
        made.into_iter().map(|made| made.join().unwrap()).collect()
    });
    assert_eq!(left(&place).len(), 21, "what they lie over is there once");
    for (number, workspace) in workspaces.iter().enumerate() {
        fs::write(workspace.path().unwrap().join("plain"), format!("{number}")).unwrap();
    }
    for (number, workspace) in workspaces.iter().enumerate() {
        let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
        assert_eq!(read(&image(&project, made), "plain").unwrap(), format!("{number}").as_bytes());
    }
    assert!(left(&place).len() <= 5, "few are kept that nothing lies over");
}

#[test]
fn a_long_chain_lies_over_few_directories() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    let mut id = base;
    for turn in 0..120 {
        let workspace = overlay(&project, id, "w");
        assert!(depth(&workspace) <= 17);
        fs::write(workspace.path().unwrap().join(format!("f{turn}")), "x").unwrap();
        id = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
        assert!(left(&place).len() <= 5 * 16 + 1, "{}", left(&place).len());
    }
    let workspace = overlay(&project, id, "w");
    assert_eq!(fs::read_dir(workspace.path().unwrap()).unwrap().count(), 121);
}

#[test]
fn an_unmounted_one_is_mounted_again_with_all_that_was_written() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = everything();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    shell(&path, EVERYTHING);
    let expected = seen(&workspace);
    unmount(&path);
    assert!(!workspace.info().unwrap().is_mounted);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    assert_same(&expected, &seen(&workspace), "mounted again");
    unmount(&path);
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    assert_same(&expected, &checked_out(&place, &image(&project, made)), "committed without a mount");
}

#[test]
fn one_that_somebody_works_in_does_not_end() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = everything();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    let sleep = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        let child = command.args(words).current_dir(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        // It says when it is there.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        child
    };
    let wait = "echo; read x || true";
    // In its directory; in a copy of its mount, which no unmounting here ends; with its files elsewhere.
    let elsewhere = place.directory("elsewhere", &[]);
    let bind = format!("mount --bind {0} {1} && cd {1} && {wait}", path.display(), elsewhere.display());
    let open = format!("exec 3< plain; cd /; {wait}");
    let users: [(&str, &[&str]); 4] = [
        ("sh", &["-c", wait]),
        ("unshare", &["-m", "--propagation", "private", "sh", "-c", wait]),
        ("unshare", &["-m", "--propagation", "private", "sh", "-c", &open]),
        ("unshare", &["-m", "--propagation", "slave", "sh", "-c", &bind]),
    ];
    for (program, words) in users {
        let mut child = sleep(program, words);
        for error in [
            workspace.commit_and_end(&CommitOptions::default()).unwrap_err(),
            workspace.discard().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InUse, "{words:?}: {error}");
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        workspace.path().unwrap();
    }
    // Where nobody works in a copy it is no hindrance; but somebody may yet write there, so nothing is to lie over it.
    let passive = ["-m", "--propagation", "private", "sh", "-c", &format!("cd /; {wait}")];
    let mut child = sleep("unshare", &passive);
    fs::write(path.join("new"), "new").unwrap();
    workspace.commit_and_end(&CommitOptions::default()).unwrap();
    assert_eq!(left(&place).len(), 1, "only what it lay over");
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn what_was_not_unmounted_by_the_one_that_ends_it_lies_below_nothing() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = everything();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    fs::write(path.join("late"), "at commit").unwrap();
    unmount(&path);
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    let next = overlay(&project, made, "next");
    assert_eq!(fs::read(next.path().unwrap().join("late")).unwrap(), b"at commit");
    assert_eq!(left(&place).len(), 3, "the first's files are gone, and what differs was written");
}

#[test]
fn from_another_process_namespace_it_is_not_touched() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    cli.ok(&["workspace", "create", "base", "--name", "w", "-q"]);
    let within = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--", env!("CARGO_BIN_EXE_layerstone")]).args(words);
        command.env("LAYERSTONE_STORE", cli.path("store")).output().unwrap()
    };
    for words in [&["workspace", "commit", "w"][..], &["workspace", "discard", "w"]] {
        let output = within(words);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("was mounted in another process namespace"), "{text}");
    }
    // What it has made there itself it can end there, and whoever sees all can from outside.
    let output = within(&["workspace", "create", "base", "--name", "inner", "-q"]);
    assert!(output.status.success(), "{output:?}");
    cli.ok(&["workspace", "discard", "inner"]);
    cli.ok(&["workspace", "discard", "w"]);
}

#[test]
fn what_was_written_where_nothing_is_mounted_is_not_hidden() {
    if !system::is_on() {
        return;
    }
    let Given { place: _place, project, base } = everything();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    unmount(&path);
    fs::write(path.join("lost"), "?").unwrap();
    let error = workspace.path().unwrap_err();
    assert!(error.is_conflict() && error.to_string().contains("move them away"), "{error}");
    fs::remove_file(path.join("lost")).unwrap();
    workspace.path().unwrap();
}

#[test]
fn a_temporary_one_can_be_kept() {
    if !system::is_on() {
        return;
    }
    let Given { place: _place, project, base } = everything();
    let temporary = WorkspaceOptions { temporary: true, ..options("w") };
    let workspace = image(&project, base).create_workspace(&temporary).unwrap();
    shell(&workspace.path().unwrap(), EVERYTHING);
    let expected = seen(&workspace);
    assert!(workspace.info().unwrap().process.is_some());
    workspace.keep().unwrap();
    assert_eq!(workspace.info().unwrap().process, None);
    assert_same(&expected, &seen(&workspace), "kept");
    workspace.keep().unwrap();
    workspace.commit_and_end(&CommitOptions::default()).unwrap();
}

#[test]
fn what_is_mounted_in_one_is_not_emptied() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    let workspace = image(&project, base).create_workspace(&copy("w")).unwrap();
    let victim = place.directory("victim", &[("kept", b"kept")]);
    let target = workspace.path().unwrap().join("in here");
    fs::create_dir(&target).unwrap();
    bind(&victim, &target);
    for error in
        [workspace.discard().unwrap_err(), workspace.commit_and_end(&CommitOptions::default()).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.to_string().contains("in here: is mounted in the workspace"), "{error}");
    }
    Store::open(place.path("store")).unwrap().remove_project(project.name(), true).unwrap();
    let other = crate::given::project(&Store::open(place.path("store")).unwrap(), "other");
    let again = place.import(&other, "first", &[]);
    // What is left over is cleared away by the next, and what is mounted there is not.
    let next = image(&other, again).create_workspace(&copy("w")).unwrap();
    assert_eq!(fs::read(victim.join("kept")).unwrap(), b"kept");
    unmount(&target);
    next.discard().unwrap();
    image(&other, again).create_workspace(&copy("w")).unwrap().discard().unwrap();
    assert!(left(&place).is_empty());
}

#[test]
fn what_an_overlay_can_t_show_is_copied() {
    if !system::is_on() {
        return;
    }
    for script in ["mknod gone c 0 0", "setfattr -n trusted.overlay.opaque -v y ."] {
        let place = Place::new();
        let project = project(&Store::open(place.path("store")).unwrap(), "p");
        let source = place.directory("source", &[("file", b"text")]);
        shell(&source, script);
        let base = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
        for _ in 0..2 {
            let workspace = image(&project, base).create_workspace(&options("w")).unwrap();
            assert!(workspace.why_copy().unwrap().contains("what can't be shown by an overlay"));
            assert_same(&snapshot(&source), &seen(&workspace), script);
            let made = workspace.commit_and_end(&CommitOptions::default()).unwrap();
            assert_eq!((made.image, made.is_new), (base, false), "{script}");
        }
        assert!(left(&place).is_empty());
    }
}

#[test]
fn a_store_may_lie_under_any_name() {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let name = "a:b,c\\d e=\"f\"\n,upperdir=/x";
    let long = "l".repeat(200);
    fs::create_dir_all(place.path(name).parent().unwrap()).unwrap();
    let store = Store::open(place.path(name)).unwrap();
    let project = project(&store, "p");
    let base = place.import(&project, "first", &[]);
    let workspace = overlay(&project, base, &long);
    fs::write(workspace.path().unwrap().join("new"), "new").unwrap();
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    let again = overlay(&project, made, "again");
    assert_eq!(fs::read(again.path().unwrap().join("new")).unwrap(), b"new");
    again.discard().unwrap();
}

#[test]
fn a_device_in_an_image_is_no_device_of_the_host() {
    if !system::is_on() {
        return;
    }
    let Given { place: _place, project, base } = everything();
    let workspace = overlay(&project, base, "w");
    let path = workspace.path().unwrap();
    shell(&path, "mknod zero c 1 5");
    assert_eq!(fs::metadata(path.join("zero")).unwrap().rdev(), rustix::fs::makedev(1, 5));
    let error = fs::File::open(path.join("zero")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    workspace.discard().unwrap();
}
