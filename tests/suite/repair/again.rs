//! Repair after repair: what was lost and imported again, removed and imported again, adopted, or published late.

use std::fs;
use std::path::Path;

use layerstone::id::ImageId;
use layerstone::{ImportOptions, Project, RepairReport, Store};

use super::{ALL, Given, PRESENT, find, flip, options};
use crate::given::{Place, parse, project, read, reference};
use crate::roundtrip::noise;

/// A store with one project, and in it an image of one file that no frame has with another's.
fn given(tag: &str) -> (Given, Project, ImageId) {
    let place = Place::new();
    let root = place.path("store");
    let own = project(&Store::open(&root).unwrap(), "p");
    place.directory("tree", &[("content", &noise(30_000, 1))]);
    let given = Given { place, root, images: Vec::new() };
    let image = import(&given, &own, tag);
    (given, own, image)
}

fn import(given: &Given, project: &Project, tag: &str) -> ImageId {
    let options = ImportOptions { tags: vec![parse(tag)], ..ImportOptions::default() };
    project.import_directory(given.place.path("tree"), &options).unwrap().image
}

fn damage_content(given: &Given) {
    let (pack, at) = find(&given.files("packs"), &noise(30_000, 1)[..1_000]);
    flip(&pack, at);
}

/// Damages the store's head page.
fn lose_catalog(root: &Path) {
    let catalog = root.join("catalog.redb");
    let mut bytes = fs::read(&catalog).unwrap();
    bytes[..4_096].fill(0);
    fs::write(&catalog, bytes).unwrap();
}

fn restored(report: &RepairReport) -> Vec<ImageId> {
    report.restored.iter().map(|found| found.image).collect()
}

#[test]
fn what_was_imported_again_after_a_repair_survives_the_loss_of_the_catalog() {
    let (given, own, mut image) = given("first");
    for turn in 0..3 {
        damage_content(&given);
        let report = given.repair(PRESENT);
        let lost: Vec<_> = report.damaged_images.iter().map(|lost| lost.image).collect();
        assert!(lost.contains(&image), "{turn}: {report:?}");
        let again = import(&given, &own, "again");
        assert_ne!(again, image);
        lose_catalog(&given.root);
        let report = given.repair(PRESENT);
        assert!(report.has_losses() && restored(&report).contains(&again), "{turn}: {report:?}");
        assert_eq!(read(&own.find(&again.into()).unwrap(), "content").unwrap(), noise(30_000, 1));
        assert_eq!(import(&given, &own, "again"), again, "the same import finds the newest");
        image = again;
    }
    let report = given.repair(ALL);
    assert_eq!(report.restored.len(), 3, "all that its content is there of: {report:?}");
    let all: Vec<_> = restored(&report).into_iter().chain([image]).collect();
    // Whichever of them goes, the next import finds one that is left, until none is.
    for left in (0..all.len()).rev() {
        let found = import(&given, &own, "again");
        assert!(all.contains(&found));
        own.remove(&found.into(), true).unwrap();
        assert!(Store::open(&given.root).unwrap().verify().unwrap().is_sound(), "{left} are left");
    }
    assert!(!all.contains(&import(&given, &own, "again")));
}

#[test]
fn of_a_removed_image_and_the_same_imported_again_the_latter_is_back() {
    for has_dump in [true, false] {
        let (given, own, first) = given("tag");
        own.remove(&first.into(), true).unwrap();
        Store::open(&given.root).unwrap().dump_catalog().unwrap();
        let second = import(&given, &own, "tag");
        lose_catalog(&given.root);
        if !has_dump {
            fs::remove_file(given.root.join("catalog.dump")).unwrap();
        }
        let report = given.repair(PRESENT);
        let expected = if has_dump { vec![second] } else { vec![first, second] };
        assert_eq!(restored(&report), expected, "{report:?}");
        given.repair(ALL);
        let name = if has_dump { "p" } else { "recovered-1" };
        let own = Store::open(&given.root).unwrap().project(&parse(name)).unwrap();
        for image in [first, second] {
            assert_eq!(read(&own.find(&image.into()).unwrap(), "content").unwrap(), noise(30_000, 1));
        }
    }
}

#[test]
fn a_damaged_image_that_its_first_owner_removed_is_told_by_who_adopted_it() {
    let (given, own, _) = given("own");
    let store = Store::open(&given.root).unwrap();
    let public = store.project(&parse("public")).unwrap();
    let shared = public.import_directory(
        given.place.directory("shared", &[("content", &noise(30_000, 2))]),
        &ImportOptions { tags: vec![parse("shared")], ..ImportOptions::default() },
    );
    let shared = shared.unwrap().image;
    own.tag(&reference("shared"), &[parse("adopted")]).unwrap();
    public.remove(&shared.into(), true).unwrap();
    let (pack, at) = find(&given.files("packs"), &noise(30_000, 2)[..1_000]);
    flip(&pack, at);
    let report = given.repair(PRESENT);
    let [lost] = &report.damaged_images[..] else { panic!("{report:?}") };
    assert_eq!((lost.image, &*lost.project, &lost.tags[..]), (shared, "p", &[parse("adopted")][..]));
    assert!(report.has_losses());
}

