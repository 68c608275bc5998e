//! Several users of one store, and stores that are not what they should be.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstone::{ErrorKind, ImportOptions, ListOptions, Store, StoreOptions};

use crate::given::{Place, parse, project, read, reference, tags};

#[test]
fn two_handles_import_and_tag_at_once() {
    let place = Place::new();
    let store = place.path("store");
    project(&Store::open(&store).unwrap(), "p");
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (place, store) = (&place, &store);
            scope.spawn(move || {
                let project = Store::open(store).unwrap().project(&parse("p")).unwrap();
                for i in 0..15 {
                    let name = format!("w{worker}-{i}");
                    let common = format!("common {i}").repeat(1000);
                    let files = [("own", name.as_bytes()), ("common", common.as_bytes())];
                    let directory = place.directory(&name, &files);
                    let options =
                        ImportOptions { tags: tags(&[&name, "newest"]), ..ImportOptions::default() };
                    project.import_directory(&directory, &options).unwrap();
                }
            });
        }
    });
    let project = Store::open(&store).unwrap().project(&parse("p")).unwrap();
    assert_eq!(project.images(&ListOptions::default()).unwrap().images.len(), 30);
    for worker in 0..2 {
        for i in 0..15 {
            let name = format!("w{worker}-{i}");
            let image = project.find(&reference(&name)).unwrap();
            assert_eq!(read(&image, "own").unwrap(), name.as_bytes());
            assert_eq!(read(&image, "common").unwrap(), format!("common {i}").repeat(1000).as_bytes());
        }
    }
    let newest = project.resolve(&reference("newest")).unwrap().id;
    let last = [reference("w0-14"), reference("w1-14")].map(|name| project.resolve(&name).unwrap().id);
    assert!(last.contains(&newest));
}

#[test]
fn the_same_import_in_many_threads_is_one_image() {
    let place = Place::new();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let directory = place.directory("source", &[("x", &vec![9; 100_000])]);
    let reports: Vec<_> = std::thread::scope(|scope| {
        let import = || project.import_directory(&directory, &ImportOptions::default()).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(import)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(reports.iter().all(|report| report.image == reports[0].image));
    assert_eq!(reports.iter().filter(|report| report.is_new).count(), 1);
}

#[test]
fn an_exclusive_store_is_locked_and_says_by_whom() {
    let place = Place::new();
    let holder = StoreOptions::default().exclusive(true).open(place.path("store")).unwrap();
    let hurried = StoreOptions::default().lock_timeout(Duration::from_millis(50));
    let other = hurried.clone().open(place.path("store")).unwrap();
    let error = other.projects().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    let also = hurried.exclusive(true).open(place.path("store")).unwrap_err();
    assert_eq!(also.kind(), ErrorKind::Locked);
    drop(holder);
    other.projects().unwrap();
}

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
            assert!(errors.iter().all(layerstone::Error::is_corrupt), "page {number}: {errors:?}");
            found += usize::from(!errors.is_empty());
        }
    }
    assert!(found > 10, "only {found} were noticed");
}
