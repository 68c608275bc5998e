//! Collection: all that is needed stays, all else goes, whatever happens beside it.

mod damage;
mod races;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use layerstone::id::ImageId;
use layerstone::{
    CheckoutOptions, CommitOptions, ErrorKind, GcOptions, GcReport, Image, ImportOptions, Project, Store,
    StoreOptions, Task, WorkspaceOptions,
};

use crate::given::{Place, cancelled_after, project, read};
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
        assert_eq!(store.verify().unwrap().objects, Some(0));
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
fn what_someone_reads_of_a_store_in_memory_stays_too() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let project = project(&store, "p");
    let id = import(&place, &project, 1);
    let image = find(&project, id);
    project.remove(&id.into(), true).unwrap();
    let report = collect(&store);
    assert!(report.waiting_packs > 0 && report.freed_packs == 0, "{report:?}");
    for file in 0..8 {
        assert!(read(&image, &format!("d/{file}")).unwrap() == content(1, file));
    }
    drop(image);
    let report = collect(&store);
    assert!(report.waiting_packs == 0 && report.freed_packs > 0, "{report:?}");
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
        let task = cancelled_after(steps);
        let collected =
            store.with_task(&task).collect_garbage(&GcOptions { full: true, ..GcOptions::default() });
        match collected {
            Ok(_) => {
                assert!(steps > 5 && !task.is_cancelled());
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
    let task = Task::watched(move |_| {
        let error = inner.collect_garbage(&GcOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        // Looking is allowed.
        inner.collect_garbage(&GcOptions { dry_run: true, ..GcOptions::default() }).unwrap();
    });
    store.with_task(&task).collect_garbage(&GcOptions::default()).unwrap();
    collect(&store);
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