#[test]
fn the_record_of_an_image_beside_damage_is_written_again() {
    let (given, own, image) = given("first");
    // What an image came with is in one frame: a layer's record and the image's own.
    let edited = own.find(&image.into()).unwrap().edit().write("/x", noise(30_000, 3));
    let edited = edited.commit(&layerstone::CommitOptions::default()).unwrap().image;
    own.remove(&image.into(), true).unwrap();
    // Nothing may write to what is copied: an open store works behind its callers.
    drop(own);
    let pack = given.files("packs").pop().unwrap();
    let sound = fs::read(&pack).unwrap();
    let heads = sound.windows(4).enumerate().filter(|(_, word)| word == b"LSFR").map(|(at, _)| at);
    for head in heads.collect::<Vec<_>>() {
        let copy = given.place.path("copy");
        super::copy_tree(&given.root, &copy);
        flip(&copy.join("packs").join(pack.file_name().unwrap()), head + 40);
        let first = Store::repair(&copy, PRESENT).unwrap();
        lose_catalog(&copy);
        fs::remove_file(copy.join("catalog.dump")).unwrap();
        let second = Store::repair(&copy, PRESENT).unwrap();
        let is_named = [&first, &second]
            .iter()
            .any(|report| report.damaged_images.iter().any(|lost| lost.image == edited));
        assert!(is_named || restored(&second).contains(&edited), "{head}: {first:?}, {second:?}");
    }
}

#[test]
fn what_is_lost_with_catalog_record_and_all_is_no_silence() {
    let (given, _, _) = given("first");
    let pack = given.files("packs").pop().unwrap();
    let bytes = fs::read(&pack).unwrap();
    let last = bytes.windows(4).rposition(|word| word == b"LSFR").unwrap();
    flip(&pack, last + 40);
    lose_catalog(&given.root);
    let report = given.repair(PRESENT);
    assert!(report.may_lack_images && report.has_losses(), "{report:?}");
    assert!(!given.repair(PRESENT).has_losses(), "that is told once");
}

#[test]
fn what_is_lost_with_catalog_and_all_packs_is_no_silence() {
    for lost in [&["packs"][..], &["packs", "catalog.dump"]] {
        let (given, own, _) = given("first");
        // After the dump, so that only the catalog and a pack have it.
        given.place.import(&own, "later", &[]);
        for pack in given.files("packs") {
            fs::remove_file(pack).unwrap();
        }
        lose_catalog(&given.root);
        if lost.len() > 1 {
            fs::remove_file(given.root.join("catalog.dump")).unwrap();
        }
        let report = given.repair(PRESENT);
        assert!(report.may_lack_images && report.has_losses(), "{lost:?}: {report:?}");
        assert!(!given.repair(PRESENT).has_losses(), "that is told once");
    }
    // Nothing is lost of a store that never had anything.
    let place = Place::new();
    drop(Store::open(place.path("store")).unwrap());
    lose_catalog(&place.path("store"));
    assert!(!Store::repair(place.path("store"), PRESENT).unwrap().has_losses());
}

#[test]
fn an_image_that_is_published_after_a_newer_one_is_not_taken_for_removed() {
    let place = Place::new();
    let root = place.path("store");
    let (slow, quick) = (options().open(&root).unwrap(), options().open(&root).unwrap());
    let own = project(&slow, "p");
    let source = place.directory("late", &[("content", b"late")]);
    let turn = slow.hold_publications();
    let late = std::thread::scope(|threads| {
        let late = threads.spawn(|| own.import_directory(&source, &ImportOptions::default()).unwrap().image);
        while slow.waiting_publications() < 1 {
            std::thread::yield_now();
        }
        let newer = quick.project(&parse("p")).unwrap();
        place.import(&newer, "newer", &[]);
        quick.dump_catalog().unwrap();
        drop(turn);
        late.join().unwrap()
    });
    drop((own, slow, quick));
    fs::remove_file(root.join("catalog.redb")).unwrap();
    let report = Store::repair(&root, PRESENT).unwrap();
    assert!(report.removed.is_empty() && !report.has_losses(), "{report:?}");
    let own = Store::open(&root).unwrap().project(&parse("p")).unwrap();
    assert_eq!(read(&own.find(&late.into()).unwrap(), "content").unwrap(), b"late");
}
