//! Checkouts from stores that can't be written: whole, and said to be unknown to the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use layerstone::testing::{Fault, FaultKind, SimulatedDisk, SimulatedMachine};
use layerstone::{
    CheckoutOptions, CheckoutReport, CommitOptions, ErrorKind, Image, ImportOptions, Project, Store,
    StoreOptions,
};

use crate::cli::Cli;
use crate::compare::assert_equal;
use crate::given::{Place, project};
use crate::reflink::Mounted;
use crate::system::{self, bind, program, unmount};

fn check_out(image: &Image, directory: &Path) -> layerstone::Result<CheckoutReport> {
    image.check_out(directory, CheckoutOptions::default())
}

/// A commit of a checkout that the store does not know asks for its base, and with it gives the image back.
fn commits_with_its_base(project: &Project, image: &Image, directory: &Path) {
    let error = project.commit(directory, &CommitOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("is no checkout"), "{error}");
    let options = CommitOptions { base: Some(image.id().into()), ..CommitOptions::default() };
    let made = project.commit(directory, &options).unwrap();
    assert_eq!((made.image, made.is_new), (image.id(), false));
}

/// Every call of the store's disk fails once, one after the other, of a write or a sync.
#[test]
fn whatever_a_checkout_fails_to_remember_it_is_whole_and_says_so() {
    let place = Place::new();
    let source = place.directory("source", &[("a", b"one"), ("d/b", &[7; 3_000])]);
    let (mut untracked, mut failed) = (0, 0);
    for offset in 0..500 {
        let disk = SimulatedDisk::default();
        let open = |boot| {
            let options =
                StoreOptions::default().threads(1).lock_timeout(Duration::ZERO).upkeep_when_waited_for();
            Store::open_simulated(&disk, &Arc::new(SimulatedMachine::new(boot, 0)), options).unwrap()
        };
        let store = open(1);
        let project = project(&store, "p");
        let image = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
        let image = project.find(&image.into()).unwrap();
        let call = disk.calls().len() + offset;
        disk.set_fault(Some(Fault { call, kind: FaultKind::Io, is_lasting: false }));
        let directory = place.path(&format!("checkout-{offset}"));
        let outcome = check_out(&image, &directory);
        let is_over = disk.calls().len() <= call;
        disk.set_fault(None);
        match outcome {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                assert!(!directory.exists());
                failed += 1;
            }
            Ok(report) => {
                assert_equal(&source, &directory);
                if report.untracked.is_some() {
                    untracked += 1;
                    // A store that is poisoned now writes the next one all the same.
                    let next = place.path(&format!("next-{offset}"));
                    check_out(&image, &next).unwrap();
                    assert_equal(&source, &next);
                }
            }
        }
        if is_over {
            assert!(untracked > 5, "{untracked} untracked, {failed} failed");
            return;
        }
    }
    panic!("a checkout has no end");
}

/// Makes a directory one that can't be written until it is unmounted.
fn make_read_only(directory: &Path) {
    bind(directory, directory);
    program("mount", &[Path::new("-o"), Path::new("remount,bind,ro"), directory]);
}

/// The image of a store in which nothing can be written until this returns.
fn from_a_store_made_read_only(place: &Place, read_only: &str) -> (Store, PathBuf, Image, CheckoutReport) {
    let source = place.directory("source", &[("a", b"one"), ("d/b", &[7; 100_000])]);
    let store = Store::open(place.path("store")).unwrap();
    let image = project(&store, "p").import_directory(&source, &ImportOptions::default()).unwrap().image;
    drop(store);
    let target = place.path(read_only);
    make_read_only(&target);
    let directory = place.path("checkout");
    let store = Store::open(place.path("store")).unwrap();
    let read = store.project(&"p".parse().unwrap()).unwrap().find(&image.into()).unwrap();
    let report = check_out(&read, &directory).unwrap();
    assert_equal(&source, &directory);
    drop((read, store));
    unmount(&target);
    let store = Store::open(place.path("store")).unwrap();
    let image = store.project(&"p".parse().unwrap()).unwrap().find(&image.into()).unwrap();
    (store, directory, image, report)
}

#[test]
fn a_checkout_from_a_read_only_store_is_written_untracked() {
    if !system::is_on() {
        return;
    }
    for read_only in ["store", "store/directories"] {
        let place = Place::new();
        let (store, directory, image, report) = from_a_store_made_read_only(&place, read_only);
        assert!(report.untracked.is_some(), "{report:?}");
        commits_with_its_base(&store.project(&"p".parse().unwrap()).unwrap(), &image, &directory);
        assert!(store.verify().unwrap().is_sound());
    }
}

#[test]
fn public_images_can_be_read_in_a_read_only_store_without_a_default_project() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    cli.tree();
    let image = cli.ok(&["import", "tree", "--project", "public", "--tag", "base", "-q"]);
    let target = cli.path("store");
    make_read_only(&target);
    let image = image.trim();
    let words: [&[&str]; 14] = [
        &["images"],
        &["inspect", "base"],
        &["ls", "base"],
        &["cat", "base", "/issue"],
        &["tree"],
        &["tree", "base", "--dot"],
        &["diff", "base", image],
        &["history", "base"],
        &["export", "base", "-o", "base.tar"],
        &["checkout", "base", "copy"],
        &["verify"],
        &["gc", "--dry-run"],
        &["project", "ls"],
        &["workspace", "ls"],
    ];
    let read = words.map(|words| (words, cli.run(words)));
    let refused = [
        &["tag", "base", "mine"][..],
        &["import", "tree"],
        &["run", "base", "--rm", "--", "sh"],
        &["workspace", "create", "base"],
    ];
    let refused = refused.map(|words| (words, cli.run(words)));
    unmount(&target);
    for (words, output) in read {
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(cli.path("copy/issue").exists());
    for (words, output) in refused {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("Read-only"), "{words:?}: {said}");
        assert_eq!(said.contains("layerstone checkout"), words[0] != "tag" && words[0] != "import", "{said}");
    }
}

#[test]
fn a_checkout_from_a_full_store_is_written_untracked() {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let Some(mounted) = Mounted::sized(&place, 16 << 20, &["mkfs.ext4", "-q", "-m", "0"]) else { return };
    let source = place.directory("source", &[("a", b"one"), ("d/b", &[7; 100_000])]);
    let store = Store::open(mounted.path("store")).unwrap();
    let project = project(&store, "p");
    let image = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let image = project.find(&image.into()).unwrap();
    let filler = crate::full_disk::fill(&mounted);
    let directory = place.path("checkout");
    let report = check_out(&image, &directory).unwrap();
    assert!(report.untracked.is_some(), "{report:?}");
    assert_equal(&source, &directory);
    std::fs::remove_file(filler).unwrap();
    commits_with_its_base(&project, &image, &directory);
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn the_command_says_that_a_checkout_is_untracked() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base:1"]);
    let store = cli.path("store");
    make_read_only(&store);
    let plain = cli.run(&["checkout", "base:1", "plain"]);
    let json = cli.run(&["--json", "checkout", "base:1", "json"]);
    unmount(&store);
    assert!(plain.status.success() && json.status.success(), "{plain:?} {json:?}");
    let stderr = String::from_utf8(plain.stderr).unwrap();
    assert!(stderr.contains("--base") && stderr.lines().count() == 1, "{stderr}");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["untracked"].is_string(), "{json}");
    let (code, refusal) = cli.fails(&["commit", "plain"]);
    assert!(code == 2 && refusal.contains("base"), "{refusal}");
    cli.ok(&["commit", "plain", "--base", "base:1"]);
}
