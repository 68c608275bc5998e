//! Stores that are not what they should be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use layerstone::{CheckoutOptions, ErrorKind, ImportOptions, RepairOptions, Store, WorkspaceOptions};

use crate::given::{Place, parse, project, read, reference, tags};

#[test]
fn a_store_of_another_format_is_left_alone() {
    let place = Place::new();
    drop(Store::open(place.path("store")).unwrap());
    let format = place.path("store").join("format");
    let own = fs::read_to_string(&format).unwrap();
    let own_version = own.trim().rsplit(' ').next().unwrap().to_owned();
    fs::write(&format, own.replace(&own_version, "999")).unwrap();
    let error = Store::open(place.path("store")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains("999") && text.contains(&format!("format {own_version}")), "{text}");
    for rubbish in ["", "layerstone store format -1\n", "\0\0\0"] {
        fs::write(&format, rubbish).unwrap();
        assert_eq!(Store::open(place.path("store")).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// A store with one image, and its only pack.
fn small_store(place: &Place) -> (PathBuf, PathBuf) {
    let root = place.path("store");
    let project = project(&Store::open(&root).unwrap(), "p");
    let (text, noise) = ("compressible ".repeat(2_000), crate::roundtrip::noise(20_000, 1));
    let directory = place.directory("source", &[("text", text.as_bytes()), ("noise", &noise)]);
    let options = ImportOptions { tags: tags(&["t"]), ..ImportOptions::default() };
    project.import_directory(&directory, &options).unwrap();
    let mut packs = fs::read_dir(root.join("packs")).unwrap();
    let pack = packs.next().unwrap().unwrap().path();
    assert!(packs.next().is_none());
    (root, pack)
}

/// Reads all of the image's files: how many came back, and the errors of the others.
fn read_all(root: &Path, source: &Path) -> (usize, Vec<layerstone::Error>) {
    let read_one = |name: &str| -> layerstone::Result<()> {
        let image = Store::open(root)?.project(&parse("p"))?.find(&reference("t"))?;
        let bytes = read(&image, name)?;
        assert!(bytes == fs::read(source.join(name)).unwrap(), "wrong bytes of {name}");
        Ok(())
    };
    let results = ["text", "noise"].map(read_one);
    let sound = results.iter().filter(|result| result.is_ok()).count();
    (sound, results.into_iter().filter_map(Result::err).collect())
}

#[test]
fn a_flipped_bit_in_a_pack_never_gives_wrong_bytes() {
    let place = Place::new();
    let (root, pack) = small_store(&place);
    let source = place.path("source");
    let sound = fs::read(&pack).unwrap();
    assert_eq!(read_all(&root, &source).0, 2);
    let mut found = 0;
    for position in (0..sound.len()).step_by(sound.len() / 150) {
        let mut damaged = sound.clone();
        damaged[position] ^= 1 << (position % 8);
        fs::write(&pack, &damaged).unwrap();
        let (_, errors) = read_all(&root, &source);
        assert!(errors.iter().all(layerstone::Error::is_corrupt), "byte {position}: {errors:?}");
        found += usize::from(!errors.is_empty());
    }
    // What lies in the pack's own head and in records that reading a file does not need may be flipped unseen.
    assert!(found > 100, "only {found} flips were noticed");
    fs::write(&pack, &sound).unwrap();
    assert_eq!(read_all(&root, &source).0, 2, "the damage was in the pack alone");
}

#[test]
fn a_pack_that_is_cut_or_gone_is_an_error() {
    let place = Place::new();
    let (root, pack) = small_store(&place);
    let source = place.path("source");
    let sound = fs::read(&pack).unwrap();
    for len in [0, 10, 24, 100, sound.len() / 2] {
        fs::write(&pack, &sound[..len]).unwrap();
        let (_, errors) = read_all(&root, &source);
        assert!(!errors.is_empty() && errors.iter().all(layerstone::Error::is_corrupt), "{len}: {errors:?}");
    }
    fs::remove_file(&pack).unwrap();
    let (_, errors) = read_all(&root, &source);
    assert!(errors.len() == 2 && errors.iter().all(layerstone::Error::is_corrupt), "{errors:?}");
}

#[test]
fn a_damaged_catalog_is_an_error_not_a_panic() {
    let place = Place::new();
    let (root, _) = small_store(&place);
    let catalog = root.join("catalog.redb");
    let sound = fs::read(&catalog).unwrap();
    for garbage in
        [vec![], vec![0; sound.len()], vec![0xff; 100], b"redb".to_vec(), sound[..sound.len() / 2].to_vec()]
    {
        fs::write(&catalog, &garbage).unwrap();
        let error = Store::open(&root).and_then(|store| store.projects()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    }
}

#[test]
fn damaged_pages_of_the_catalog_are_errors_or_do_no_harm() {
    const PAGE_BYTES: usize = 4096;
    let place = Place::new();
    let (root, _) = small_store(&place);
    let catalog = root.join("catalog.redb");
    let sound = fs::read(&catalog).unwrap();
    let mut found = 0;
    for (number, page) in
        sound.chunks(PAGE_BYTES).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0))
    {
        let noise = crate::roundtrip::noise(page.len(), number as u64);
        let flipped = page
            .iter()
            .zip(&noise)
            .map(|(byte, noise)| if *noise < 4 { byte ^ 0x10 } else { *byte })
            .collect();
        for damage in [vec![0; page.len()], vec![0xff; page.len()], noise, flipped] {
            let mut damaged = sound.clone();
            damaged[number * PAGE_BYTES..][..page.len()].copy_from_slice(&damage);
            fs::write(&catalog, &damaged).unwrap();
            // A panic would end the test, and wrong bytes, too.
            let (_, errors) = read_all(&root, &place.path("source"));
            // A row whose key was changed is not found: only verification, which checks pages, can tell.
            let is_missing = errors.iter().any(layerstone::Error::is_not_found);
            assert!(!is_missing || !Store::open(&root).unwrap().verify().unwrap().is_sound());
            let is_told = |error: &layerstone::Error| error.is_corrupt() || error.is_not_found();
            assert!(errors.iter().all(is_told), "page {number}: {errors:?}");
            found += usize::from(!errors.is_empty());
        }
    }
    assert!(found > 10, "only {found} were noticed");
}

/// Every file below a directory.
fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        found.extend(if path.is_dir() { files(&path) } else { [path].into() });
    }
    found
}

