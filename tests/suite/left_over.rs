//! What stays on the disk when workspaces end: files that can't be removed, and what was prepared for the next.

use std::fs;
use std::path::Path;

use layerstone::{CommitOptions, GcOptions, GcReport, Project, Store, StoreOptions};

use crate::cli::Cli;
use crate::given::{Place, parse};
use crate::system::{self, bind, program, unmount};
use crate::workspaces::{Given, copy, given, image, left, options};

fn chattr(flag: &str, path: &Path) {
    program("chattr", &[Path::new(flag), path]);
}

fn collect(place: &Place, options: &GcOptions) -> GcReport {
    Store::open(place.path("store")).unwrap().collect_garbage(options).unwrap()
}

/// A project of the store that was opened with these options.
fn reopened(place: &Place, options: StoreOptions) -> Project {
    options.open(place.path("store")).unwrap().project(&parse("p")).unwrap()
}

#[test]
fn files_that_must_not_change_go_with_their_workspace() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    for options in [copy as fn(&str) -> layerstone::WorkspaceOptions, options] {
        for is_discarded in [false, true] {
            let workspace = image(&project, base).create_workspace(&options("w")).unwrap();
            let path = workspace.path().unwrap();
            let (fixed, log, elsewhere) =
                (path.join("fixed"), path.join("fixed/log"), place.path("elsewhere"));
            fs::create_dir_all(fixed.join("deep")).unwrap();
            for file in [&log, &fixed.join("deep/file")] {
                fs::write(file, "text").unwrap();
            }
            let files = path.with_file_name("files");
            fs::hard_link(files.join("fixed/log"), &elsewhere).unwrap();
            for (flag, name) in
                [("+a", "fixed/log"), ("+i", "fixed/deep/file"), ("+i", "fixed/deep"), ("+a", "fixed")]
            {
                chattr(flag, &files.join(name));
            }
            if is_discarded {
                workspace.discard().unwrap();
            } else {
                workspace.commit_and_end(&CommitOptions::default()).unwrap();
            }
            assert_eq!(workspace.left_over().unwrap(), None);
            assert!(!files.exists() || files.join("fixed").exists(), "it lies below others now, or is gone");
            // Another name of a file keeps what it has.
            assert!(fs::remove_file(&elsewhere).is_err());
            chattr("-a", &elsewhere);
            fs::remove_file(&elsewhere).unwrap();
            collect(&place, &GcOptions { caches: true, ..GcOptions::default() });
            assert!(left(&place).is_empty(), "{:?}", left(&place));
        }
    }
}

#[test]
fn a_folder_that_must_not_change_is_counted_until_it_can_be_removed() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    for options in [copy as fn(&str) -> layerstone::WorkspaceOptions, options] {
        for flag in ["+i", "+a"] {
            let workspace = image(&project, base).create_workspace(&options("w")).unwrap();
            let path = workspace.path().unwrap();
            let (own, files) = (path.parent().unwrap().to_owned(), path.with_file_name("files"));
            fs::create_dir_all(files.join("a/b/c")).unwrap();
            fs::write(files.join("a/b/c/d"), "x".repeat(100_000)).unwrap();
            // The folder that all workspaces lie in is not the workspace's to change.
            let folder = place.path("store/workspaces");
            for fixed in [&files.join("a/b/c/d"), &files.join("a/b"), &files, &own, &folder] {
                chattr(flag, fixed);
            }
            workspace.discard().unwrap();
            let left_over = workspace.left_over().unwrap().unwrap();
            assert_eq!(left_over.path, own);
            assert!(left_over.reason.contains("could not remove it"), "{}", left_over.reason);
            let report = collect(&place, &GcOptions::default());
            assert_eq!(report.left_over.len(), 1, "{report:?}");
            assert!(!files.join("a").exists(), "all that can go is gone");
            chattr(&flag.replace('+', "-"), &folder);
            assert_eq!(collect(&place, &GcOptions::default()).left_over, []);
            collect(&place, &GcOptions { caches: true, ..GcOptions::default() });
            assert!(left(&place).is_empty(), "{:?}", left(&place));
        }
    }
}

