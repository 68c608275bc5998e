//! Repair of stores that were collected: what is gone stays gone, and numbers are not given out again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use layerstone::{CatalogState, Store};

use super::{ALL, Given, PRESENT, collect, content, copy_tree, flip, options};
use crate::given::{Place, parse, project, read, reference};
use crate::roundtrip::noise;

#[test]
fn what_was_collected_stays_gone_and_is_no_loss() {
    let place = Place::new();
    let root = place.path("store");
    let store = options().open(&root).unwrap();
    let own = project(&store, "p");
    let shared = noise(40_000, 1);
    let first = place.directory("first", &[("shared", &shared), ("own", &noise(200_000, 2))]);
    let first = own.import_directory(&first, &layerstone::ImportOptions::default()).unwrap().image;
    let second = place.directory("second", &[("shared", &shared), ("other", &noise(50_000, 3))]);
    let second = own.import_directory(&second, &layerstone::ImportOptions::default()).unwrap().image;
    own.remove(&first.into(), false).unwrap();
    store.wait_for_upkeep();
    let freed = store.collect_garbage(&layerstone::GcOptions::default()).unwrap();
    assert!(freed.freed_packs > 0, "{freed:?}");
    drop((own, store));
    let given = Given { place, root, images: Vec::new() };
    for options in [PRESENT, ALL] {
        let report = given.repair(options);
        assert_eq!((report.images, report.has_losses(), report.fault_count), (1, false, 0), "{report:?}");
    }
    fs::remove_file(given.root.join("catalog.redb")).unwrap();
    fs::remove_file(given.root.join("catalog.dump")).unwrap();
    let report = given.repair(PRESENT);
    assert!(report.restored.iter().any(|restored| restored.image == second), "{report:?}");
    let store = Store::open(&given.root).unwrap();
    // It goes on as a store that is collected.
    store.collect_garbage(&layerstone::GcOptions::default()).unwrap();
    assert!(store.verify().unwrap().is_sound());
    let own = store.project(&parse("recovered-1")).unwrap();
    assert_eq!(read(&own.find(&second.into()).unwrap(), "shared").unwrap(), shared);
}

#[test]
fn an_image_that_was_removed_and_collected_after_the_dump_is_not_told_as_lost() {
    let given = Given::new();
    {
        let store = options().open(&given.root).unwrap();
        let own = store.project(&parse("p")).unwrap();
        for number in [1, 2, 3] {
            own.remove(&reference(&format!("t{number}")), false).unwrap();
        }
        // The dump is new, so nobody but the collection writes another.
        let freed = store.collect_garbage(&layerstone::GcOptions { full: true, ..Default::default() });
        assert!(freed.unwrap().freed_packs > 0);
    }
    fs::remove_file(given.root.join("catalog.redb")).unwrap();
    let report = given.repair(PRESENT);
    assert!(!report.has_losses() && report.restored.is_empty(), "{report:?}");
    assert_eq!(given.sound(), [0, 4, 5, 6]);
}

/// Removes images and collects while somebody reads, so that packs stay that are condemned; gives those.
fn condemn(given: &Given) -> BTreeSet<PathBuf> {
    let store = options().open(&given.root).unwrap();
    let own = store.project(&parse("p")).unwrap();
    let reader = own.find(&reference("t1")).unwrap();
    for number in [1, 2, 3] {
        own.remove(&reference(&format!("t{number}")), true).unwrap();
    }
    let before: BTreeSet<_> = given.files("packs").into_iter().collect();
    let report = store.collect_garbage(&layerstone::GcOptions { full: true, ..Default::default() }).unwrap();
    assert!(report.waiting_packs > 0, "{report:?}");
    // Nothing may write to what is copied: an open store merges segments behind its callers.
    drop((reader, own, store));
    // Another store has the same, without the packs that wait.
    let copy = given.place.path("collected");
    copy_tree(&given.root, &copy);
    options().open(&copy).unwrap().collect_garbage(&layerstone::GcOptions::default()).unwrap();
    before.into_iter().filter(|pack| !copy.join("packs").join(pack.file_name().unwrap()).exists()).collect()
}