#[test]
fn a_lost_catalog_is_an_error_and_costs_nothing_else() {
    let place = Place::new();
    let (root, _) = small_store(&place);
    let image = Store::open(&root).unwrap().project(&parse("p")).unwrap().find(&reference("t")).unwrap();
    image.check_out(place.path("copy"), CheckoutOptions::default()).unwrap();
    drop(image);
    let before = files(&root);
    for lost in ["catalog.redb", "format"] {
        let kept = place.path("kept");
        fs::rename(root.join(lost), &kept).unwrap();
        for _ in 0..2 {
            let error = Store::open(&root)
                .and_then(|store| {
                    store.default_project()?.import_directory(place.path("source"), &ImportOptions::default())
                })
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            let text = error.to_string();
            assert!(text.contains(lost) && text.contains("repair the store"), "{text}");
        }
        fs::rename(&kept, root.join(lost)).unwrap();
        assert_eq!(files(&root), before);
        assert_eq!(read_all(&root, &place.path("source")).0, 2);
    }
}

#[test]
fn a_store_with_workspaces_that_lost_its_format_is_made_whole_by_a_repair() {
    let place = Place::new();
    let (root, _) = small_store(&place);
    let project = Store::open(&root).unwrap().project(&parse("p")).unwrap();
    let image = project.find(&reference("t")).unwrap();
    let workspace =
        image.create_workspace(&WorkspaceOptions { full_copy: true, ..Default::default() }).unwrap();
    let name = workspace.name().clone();
    drop((workspace, image, project));
    fs::remove_file(root.join("format")).unwrap();
    let error = Store::open(&root).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(text.contains("'workspaces'") && text.contains("made whole again by a repair"), "{text}");
    Store::repair(&root, RepairOptions::default()).unwrap();
    let store = Store::open(&root).unwrap();
    assert!(store.project(&parse("p")).unwrap().workspace(&name).unwrap().path().unwrap().exists());
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn nothing_is_built_upon_a_pack_that_is_gone() {
    let place = Place::new();
    let (root, pack) = small_store(&place);
    let kept = place.path("kept");
    fs::rename(&pack, &kept).unwrap();
    let import = |name: &str| {
        let project = Store::open(&root)?.project(&parse("p"))?;
        project.import_directory(place.path(name), &ImportOptions::default())
    };
    // The first import would append to it; the next one gets a pack of its own and shares what is the same.
    place.directory("more", &[("noise", &crate::roundtrip::noise(20_000, 1)), ("new", b"new")]);
    for name in ["more", "more", "source"] {
        let error = import(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("missing"), "{error}");
    }
    fs::rename(&kept, &pack).unwrap();
    assert!(import("more").unwrap().is_new);
    assert_eq!(read_all(&root, &place.path("source")).0, 2);
}

#[test]
fn somebodys_files_do_not_become_a_store() {
    let place = Place::new();
    let home = place.directory("home", &[("letter\u{1b}.txt", b"dear")]);
    let error = Store::open(&home).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(text.contains(r"letter\u{1b}.txt") && !text.contains("repair"), "{text}");
    assert_eq!(files(&home).len(), 1);
    // What a creation leaves that was killed, and an empty file system of its own, do.
    let begun =
        place.directory("begun", &[("lock", b""), ("catalog.redb.new", b"redb"), ("format.new", b"la")]);
    fs::create_dir(begun.join("packs")).unwrap();
    fs::create_dir(begun.join("lost+found")).unwrap();
    Store::open(&begun).unwrap().projects().unwrap();
    assert!(begun.join("format").exists());
}

#[test]
fn a_checkout_is_not_written_into_the_store_nor_over_the_current_directory() {
    let place = Place::new();
    let (root, _) = small_store(&place);
    let image = Store::open(&root).unwrap().project(&parse("p")).unwrap().find(&reference("t")).unwrap();
    for inside in [root.join("copy"), root.join("packs/copy")] {
        let error = image.check_out(&inside, CheckoutOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(!inside.exists());
    }
    let here = std::env::current_dir().unwrap();
    let error = image.check_out(&here, CheckoutOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
