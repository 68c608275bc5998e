//! Collections beside everything else that a store does.

use std::fs;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use layerstone::{CommitOptions, ExportOptions, GcOptions, ImportOptions, Store, StoreOptions, Task};

use super::{check, collect_fully, content, find, import, small_packs};
use crate::given::{Place, project, read};
use crate::roundtrip::noise;

/// Each race is met in the middle: the watcher is called between the steps of a collection.
#[test]
fn what_becomes_needed_while_it_runs_stays() {
    for options in [StoreOptions::default(), small_packs(), small_packs().exclusive(true)] {
        let place = Place::new();
        let store = options.open(place.path("store")).unwrap();
        let [public, project] = ["public", "p"].map(|name| project(&store, name));
        let ids: Vec<_> = (0..6).map(|number| import(&place, &project, number)).collect();
        let handles: Vec<_> = ids.iter().map(|id| find(&project, *id)).collect();
        ids.iter().skip(1).for_each(|id| drop(project.remove(&(*id).into(), true).unwrap()));
        let shared = import(&place, &public, 20);
        let turn = AtomicU64::new(0);
        let made = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let (inner, kept) = (project.clone(), made.clone());
        let there = place.path("beside");
        let task = Task::watched(move |_| {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            let Some(handle) = handles.get(usize::try_from(turn).unwrap()) else { return };
            // An edit takes over all of a tree that nothing else needs.
            let edit = handle.edit().write("new", turn.to_le_bytes().to_vec());
            let edited = edit.commit(&CommitOptions::default()).unwrap().image;
            kept.lock().unwrap().push((edited, turn));
            // An import finds the objects of one that is removed.
            let source = there.join(format!("{turn}"));
            fs::create_dir_all(source.join("d")).unwrap();
            for file in 0..8_u64 {
                fs::write(source.join(format!("d/{file}")), content(5 - turn, file)).unwrap();
            }
            fs::write(source.join("shared"), noise(30_000, 5)).unwrap();
            let imported = inner.import_directory(&source, &ImportOptions::default()).unwrap().image;
            kept.lock().unwrap().push((imported, 5 - turn));
            if turn == 1 {
                inner.tag(&shared.into(), &["adopted".parse().unwrap()]).unwrap();
                public.remove(&shared.into(), true).unwrap();
                kept.lock().unwrap().push((shared, 20));
            }
        });
        let options = GcOptions { full: true, ..GcOptions::default() };
        store.with_task(&task).collect_garbage(&options).unwrap();
        let made: Vec<_> = made.lock().unwrap().drain(..).collect();
        assert!(made.len() >= 5, "{made:?}");
        drop(task);
        for round in 0..3 {
            for (id, number) in &made {
                check(&project, *id, *number);
            }
            let report = store.verify().unwrap();
            assert!(report.is_sound(), "round {round}: {report:?}");
            collect_fully(&store);
        }
    }
}

/// A stream that collects garbage when its middle is read.
struct Collecting<'s> {
    bytes: &'s [u8],
    middle: usize,
    store: &'s Store,
}

impl Read for Collecting<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.bytes.len() <= self.middle && self.middle > 0 {
            self.middle = 0;
            let report = collect_fully(self.store);
            assert!(report.waiting_packs > 0, "what the import counts on is condemned: {report:?}");
        }
        let some = buf.len().min(5_000);
        self.bytes.read(&mut buf[..some])
    }
}

#[test]
fn an_import_keeps_what_it_found_before_it_was_condemned() {
    for options in [StoreOptions::default(), small_packs()] {
        let place = Place::new();
        let store = options.threads(1).open(place.path("store")).unwrap();
        let project = project(&store, "p");
        let first = import(&place, &project, 1);
        let other = import(&place, &project, 2);
        let mut tar = Vec::new();
        find(&project, first).export(&mut tar, &ExportOptions::default()).unwrap();
        project.remove(&first.into(), true).unwrap();
        // Only the rest of the first is unneeded, so its packs are copied or condemned; the import counts on both.
        let source = Collecting { bytes: &tar, middle: tar.len() / 2, store: &store };
        let again = project.import_tar(source, &ImportOptions::default()).unwrap().image;
        for _ in 0..3 {
            check(&project, again, 1);
            check(&project, other, 2);
            assert!(store.verify().unwrap().is_sound());
            collect_fully(&store);
        }
    }
}

