//! Several users of one store.

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

/// Upkeep, collections and callers write it.
#[test]
fn dumps_of_several_threads_do_not_meet() {
    let place = Place::new();
    let root = place.path("store");
    let store = Store::open(&root).unwrap();
    place.import(&project(&store, "p"), "content", &[]);
    // While one of them has the catalog open, the others share it.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| store.dump_catalog().unwrap()));
        }
    });
    assert!(store.verify().unwrap().is_sound());
    assert!(!root.join("catalog.dump.new").exists());
}