#[test]
fn condemned_packs_go_and_nothing_that_stays_needs_them() {
    let given = Given::new();
    let condemned = condemn(&given);
    assert!(!condemned.is_empty());
    let damaged = given.place.path("damaged");
    copy_tree(&given.root, &damaged);

    // No row is lost: they stay condemned.
    let report = given.repair(ALL);
    assert!(report.restored.is_empty() && !report.has_losses(), "{report:?}");
    collect(&given);
    assert!(condemned.iter().all(|pack| !pack.exists()));
    assert_eq!(given.sound(), [0, 4, 5, 6]);

    // A row is lost, and there is no dump: still what only they have was removed.
    copy_tree(&damaged, &given.root);
    let catalog = given.root.join("catalog.redb");
    let mut bytes = fs::read(&catalog).unwrap();
    for at in 0..bytes.len() - 4 {
        if &bytes[at..at + 4] == b"own6" {
            bytes[at] = b'n';
        }
    }
    fs::write(&catalog, bytes).unwrap();
    fs::remove_file(given.root.join("catalog.dump")).unwrap();
    let report = given.repair(PRESENT);
    assert_eq!(report.catalog, CatalogState::Damaged);
    let removed: Vec<_> = report.removed.iter().map(|image| image.image).collect();
    assert!([1, 2, 3].iter().all(|number| removed.contains(&given.images[*number])), "{report:?}");
    assert!(report.restored.is_empty() && !report.has_losses(), "{report:?}");
    collect(&given);
    assert!(condemned.iter().all(|pack| !pack.exists()), "they are condemned again");
    assert_eq!(given.sound(), [0, 4, 5, 6]);

    // Nothing tells that they were condemned: what comes back does not go with the next collection.
    copy_tree(&damaged, &given.root);
    fs::remove_file(&catalog).unwrap();
    fs::remove_file(given.root.join("catalog.dump")).unwrap();
    let report = given.repair(PRESENT);
    let restored: Vec<_> = report.restored.iter().map(|image| image.image).collect();
    assert!([1, 2, 3].iter().all(|number| restored.contains(&given.images[*number])), "{report:?}");
    collect(&given);
    let own = Store::open(&given.root).unwrap().project(&parse("recovered-1")).unwrap();
    for number in [0, 1, 2, 3] {
        let image = own.find(&given.images[number].into()).unwrap();
        assert_eq!(read(&image, "content").unwrap(), content(number).as_bytes());
    }
}

#[test]
fn numbers_that_were_given_out_are_not_given_out_again() {
    let given = Given::new();
    // It has had the store open all along, and remembers files by their numbers.
    let old = options().open(&given.root).unwrap();
    let own = old.project(&parse("p")).unwrap();
    for number in 0..6 {
        read(&own.find(&reference(&format!("t{number}"))).unwrap(), "content").unwrap();
    }
    let names = |folder| given.files(folder).into_iter().map(|file| (file.clone(), fs::read(file).unwrap()));
    let mut seen: BTreeMap<_, _> = names("packs").chain(names("segments")).collect();
    let mut is_new = |when: &str| {
        for (file, bytes) in names("packs").chain(names("segments")) {
            let known = seen.entry(file.clone()).or_insert_with(|| bytes.clone());
            // An open pack grows.
            assert!(bytes.starts_with(known), "{when}: {} is another file now", file.display());
            *known = bytes;
        }
    };
    let last = given.files("packs").pop().unwrap();
    flip(&last, 3_000);
    given.repair(PRESENT);
    is_new("repaired");
    for lost in ["catalog.redb", "catalog.dump"] {
        fs::remove_file(given.root.join(lost)).unwrap();
    }
    // So that nothing is left of their numbers.
    for lost in given.files("segments").into_iter().chain(given.files("packs").pop()) {
        fs::remove_file(lost).unwrap();
    }
    given.repair(PRESENT);
    is_new("without catalog");
    let recovered = old.project(&parse("recovered-1")).unwrap();
    for number in 10..16 {
        given.place.import(&recovered, &content(number), &[&format!("t{number}")]);
    }
    old.wait_for_upkeep();
    is_new("used");
    for number in 10..16 {
        let image = recovered.find(&reference(&format!("t{number}"))).unwrap();
        assert_eq!(read(&image, "content").unwrap(), content(number).as_bytes());
    }
    assert!(old.verify().unwrap().is_sound());
}
