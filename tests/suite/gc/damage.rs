//! Collections of damaged stores: what can't be known to be unneeded stays.

use std::fs;
use std::path::PathBuf;

use layerstone::id::ImageId;
use layerstone::{GcOptions, ImportOptions, RepairOptions, Store};

use super::{check, collect, collect_fully, import, pack_bytes, small_packs};
use crate::given::{Place, project};

/// A store of two images, of which the first was removed; gives where it is, and the other.
fn with_one_removed(place: &Place) -> (PathBuf, ImageId) {
    let root = place.path("store");
    let store = small_packs().open(&root).unwrap();
    let project = project(&store, "p");
    let (removed, kept) = (import(place, &project, 1), import(place, &project, 2));
    project.remove(&removed.into(), true).unwrap();
    (root, kept)
}

#[test]
fn damage_stops_it_and_nothing_is_freed() {
    let place = Place::new();
    let (root, kept) = with_one_removed(&place);
    for pack in fs::read_dir(root.join("packs")).unwrap() {
        let path = pack.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().skip(24).step_by(97).for_each(|byte| *byte ^= 8);
        fs::write(path, bytes).unwrap();
    }
    let (store, before) = (Store::open(&root).unwrap(), pack_bytes(&root));
    let error = store.collect_garbage(&GcOptions::default()).unwrap_err();
    assert!(error.is_corrupt(), "{error}");
    assert_eq!(pack_bytes(&root), before);
    // With the image that is damaged gone, all is.
    store.project(&"p".parse().unwrap()).unwrap().remove(&kept.into(), true).unwrap();
    collect(&store);
    assert_eq!(pack_bytes(&root), 0);
}

/// Of contents only the index says where they are.
#[test]
fn a_damaged_index_stops_it() {
    let place = Place::new();
    let (root, kept) = with_one_removed(&place);
    let before = pack_bytes(&root);
    for segment in fs::read_dir(root.join("segments")).unwrap() {
        let path = segment.unwrap().path();
        let sound = fs::read(&path).unwrap();
        for position in [130, sound.len() / 2, sound.len() - 3] {
            let mut damaged = sound.clone();
            damaged[position] ^= 4;
            fs::write(&path, &damaged).unwrap();
            let error = Store::open(&root).unwrap().collect_garbage(&GcOptions::default()).unwrap_err();
            assert!(error.is_corrupt(), "byte {position}: {error}");
            assert_eq!(pack_bytes(&root), before);
        }
        fs::write(&path, sound).unwrap();
    }
    let store = Store::open(&root).unwrap();
    assert!(collect_fully(&store).freed_packs > 0);
    check(&store.project(&"p".parse().unwrap()).unwrap(), kept, 2);
}

#[test]
fn an_older_catalog_that_was_put_back_is_only_read() {
    let place = Place::new();
    let root = place.path("store");
    let store = small_packs().open(&root).unwrap();
    let project = project(&store, "p");
    let known = import(&place, &project, 1);
    fs::create_dir(place.path("other")).unwrap();
    store.wait_for_upkeep();
    fs::copy(root.join("catalog.redb"), place.path("older")).unwrap();
    let newer = import(&place, &project, 2);
    store.wait_for_upkeep();
    store.dump_catalog().unwrap();
    drop((project, store));
    fs::copy(place.path("older"), root.join("catalog.redb")).unwrap();
    let before = pack_bytes(&root);
    let older = Store::open(&root).unwrap();
    let project = older.project(&"p".parse().unwrap()).unwrap();
    check(&project, known, 1);
    let refused = [
        older.collect_garbage(&GcOptions::default()).map(drop),
        project.tag(&known.into(), &["t".parse().unwrap()]).map(drop),
        // What it would write over is all that there is of the newer image.
        project.import_directory(place.path("other"), &ImportOptions::default()).map(drop),
    ];
    for error in refused.map(Result::unwrap_err) {
        assert!(error.is_corrupt() && error.to_string().contains("an older copy was put back"), "{error}");
    }
    drop((project, older));
    assert_eq!(pack_bytes(&root), before);
    Store::repair(&root, RepairOptions::default()).unwrap();
    let store = Store::open(&root).unwrap();
    check(&store.project(&"p".parse().unwrap()).unwrap(), newer, 2);
    collect(&store);
    check(&store.project(&"p".parse().unwrap()).unwrap(), newer, 2);
}