/// A large import's packs are published one after the other, and needed by nothing before its end.
#[test]
fn an_import_keeps_the_packs_that_it_has_filled() {
    let place = Place::new();
    let store = StoreOptions::default()
        .pack_bytes(20_000)
        .held_bytes(1000)
        .threads(1)
        .open(place.path("store"))
        .unwrap();
    let project = project(&store, "p");
    let scratch = Store::in_memory().unwrap();
    let from = crate::given::project(&scratch, "p");
    let image = import(&place, &from, 3);
    let mut tar = Vec::new();
    find(&from, image).export(&mut tar, &ExportOptions::default()).unwrap();
    let removed = import(&place, &project, 9);
    project.remove(&removed.into(), true).unwrap();
    let image = project
        .import_tar(
            Collecting { bytes: &tar, middle: tar.len() / 3, store: &store },
            &ImportOptions::default(),
        )
        .unwrap()
        .image;
    check(&project, image, 3);
    assert!(store.verify().unwrap().is_sound());
    collect_fully(&store);
    check(&project, image, 3);
}

/// Ends the others when one fails.
struct EndsAll<'f>(&'f AtomicBool);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two threads make and remove images, two read, one collects; each reader finds what it should at every moment.
fn work_beside_collections(images: u64, time: Duration) {
    let place = Place::new();
    let store =
        StoreOptions::default().pack_bytes(4 << 20).held_bytes(200_000).open(place.path("store")).unwrap();
    let project = project(&store, "p");
    let there =
        Mutex::new((0..images).map(|number| (import(&place, &project, number), number)).collect::<Vec<_>>());
    let is_over = AtomicBool::new(false);
    let (next, made, looked, collected) =
        (AtomicU64::new(images), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for importer in 0..2 {
            let (project, place, there, is_over, next, made) =
                (project.clone(), &place, &there, &is_over, &next, &made);
            scope.spawn(move || {
                let _ends_all = EndsAll(is_over);
                while !is_over.load(Ordering::Relaxed) {
                    // Half of them have contents that were removed a moment ago.
                    let new = next.fetch_add(1, Ordering::Relaxed);
                    let number = if new % 2 == 0 { new } else { new - new.min(3) };
                    let id = import(place, &project, number);
                    let gone = {
                        let mut there = there.lock().unwrap();
                        if there.iter().all(|(known, _)| *known != id) {
                            there.push((id, number));
                        }
                        let place = usize::try_from(new.wrapping_mul(7_919)).unwrap() % there.len();
                        (importer == 0 || new % 3 > 0).then(|| there.swap_remove(place))
                    };
                    if let Some((id, _)) = gone {
                        match project.remove(&id.into(), true) {
                            Ok(_) => {}
                            // The other importer had made it again, and removed it since.
                            Err(error) => assert!(error.is_not_found(), "{error}"),
                        }
                    }
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for reader in 0..2_usize {
            let (project, there, is_over, looked) = (project.clone(), &there, &is_over, &looked);
            scope.spawn(move || {
                let _ends_all = EndsAll(is_over);
                for turn in (reader..).step_by(3) {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let known = {
                        let there = there.lock().unwrap();
                        there.get(turn.wrapping_mul(31) % there.len().max(1)).copied()
                    };
                    let Some((id, number)) = known else { continue };
                    match project.find(&id.into()) {
                        Ok(image) => {
                            for file in 0..8 {
                                let found = read(&image, &format!("d/{file}")).unwrap();
                                assert!(found == content(number, file), "{number}/{file}");
                            }
                            looked.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => assert!(error.is_not_found(), "{error}"),
                    }
                }
            });
        }
        scope.spawn(|| {
            let _ends_all = EndsAll(&is_over);
            let end = Instant::now() + time;
            while Instant::now() < end {
                let number = collected.fetch_add(1, Ordering::Relaxed);
                let full = number % 4 == 3;
                let report = store.collect_garbage(&GcOptions { full, ..GcOptions::default() }).unwrap();
                assert_eq!(report.damaged_packs, 0);
                let report = store.verify().unwrap();
                assert!(report.is_sound(), "{:?}", report.faults);
            }
        });
    });
    let left = there.into_inner().unwrap();
    // What was made again while it was removed may be gone: whoever was last decides.
    for (id, number) in left {
        if project.find(&id.into()).is_ok() {
            check(&project, id, number);
        }
    }
    assert!(store.verify().unwrap().is_sound());
    println!("{made:?} images made, {looked:?} read, {collected:?} collections");
    assert!(collected.into_inner() > 1 && made.into_inner() > 1 && looked.into_inner() > 1);
}

#[test]
fn collections_beside_importers_and_readers() {
    work_beside_collections(30, Duration::from_secs(4));
}

/// `cargo nextest run --all-features --run-ignored only -E 'test(a_minute_of_collections)' --no-capture`
#[test]
#[ignore = "takes minutes"]
fn a_minute_of_collections_in_a_store_of_a_thousand_images() {
    work_beside_collections(1000, Duration::from_secs(60));
}
