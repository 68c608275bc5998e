//! Collection: all that is needed stays, all else goes, whatever happens beside it.

use std::fs;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use layerstone::id::ImageId;
use layerstone::{
    CheckoutOptions, CommitOptions, ErrorKind, GcOptions, GcReport, GcWatch, Image, ImportOptions, Project,
    RepairOptions, Store, StoreOptions, WorkspaceOptions,
};

use crate::given::{Place, project, read};
use crate::roundtrip::noise;

/// Packs that are full soon, so that there are many, and segments of them.
fn small_packs() -> StoreOptions {
    StoreOptions::default().pack_bytes(60_000).row_objects(20).held_bytes(30_000)
}

fn collect(store: &Store) -> GcReport {
    store.collect_garbage(&GcOptions::default()).unwrap()
}

fn collect_fully(store: &Store) -> GcReport {
    store.collect_garbage(&GcOptions { full: true, ..GcOptions::default() }).unwrap()
}

/// An image of some files, each of which has content that no other number has.
fn import(place: &Place, project: &Project, number: u64) -> ImageId {
    // Two threads may import the same at once.
    static SOURCES: AtomicU64 = AtomicU64::new(0);
    let source = place.path(&format!("source-{}", SOURCES.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(source.join("d")).unwrap();
    for file in 0..8_u64 {
        fs::write(source.join(format!("d/{file}")), content(number, file)).unwrap();
    }
    fs::write(source.join("shared"), noise(30_000, 5)).unwrap();
    let image = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    fs::remove_dir_all(source).unwrap();
    image
}

fn content(number: u64, file: u64) -> Vec<u8> {
    noise(2_000 + 700 * usize::try_from(file).unwrap(), number * 100 + file)
}

fn find(project: &Project, image: ImageId) -> Image {
    project.find(&image.into()).unwrap()
}

fn check(project: &Project, image: ImageId, number: u64) {
    let image = find(project, image);
    for file in 0..8 {
        assert!(read(&image, &format!("d/{file}")).unwrap() == content(number, file), "{number}/{file}");
    }
    assert!(read(&image, "shared").unwrap() == noise(30_000, 5));
}

fn pack_bytes(root: &Path) -> u64 {
    let packs = fs::read_dir(root.join("packs")).unwrap();
    packs.map(|pack| pack.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn what_is_needed_stays_and_all_else_goes() {
    for options in [StoreOptions::default(), small_packs()] {
        let place = Place::new();
        let root = place.path("store");
        let store = options.open(&root).unwrap();
        let project = project(&store, "p");
        let images: Vec<_> = (0..12).map(|number| import(&place, &project, number)).collect();
        store.wait_for_upkeep();
        assert_eq!(collect(&store).freed_packs, 0, "everything is needed");
        for number in [0, 1, 2, 4, 5, 6, 8, 9, 10] {
            project.remove(&images[number].into(), true).unwrap();
        }
        let before = pack_bytes(&root);
        let planned = store.collect_garbage(&GcOptions { dry_run: true, ..GcOptions::default() }).unwrap();
        assert_eq!(pack_bytes(&root), before, "a dry run changes nothing");
        let report = collect(&store);
        // A new pack has a head.
        let grown = pack_bytes(&root) + report.freed_bytes - report.copied_bytes - before;
        assert!(grown.is_multiple_of(24) && grown < 1000, "{grown}");
        assert_eq!((planned.freed_packs, planned.freed_bytes), (report.freed_packs, report.freed_bytes));
        assert_eq!((report.images, report.waiting_packs, report.damaged_packs), (3, 0, 0));
        assert!(report.freed_bytes > before / 4, "{report:?}");
        // Three quarters are unneeded.
        collect_fully(&store);
        assert!(pack_bytes(&root) * 2 < before, "{} of {before}", pack_bytes(&root));
        assert!(store.verify().unwrap().is_sound());
        for number in [3, 7, 11] {
            check(&project, images[number], number as u64);
        }
        // The others come back whole, though part of them is there.
        let again = import(&place, &project, 5);
        check(&project, again, 5);
        assert!(store.verify().unwrap().is_sound());

        // What nothing needs leaves nothing, but for what is being filled and parts of frames.
        for image in [images[3], images[7], images[11], again] {
            project.remove(&image.into(), true).unwrap();
        }
        let report = collect(&store);
        assert_eq!(
            (report.needed_objects, report.unneeded_bytes, pack_bytes(&root)),
            (0, 0, 0),
            "{report:?}"
        );
        drop(store);
        let store = Store::open(&root).unwrap();
        assert!(store.verify().unwrap().is_sound());
        assert_eq!(store.verify().unwrap().objects, 0);
        let segments = fs::read_dir(root.join("segments")).unwrap().count();
        assert_eq!(segments, 0, "the index names no pack that is gone");
    }
}

#[test]
fn a_full_collection_leaves_what_a_new_store_would_have() {
    let place = Place::new();
    let root = place.path("store");
    let store = Store::open(&root).unwrap();
    let project = project(&store, "p");
    let images: Vec<_> = (0..6).map(|number| import(&place, &project, number)).collect();
    // Of each frame something is needed: a commit that keeps one file.
    let copy = place.path("copy");
    find(&project, images[0]).check_out(&copy, CheckoutOptions::default()).unwrap();
    for file in 1..8 {
        fs::remove_file(copy.join(format!("d/{file}"))).unwrap();
    }
    let left = project.commit(&copy, &CommitOptions::default()).unwrap().image;
    for image in images {
        project.remove(&image.into(), true).unwrap();
    }
    let report = collect(&store);
    assert!(report.unneeded_bytes > 0, "{report:?}");
    let report = collect_fully(&store);
    assert!(report.freed_packs > 0 && report.unneeded_bytes == 0, "{report:?}");
    assert!(read(&find(&project, left), "d/0").unwrap() == content(0, 0));
    assert!(store.verify().unwrap().is_sound());
    let fresh = Store::open(place.path("fresh")).unwrap();
    let other = crate::given::project(&fresh, "p");
    let exported = place.path("exported");
    find(&project, left).check_out(&exported, CheckoutOptions::default()).unwrap();
    other.import_directory(&exported, &ImportOptions::default()).unwrap();
    let (collected, new) = (pack_bytes(&root), pack_bytes(&place.path("fresh")));
    // The history's record, and frames that end where others began.
    assert!(collected < new + new / 20 + 1000, "{collected} and {new} bytes");
    assert_eq!(collect_fully(&store).freed_packs, 0, "nothing is left to do");
}

#[test]
fn what_someone_reads_stays_until_they_are_done() {
    let place = Place::new();
    let root = place.path("store");
    let store = small_packs().open(&root).unwrap();
    let project = project(&store, "p");
    let id = import(&place, &project, 1);
    let image = find(&project, id);
    project.remove(&id.into(), true).unwrap();
    // Another handle of the store, as another process would have.
    let other = Store::open(&root).unwrap();
    let report = collect(&other);
    assert!(report.waiting_packs > 0 && report.freed_packs == 0, "{report:?}");
    for file in 0..8 {
        assert!(read(&image, &format!("d/{file}")).unwrap() == content(1, file));
    }
    let copy = place.path("copy");
    image.check_out(&copy, CheckoutOptions::default()).unwrap();
    assert!(fs::read(copy.join("d/3")).unwrap() == content(1, 3));
    // What is made of it is whole.
    let edited = image.edit().write("new", b"new".to_vec()).commit(&CommitOptions::default()).unwrap().image;
    drop(image);
    let report = collect(&other);
    assert_eq!((report.waiting_packs, pack_bytes(&root) > 0), (0, true), "{report:?}");
    check(&project, edited, 1);
    assert!(store.verify().unwrap().is_sound());
    project.remove(&edited.into(), true).unwrap();
    assert_eq!((collect(&other).waiting_packs, pack_bytes(&root)), (0, 0));
}

#[test]
fn a_checkout_keeps_nothing_and_says_so() {
    let place = Place::new();
    let store = small_packs().open(place.path("store")).unwrap();
    let project = project(&store, "p");
    let (one, other) = (import(&place, &project, 1), import(&place, &project, 2));
    let [copy, copy_of_other] = ["copy", "copy of other"].map(|name| place.path(name));
    find(&project, one).check_out(&copy, CheckoutOptions::default()).unwrap();
    find(&project, other).check_out(&copy_of_other, CheckoutOptions::default()).unwrap();
    fs::write(copy.join("new"), "new").unwrap();
    project.remove(&one.into(), true).unwrap();
    project.remove(&other.into(), true).unwrap();
    // Not collected yet: nothing is missing.
    let committed = project.commit(&copy, &CommitOptions::default()).unwrap().image;
    collect(&store);
    check(&project, committed, 1);
    let error = project.commit(&copy_of_other, &CommitOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("was removed; import the directory"), "{error}");
    let again = project.import_directory(&copy_of_other, &ImportOptions::default()).unwrap().image;
    check(&project, again, 2);
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn other_projects_and_the_public_scope_keep_their_images() {
    let place = Place::new();
    let store = small_packs().open(place.path("store")).unwrap();
    let [public, one, other] = ["public", "one", "other"].map(|name| project(&store, name));
    let shared = import(&place, &public, 1);
    let own = import(&place, &one, 2);
    import(&place, &other, 3);
    one.tag(&shared.into(), &["kept".parse().unwrap()]).unwrap();
    public.remove(&shared.into(), true).unwrap();
    store.remove_project(&"other".parse().unwrap(), true).unwrap();
    let report = collect(&store);
    assert!(report.images == 2 && report.freed_packs > 0, "{report:?}");
    check(&one, shared, 1);
    check(&one, own, 2);
    one.untag(&"kept".parse().unwrap(), None).unwrap();
    collect(&store);
    assert!(one.find(&shared.into()).unwrap_err().is_not_found());
    check(&one, own, 2);
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn a_collection_that_is_cancelled_leaves_a_sound_store() {
    let place = Place::new();
    let root = place.path("store");
    let store = small_packs().open(&root).unwrap();
    let project = project(&store, "p");
    let images: Vec<_> = (0..9).map(|number| import(&place, &project, number)).collect();
    images.iter().step_by(2).for_each(|image| drop(project.remove(&(*image).into(), true).unwrap()));
    for steps in 0.. {
        let (left, is_over) = (AtomicU64::new(steps), std::sync::Arc::new(AtomicBool::new(false)));
        let watch = {
            let is_over = is_over.clone();
            GcWatch::new(move |progress| {
                assert!(progress.done <= progress.total, "{progress:?}");
                let next =
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
                is_over.store(next.is_err(), Ordering::Relaxed);
                if next.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        };
        let collected =
            store.collect_garbage(&GcOptions { watch: Some(watch), full: true, ..GcOptions::default() });
        match collected {
            Ok(_) => {
                assert!(steps > 5 && !is_over.load(Ordering::Relaxed));
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
        }
        assert!(store.verify().unwrap().is_sound(), "after {steps} steps");
    }
    for number in [1, 3, 5, 7] {
        check(&project, images[number], number as u64);
    }
    collect_fully(&store);
    assert_eq!(collect_fully(&store).freed_packs, 0);
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn one_collection_at_a_time() {
    let place = Place::new();
    let store = small_packs().open(place.path("store")).unwrap();
    let project = project(&store, "p");
    import(&place, &project, 1);
    let inner = store.clone();
    let watch = GcWatch::new(move |_| {
        let error = inner.collect_garbage(&GcOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        // Looking is allowed.
        inner.collect_garbage(&GcOptions { dry_run: true, ..GcOptions::default() }).unwrap();
        ControlFlow::Continue(())
    });
    store.collect_garbage(&GcOptions { watch: Some(watch), ..GcOptions::default() }).unwrap();
    collect(&store);
}

#[test]
fn damage_stops_it_and_nothing_is_freed() {
    let place = Place::new();
    let root = place.path("store");
    let store = small_packs().open(&root).unwrap();
    let project = project(&store, "p");
    let (removed, kept) = (import(&place, &project, 1), import(&place, &project, 2));
    project.remove(&removed.into(), true).unwrap();
    drop(store);
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
        let watch = GcWatch::new(move |_| {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            let Some(handle) = handles.get(usize::try_from(turn).unwrap()) else {
                return ControlFlow::Continue(());
            };
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
            ControlFlow::Continue(())
        });
        let options = GcOptions { watch: Some(watch), full: true, ..GcOptions::default() };
        store.collect_garbage(&options).unwrap();
        let made: Vec<_> = made.lock().unwrap().drain(..).collect();
        assert!(made.len() >= 5, "{made:?}");
        drop(options);
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
        find(&project, first).export(&mut tar).unwrap();
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
    find(&from, image).export(&mut tar).unwrap();
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

/// A workspace keeps its image's content; a directory that workspaces lie over keeps nothing.
#[test]
fn a_workspace_keeps_what_it_was_made_from() {
    for full_copy in [false, true] {
        let place = Place::new();
        let store = small_packs().open(place.path("store")).unwrap();
        let project = project(&store, "p");
        let (base, other) = (import(&place, &project, 1), import(&place, &project, 2));
        let options = || WorkspaceOptions { full_copy, ..WorkspaceOptions::default() };
        let workspace = find(&project, base).create_workspace(&options()).unwrap();
        let next = find(&project, base).edit().remove("d/0").commit(&CommitOptions::default()).unwrap().image;
        project.remove(&base.into(), true).unwrap();
        project.remove(&other.into(), true).unwrap();
        collect_fully(&store);
        fs::write(workspace.path().unwrap().join("new"), "new").unwrap();
        let committed = workspace.commit(&CommitOptions::default()).unwrap().image;
        project.remove(&committed.into(), true).unwrap();
        project.remove(&next.into(), true).unwrap();
        collect_fully(&store);
        fs::write(workspace.path().unwrap().join("newer"), "newer").unwrap();
        let committed = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
        check(&project, committed, 1);
        assert_eq!(read(&find(&project, committed), "newer").unwrap(), b"newer");
        assert!(store.verify().unwrap().is_sound());
        // What lies below the next was of an image that is gone.
        let last =
            find(&project, committed).edit().remove("d").commit(&CommitOptions::default()).unwrap().image;
        project.remove(&committed.into(), true).unwrap();
        collect_fully(&store);
        let workspace = find(&project, last).create_workspace(&options()).unwrap();
        let shown = workspace.path().unwrap();
        assert!(!shown.join("d").exists());
        assert_eq!(fs::read(shown.join("shared")).unwrap(), noise(30_000, 5));
        workspace.discard().unwrap();
    }
}

/// Of contents only the index says where they are.
#[test]
fn a_damaged_index_stops_it() {
    let place = Place::new();
    let root = place.path("store");
    let store = small_packs().open(&root).unwrap();
    let project = project(&store, "p");
    let (removed, kept) = (import(&place, &project, 1), import(&place, &project, 2));
    project.remove(&removed.into(), true).unwrap();
    store.wait_for_upkeep();
    drop((project, store));
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
fn an_older_catalog_that_was_put_back_stops_it() {
    let place = Place::new();
    let root = place.path("store");
    let store = small_packs().open(&root).unwrap();
    let project = project(&store, "p");
    import(&place, &project, 1);
    store.wait_for_upkeep();
    fs::copy(root.join("catalog.redb"), place.path("older")).unwrap();
    let newer = import(&place, &project, 2);
    store.wait_for_upkeep();
    store.dump_catalog().unwrap();
    drop((project, store));
    fs::copy(place.path("older"), root.join("catalog.redb")).unwrap();
    let before = pack_bytes(&root);
    let error = Store::open(&root).unwrap().collect_garbage(&GcOptions::default()).unwrap_err();
    assert!(error.is_corrupt() && error.to_string().contains("an older copy was put back"), "{error}");
    assert_eq!(pack_bytes(&root), before);
    Store::repair(&root, RepairOptions::default()).unwrap();
    let store = Store::open(&root).unwrap();
    check(&store.project(&"p".parse().unwrap()).unwrap(), newer, 2);
    collect(&store);
    check(&store.project(&"p".parse().unwrap()).unwrap(), newer, 2);
}

/// A workspace's directory is a checkout too, and can be committed as one.
#[test]
fn a_workspace_whose_directory_was_committed_apart_from_it_is_not_based_on_what_is_gone() {
    let place = Place::new();
    let store = small_packs().open(place.path("store")).unwrap();
    let project = project(&store, "p");
    let base = import(&place, &project, 1);
    let options = WorkspaceOptions { full_copy: true, ..WorkspaceOptions::default() };
    let workspace = find(&project, base).create_workspace(&options).unwrap();
    let path = workspace.path().unwrap();
    fs::write(path.join("d/0"), "new").unwrap();
    let apart = project.commit(&path, &CommitOptions::default()).unwrap().image;
    find(&project, apart).edit().remove("d/0").commit(&CommitOptions::default()).unwrap();
    project.remove(&apart.into(), true).unwrap();
    collect_fully(&store);
    fs::write(path.join("newer"), "newer").unwrap();
    match workspace.commit(&CommitOptions::default()) {
        Ok(report) => assert_eq!(read(&find(&project, report.image), "d/0").unwrap(), b"new"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
    }
    collect_fully(&store);
    assert!(store.verify().unwrap().is_sound());
}
