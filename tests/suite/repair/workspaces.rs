//! Workspaces and checkouts of a store that has lost its catalog: what lived is back as it was, or named.

use std::fs;
use std::path::Path;

use layerstone::{CheckoutOptions, CommitOptions, Project, Store, Workspace, WorkspaceOptions};

use super::{Given, PRESENT, find, flip, noise};
use crate::given::{parse, read, reference};

fn own(given: &Given) -> Project {
    Store::open(&given.root).unwrap().project(&parse("p")).unwrap()
}

fn named(name: &str, full_copy: bool) -> WorkspaceOptions {
    WorkspaceOptions { full_copy, name: Some(parse(name)), ..WorkspaceOptions::default() }
}

fn create(own: &Project, image: &str, name: &str, full_copy: bool) -> Workspace {
    own.find(&reference(image)).unwrap().create_workspace(&named(name, full_copy)).unwrap()
}

fn lose_catalog(given: &Given) {
    fs::write(given.root.join("catalog.redb"), b"").unwrap();
}

/// What is mounted in the store.
fn mount_points(given: &Given) -> Vec<String> {
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let targets = list.lines().filter_map(|line| line.split(' ').nth(4));
    targets.filter(|target| Path::new(target).starts_with(&given.root)).map(str::to_owned).collect()
}

#[test]
fn workspaces_younger_than_the_dump_are_back_where_they_were() {
    for has_dump in [true, false] {
        let given = Given::new();
        let names = ["over", "copy", "kept"];
        {
            let own = own(&given);
            for (name, full_copy) in [("over", false), ("copy", true), ("kept", false)] {
                let path = create(&own, "t1", name, full_copy).path().unwrap();
                fs::write(path.join("precious"), name).unwrap();
            }
            let kept = own.workspace(&parse("kept")).unwrap();
            let step = CommitOptions { tags: vec![parse("step")], ..CommitOptions::default() };
            let report = kept.commit(&step).unwrap();
            assert!(report.is_new);
            // What has ended stays so.
            create(&own, "t2", "ended", false).discard().unwrap();
            create(&own, "t2", "committed", false).commit_and_end(&CommitOptions::default()).unwrap();
        }
        lose_catalog(&given);
        if !has_dump {
            fs::remove_file(given.root.join("catalog.dump")).unwrap();
        }
        let mounted = mount_points(&given);
        let report = given.repair(PRESENT);
        assert!(report.lost_workspaces.is_empty(), "{report:?}");
        assert_eq!(mount_points(&given), mounted, "whoever works there goes on");
        let again = given.repair(PRESENT);
        assert!(again.lost_workspaces.is_empty() && !again.has_losses(), "{again:?}");

        let project = if has_dump { "p" } else { "recovered-1" };
        let own = Store::open(&given.root).unwrap().project(&parse(project)).unwrap();
        let mut found: Vec<_> = own.workspaces().unwrap().iter().map(|info| info.name.to_string()).collect();
        found.sort();
        assert_eq!(found, ["copy", "kept", "over"]);
        for name in names {
            let workspace = own.workspace(&parse(name)).unwrap();
            assert_eq!(fs::read(workspace.path().unwrap().join("precious")).unwrap(), name.as_bytes());
            let made = workspace.commit_and_end(&CommitOptions::default()).unwrap();
            let image = own.find(&made.image.into()).unwrap();
            assert_eq!(read(&image, "precious").unwrap(), name.as_bytes());
            let expected = own.find(&given.images[1].into()).unwrap();
            assert_eq!(read(&image, "content").unwrap(), read(&expected, "content").unwrap());
        }
        assert!(own.workspaces().unwrap().is_empty());
    }
}

#[test]
fn a_workspace_that_was_made_again_since_the_dump_is_the_newer_one() {
    let given = Given::new();
    {
        let store = Store::open(&given.root).unwrap();
        let own = own(&given);
        let first = create(&own, "t1", "w", true);
        store.dump_catalog().unwrap();
        first.discard().unwrap();
        let path = create(&own, "t2", "w", true).path().unwrap();
        fs::write(path.join("precious"), "second").unwrap();
    }
    lose_catalog(&given);
    let report = given.repair(PRESENT);
    assert!(report.lost_workspaces.is_empty(), "{report:?}");
    let workspace = own(&given).workspace(&parse("w")).unwrap();
    assert_eq!(workspace.info().unwrap().image, given.images[2]);
    assert_eq!(fs::read(workspace.path().unwrap().join("precious")).unwrap(), b"second");
    workspace.discard().unwrap();
}

/// Its image is damaged, or its directory does not say what it was, as those of older versions don't.
#[test]
fn a_workspace_that_can_not_come_back_is_named_with_where_its_files_are() {
    for says_nothing in [true, false] {
        let given = Given::new();
        let place = {
            let own = own(&given);
            let noisy = own.find(&reference("t2")).unwrap().edit().write("/noise", noise(30_000, 77));
            let noisy = noisy.commit(&CommitOptions::default()).unwrap().image;
            let work = own.find(&noisy.into()).unwrap().create_workspace(&named("w", false)).unwrap();
            let path = work.path().unwrap();
            fs::write(path.join("precious"), b"written by hand").unwrap();
            if path.ends_with("files") {
                // No overlay can be mounted here, and a copy is told from a cache by what its directory says alone.
                continue;
            }
            path.parent().unwrap().to_owned()
        };
        if says_nothing {
            fs::remove_file(place.join(".layerstone-row")).unwrap();
        } else {
            let (pack, at) = find(&given.files("packs"), &noise(30_000, 77)[..1_000]);
            flip(&pack, at);
        }
        lose_catalog(&given);
        let report = given.repair(PRESENT);
        let number = place.file_name().unwrap().to_str().unwrap();
        let aside = format!("quarantine/workspaces-{number}-1");
        let name =
            if says_nothing { format!("number {}", number.trim_start_matches('0')) } else { "w of p".into() };
        assert_eq!(report.lost_workspaces, [format!("{name}, whose files are in {aside}")]);
        assert!(report.has_losses());
        let aside = given.root.join(aside);
        assert_eq!(fs::read(aside.join("files/precious")).unwrap(), b"written by hand");
        // Whoever works in it goes on there.
        assert_eq!(fs::read(aside.join("merged/precious")).unwrap(), b"written by hand");
        rustix::mount::unmount(aside.join("merged"), rustix::mount::UnmountFlags::empty()).unwrap();
        assert!(!given.repair(PRESENT).has_losses());
    }
}

#[test]
fn checkouts_whose_rows_are_lost_are_named_while_they_are_there() {
    let given = Given::new();
    let (copy, gone) = (given.place.path("copy"), given.place.path("gone"));
    {
        let own = own(&given);
        for path in [&copy, &gone] {
            own.find(&reference("t1")).unwrap().check_out(path, CheckoutOptions::default()).unwrap();
        }
        fs::remove_dir_all(&gone).unwrap();
    }
    lose_catalog(&given);
    let report = given.repair(PRESENT);
    assert_eq!(report.lost_checkouts, std::slice::from_ref(&copy));
    assert!(report.has_losses());
    fs::write(copy.join("more"), "more").unwrap();
    let options = CommitOptions { base: Some(reference("t1")), ..CommitOptions::default() };
    let made = own(&given).commit(&copy, &options).unwrap();
    assert_eq!(read(&own(&given).find(&made.image.into()).unwrap(), "more").unwrap(), b"more");
    assert!(!given.repair(PRESENT).has_losses());
}