#[test]
fn what_can_t_be_removed_is_named_counted_and_tried_again() {
    if !system::is_on() {
        return;
    }
    let Given { place, .. } = given();
    let (stray, busy) =
        (place.path("store/workspaces/0000000077"), place.directory("busy", &[("kept", b"kept")]));
    fs::create_dir_all(stray.join("files/busy")).unwrap();
    fs::create_dir_all(stray.join("files/other")).unwrap();
    fs::write(stray.join("files/a"), "text").unwrap();
    fs::write(stray.join("files/other/z"), "text").unwrap();
    let target = stray.join("files/busy");
    bind(&busy, &target);
    let dry = collect(&place, &GcOptions { dry_run: true, ..GcOptions::default() });
    assert!(stray.join("files/a").exists() && dry.freed_workspace_bytes >= 8192, "{dry:?}");
    assert_eq!((dry.workspace_bytes_before, dry.left_over.len()), (dry.freed_workspace_bytes, 0));
    for turn in 0..2 {
        let report = collect(&place, &GcOptions::default());
        let [found] = &report.left_over[..] else { panic!("{report:?}") };
        assert_eq!(found.path, stray);
        let freed_bytes = if turn == 0 { dry.freed_workspace_bytes - found.bytes } else { 0 };
        assert_eq!((report.workspace_bytes_before, report.freed_workspace_bytes), (freed_bytes, freed_bytes));
        let expected = format!("{}: could not remove it: ", target.display());
        assert!(found.reason.starts_with(&expected) && found.reason.contains("busy"), "{}", found.reason);
        assert!(!stray.join("files/a").exists() && !stray.join("files/other").exists(), "all else is gone");
    }
    assert_eq!(fs::read(busy.join("kept")).unwrap(), b"kept");
    unmount(&target);
    assert_eq!(collect(&place, &GcOptions::default()).left_over, []);
    assert!(!stray.exists());
}

#[test]
fn what_was_prepared_is_counted_and_freed_when_asked_for() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, base } = given();
    assert_eq!(collect(&place, &GcOptions::default()).workspace_bytes_before, 0);
    let used = image(&project, base).create_workspace(&options("used")).unwrap();
    let other = place.import(&project, &"x".repeat(100_000), &["other"]);
    let workspace = image(&project, other).create_workspace(&options("w")).unwrap();
    fs::write(workspace.path().unwrap().join("new"), "y".repeat(50_000)).unwrap();
    workspace.commit_and_end(&CommitOptions::default()).unwrap();
    let before = collect(&place, &GcOptions::default());
    assert_eq!(before.freed_workspace_bytes, 0);
    assert!((150_000..200_000).contains(&before.idle_workspace_bytes), "{before:?}");
    assert!(before.workspace_bytes_before > before.idle_workspace_bytes, "what is used counts, too");
    let dry = collect(&place, &GcOptions { caches: true, dry_run: true, ..GcOptions::default() });
    assert_eq!(dry.freed_workspace_bytes, before.idle_workspace_bytes);
    assert_eq!(left(&place).len(), 4, "nothing was removed");
    let report = collect(&place, &GcOptions { caches: true, ..GcOptions::default() });
    assert_eq!(report.freed_workspace_bytes, before.idle_workspace_bytes);
    assert_eq!((report.idle_workspace_bytes, left(&place).len()), (0, 2));
    assert_eq!(fs::read(used.path().unwrap().join("content")).unwrap(), b"first");
    used.discard().unwrap();
    image(&project, other).create_workspace(&options("w")).unwrap().discard().unwrap();
}

#[test]
fn what_is_kept_for_the_next_workspace_has_a_limit() {
    if !system::is_on() {
        return;
    }
    let Given { place, project, .. } = given();
    let images: Vec<_> =
        (0..3).map(|number| place.import(&project, &format!("{number}").repeat(100_000), &[])).collect();
    for (limit, kept) in [(0, 0), (150_000, 1), (250_000, 2), (1_000_000, 3)] {
        let project = reopened(&place, StoreOptions::default().workspace_cache_bytes(limit));
        for id in &images {
            image(&project, *id).create_workspace(&options("w")).unwrap().discard().unwrap();
        }
        assert_eq!(left(&place).len(), kept, "{limit} bytes");
    }
}

#[test]
fn gc_says_what_was_prepared_and_what_frees_it() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    cli.ok(&["workspace", "create", "base", "--name", "w", "-q"]);
    cli.ok(&["workspace", "discard", "w"]);
    let output = cli.run(&["gc"]);
    let (text, notes) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(text.contains("\n0 B freed of ") && text.contains(" prepared for workspaces"), "{text}");
    assert!(notes.contains("of that no workspace uses now: --caches frees it."), "{notes}");
    let dry: serde_json::Value =
        serde_json::from_str(&cli.ok(&["--json", "gc", "--caches", "--dry-run"])).unwrap();
    assert!(dry["freed_workspace_bytes"].as_u64().unwrap() > 0);
    let text = cli.ok(&["gc", "--caches"]);
    assert!(!text.contains("\n0 B freed"), "{text}");
    assert!(!cli.ok(&["gc"]).contains("workspaces"));
}

#[test]
fn the_environment_says_how_much_is_kept_for_the_next_workspace() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    for (limit, is_kept) in [("1GB", true), ("0", false), ("", true)] {
        cli.ok(&["workspace", "create", "base", "--name", "w", "-q"]);
        let mut discard = cli.command(&["workspace", "discard", "w"]);
        assert!(discard.env("LAYERSTONE_CACHE_BYTES", limit).status().unwrap().success());
        assert_eq!(cli.ok(&["gc"]).contains("workspaces"), is_kept, "{limit}");
    }
    let output = cli.command(&["gc"]).env("LAYERSTONE_CACHE_BYTES", "much").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("LAYERSTONE_CACHE_BYTES: expected a number"));
}
