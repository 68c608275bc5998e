//! Stores that older versions of the program made: they open, and go on.
//!
//! `format-5.tar.zst` has the projects `web` and `data` and the public scope; imports of a directory and of a tar; a tag that
//! shadows a public one, and one that adopts it; a checkout and two commits of it; an image that was removed, one without a
//! tag, a limit, and a workspace that is a checkout.

use std::fs;
use std::path::{Path, PathBuf};

use layerstone::{
    CatalogState, CommitOptions, GcOptions, ListOptions, Project, RepairOptions, RepairReport, Store,
};

use crate::given::{Place, parse, read, reference};

const FORMAT_5: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-5.tar.zst");

fn unpack(place: &Place) -> PathBuf {
    let packed = fs::File::open(FORMAT_5).unwrap();
    tar::Archive::new(zstd::Decoder::new(packed).unwrap()).unpack(place.path("")).unwrap();
    place.path("store")
}

fn open(root: &Path, name: &str) -> (Store, Project) {
    let store = Store::open(root).unwrap();
    let project = store.project(&parse(name)).unwrap();
    (store, project)
}

/// Each image of a project with its tags, newest first.
fn listed(project: &Project) -> Vec<(String, String)> {
    let page = project.images(&ListOptions::default()).unwrap();
    let tags =
        |tags: Vec<layerstone::TagName>| tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    page.images.into_iter().map(|image| (image.id.to_string(), tags(image.tags))).collect()
}

fn images(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(end, tags)| (format!("01a230c1-{end}"), (*tags).to_owned())).collect()
}

fn web() -> Vec<(String, String)> {
    images(&[
        ("1fa5-7000-94b8-045094d664b0", "edited2"),
        ("1f92-7000-a97f-16b897fd1fb1", ""),
        ("1f0f-7000-93a9-1466d8e3f453", "adopted numbers:latest shared"),
        ("1ee1-7000-9544-9f241d361a6c", "base-dir"),
        ("1eb3-7000-ab54-137df4442f9c", "base"),
    ])
}

fn data() -> Vec<(String, String)> {
    images(&[
        ("1f33-7000-8f77-cefa4974b017", "shared"),
        ("1f0f-7000-93a9-1466d8e3f453", "numbers:latest"),
        ("1ef8-7000-a537-3091dd60dd3a", "numbers"),
    ])
}

fn check(root: &Path) {
    for (name, expected) in [("web", web()), ("data", data())] {
        assert_eq!(listed(&open(root, name).1), expected, "{name}");
    }
    let report = Store::open(root).unwrap().verify().unwrap();
    assert!(report.is_sound(), "{report:?}");
}

fn repair(root: &Path, include_removed: bool) -> RepairReport {
    Store::repair(root, RepairOptions { include_removed }).unwrap()
}

#[test]
fn a_store_of_format_5_lists_and_reads_back() {
    let place = Place::new();
    let root = unpack(&place);
    check(&root);
    let (store, web) = open(&root, "web");
    let edited = web.find(&reference("edited2")).unwrap();
    assert_eq!(read(&edited, "etc/motd").unwrap(), b"third\n");
    assert_eq!(edited.info().created.to_string(), "2026-12-01T08:38:12.645Z");
    let steps: Vec<_> = edited.history().unwrap().into_iter().map(|step| step.comment).collect();
    assert_eq!(steps, ["another", "a step", "from a tar"]);
    assert_eq!(web.ancestors(edited.id()).unwrap().len(), 2);
    assert_eq!(read(&web.find(&reference("base")).unwrap(), "usr/bin/tool").unwrap().len(), 60_000);
    let limits: Vec<_> =
        store.projects().unwrap().into_iter().map(|project| project.limits.max_layer_bytes).collect();
    assert_eq!(limits, [Some(100_000), None]);
    let workspace = web.workspace(&parse("kept")).unwrap();
    assert_eq!(fs::read(workspace.path().unwrap().join("typed")).unwrap(), b"typed\n");
}

#[test]
fn a_store_of_format_5_goes_on_and_is_collected() {
    let place = Place::new();
    let root = unpack(&place);
    let (store, web) = open(&root, "web");
    let base = web.find(&reference("edited2")).unwrap();
    let made = base.edit().write("/new", "new").commit(&CommitOptions::default()).unwrap().image;
    web.remove(&reference("base-dir"), false).unwrap();
    drop(base);
    for _ in 0..2 {
        store.collect_garbage(&GcOptions { full: true, ..GcOptions::default() }).unwrap();
    }
    let mut expected = self::web();
    expected.retain(|(_, tags)| tags != "base-dir");
    expected.insert(0, (made.to_string(), String::new()));
    assert_eq!(listed(&web), expected);
    assert_eq!(read(&web.find(&made.into()).unwrap(), "new").unwrap(), b"new");
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn a_store_of_format_5_is_repaired_with_and_without_its_catalog() {
    let place = Place::new();
    let root = unpack(&place);
    let report = repair(&root, false);
    assert_eq!((report.catalog, report.fault_count, report.has_losses()), (CatalogState::Whole, 0, false));
    assert_eq!(report.removed.len(), 1, "{report:?}");
    check(&root);
    fs::remove_file(root.join("catalog.redb")).unwrap();
    let report = repair(&root, false);
    assert_eq!((report.catalog, report.removed.len()), (CatalogState::Missing, 1), "{report:?}");
    check(&root);
    let report = repair(&root, true);
    assert_eq!(report.restored.len(), 1, "{report:?}");
    assert_eq!(listed(&open(&root, "web").1).len(), 6);
}
