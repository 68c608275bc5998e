//! Repair: what is sound stays, what is lost is said, and the store is sound afterwards.

mod again;
mod collected;
mod workspaces;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use layerstone::id::ImageId;
use layerstone::{
    CatalogState, CheckoutOptions, CommitOptions, ErrorKind, ListOptions, RepairOptions, RepairReport, Store,
    StoreOptions, WorkspaceOptions,
};

use crate::given::{Place, parse, project, read, reference};
use crate::roundtrip::noise;

const ALL: RepairOptions = RepairOptions { include_removed: true };
const PRESENT: RepairOptions = RepairOptions { include_removed: false };

/// A store with small packs, and in it tagged images of one file each, the public one adopted by the project too.
struct Given {
    place: Place,
    root: PathBuf,
    images: Vec<ImageId>,
}

fn options() -> StoreOptions {
    StoreOptions::default().pack_bytes(60_000).row_objects(10).held_bytes(30_000)
}

fn content(number: usize) -> String {
    format!("{number} ").repeat(100) + &String::from_utf8_lossy(&noise(20_000, number as u64))
}

impl Given {
    fn new() -> Self {
        let place = Place::new();
        let root = place.path("store");
        let store = options().open(&root).unwrap();
        let own = project(&store, "p");
        let mut images: Vec<_> =
            (0..6).map(|number| place.import(&own, &content(number), &[&format!("t{number}")])).collect();
        let public = project(&store, "public");
        images.push(place.import(&public, &content(6), &["t6"]));
        own.tag(&reference("t6"), &[parse("own6")]).unwrap();
        let edited = own.find(&reference("t0")).unwrap().edit().write("/more", "more");
        let options = CommitOptions { tags: vec![parse("edited")], ..CommitOptions::default() };
        images.push(edited.commit(&options).unwrap().image);
        store.wait_for_upkeep();
        store.dump_catalog().unwrap();
        Self { place, root, images }
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            fs::read_dir(self.root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Repairs the store, and fails unless it is sound then, and sound for a second repair.
    fn repair(&self, options: RepairOptions) -> RepairReport {
        let report = Store::repair(&self.root, options).unwrap();
        let verified = Store::open(&self.root).unwrap().verify().unwrap();
        assert!(verified.is_sound(), "{verified:?} after {report:?}");
        report
    }

    /// Which of the tagged images read back as they were; fails if one reads back as another.
    fn sound(&self) -> Vec<usize> {
        let store = Store::open(&self.root).unwrap();
        let own = store.project(&parse("p")).unwrap();
        let is_there = |number: &usize| match own.find(&reference(&format!("t{number}"))) {
            Ok(image) => {
                assert_eq!(image.id(), self.images[*number]);
                assert_eq!(read(&image, "content").unwrap(), content(*number).as_bytes());
                true
            }
            Err(error) => {
                assert!(error.is_not_found(), "{error}");
                false
            }
        };
        (0..7).filter(is_there).collect()
    }
}

const EVERY: [usize; 7] = [0, 1, 2, 3, 4, 5, 6];

#[test]
fn a_sound_store_stays_what_it_is() {
    let given = Given::new();
    let packs: Vec<_> = given.files("packs").iter().map(|pack| fs::read(pack).unwrap()).collect();
    let report = given.repair(PRESENT);
    assert_eq!((report.catalog, report.fault_count, report.has_losses()), (CatalogState::Whole, 0, false));
    assert!(report.restored.is_empty() && report.removed.is_empty() && report.damaged_images.is_empty());
    assert_eq!(given.sound(), EVERY);
    let after: Vec<_> = given.files("packs").iter().map(|pack| fs::read(pack).unwrap()).collect();
    assert!(packs == after, "packs are left alone");
    // It goes on as a store: an open pack is appended to, and the index is merged.
    let store = options().open(&given.root).unwrap();
    let own = store.project(&parse("p")).unwrap();
    for number in 10..20 {
        given.place.import(&own, &content(number), &[]);
    }
    store.wait_for_upkeep();
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn a_damaged_list_of_losses_is_told_once() {
    let given = Given::new();
    let list = given.root.join("repair.untold");
    fs::write(&list, b"LSLOST").unwrap();
    let report = given.repair(PRESENT);
    assert_eq!((report.fault_count, report.has_losses()), (1, false), "{report:?}");
    assert!(!list.exists());
    assert_eq!(given.repair(PRESENT).fault_count, 0);
    assert_eq!(given.sound(), EVERY);
}

#[test]
fn a_lost_index_is_made_anew() {
    let given = Given::new();
    let segments = given.files("segments");
    assert!(segments.len() > 1);
    for (turn, segment) in segments.iter().enumerate() {
        match turn % 3 {
            0 => fs::remove_file(segment).unwrap(),
            1 => fs::write(segment, b"").unwrap(),
            _ => fs::write(segment, noise(5_000, 1)).unwrap(),
        }
    }
    let report = given.repair(PRESENT);
    assert_eq!(report.catalog, CatalogState::Whole);
    assert!(!report.has_losses(), "{report:?}");
    assert_eq!(given.sound(), EVERY);
}

#[test]
fn a_lost_catalog_comes_back_with_names_tags_and_removals() {
    for has_format in [true, false] {
        let given = Given::new();
        {
            let store = options().open(&given.root).unwrap();
            let own = store.project(&parse("p")).unwrap();
            own.remove(&reference("t3"), false).unwrap();
            store.dump_catalog().unwrap();
            // Newer than the dump: it comes back, without its tag.
            given.place.import(&own, "newer than the dump", &["newer"]);
        }
        fs::remove_file(given.root.join("catalog.redb")).unwrap();
        if !has_format {
            fs::remove_file(given.root.join("format")).unwrap();
        }
        assert!(Store::open(&given.root).is_err() || Store::open(&given.root).unwrap().verify().is_err());
        let report = given.repair(PRESENT);
        assert_eq!(report.catalog, CatalogState::Missing);
        assert!(report.dump_written.is_some() && report.may_lack_tags() && report.has_losses(), "{report:?}");
        assert_eq!((report.restored.len(), report.removed.len()), (1, 1), "{report:?}");
        assert_eq!((report.removed[0].image, report.removed[0].project.as_str()), (given.images[3], "p"));
        assert_eq!(given.sound(), [0, 1, 2, 4, 5, 6]);
        let own = Store::open(&given.root).unwrap().project(&parse("p")).unwrap();
        let newer = own.find(&report.restored[0].image.into()).unwrap();
        assert_eq!(read(&newer, "content").unwrap(), b"newer than the dump");
        assert_eq!(own.parent(given.images[7]).unwrap(), Some(given.images[0]));
        assert_eq!(own.find(&reference("own6")).unwrap().id(), given.images[6]);
        let newest = newer.id();
        drop(newer);
        let report = given.repair(ALL);
        assert_eq!((report.restored.len(), report.has_losses()), (1, false), "its tags went with it");
        assert!(own.find(&given.images[3].into()).is_ok());
        // The same import finds what was restored.
        assert_eq!(given.place.import(&own, "newer than the dump", &[]), newest);
    }
}

#[test]
fn without_catalog_and_dump_all_images_come_back_in_projects_of_their_number() {
    let given = Given::new();
    fs::write(given.root.join("catalog.redb"), b"").unwrap();
    fs::write(given.root.join("catalog.dump"), b"LSDUMP").unwrap();
    let report = given.repair(PRESENT);
    assert_eq!(report.catalog, CatalogState::Damaged);
    assert_eq!((report.restored.len(), report.dump_written), (8, None));
    let store = Store::open(&given.root).unwrap();
    let names: Vec<_> = store.projects().unwrap().into_iter().map(|info| info.name.to_string()).collect();
    assert_eq!(names, ["recovered-1"]);
    let own = store.project(&parse("recovered-1")).unwrap();
    for number in 0..6 {
        let image = own.find(&given.images[number].into()).unwrap();
        assert_eq!(read(&image, "content").unwrap(), content(number).as_bytes());
    }
    assert!(given.files("quarantine").iter().any(|file| file.ends_with("catalog.redb-1")));
    // A new project gets a number of its own.
    let created = project(&store, "new");
    assert!(
        created.images(&ListOptions { tagged_only: false, ..Default::default() }).unwrap().images.len() == 1
    );
}

/// Where these bytes are in packs.
fn find(files: &[PathBuf], content: &[u8]) -> (PathBuf, usize) {
    let found = files.iter().find_map(|pack| {
        let bytes = fs::read(pack).unwrap();
        bytes.windows(content.len()).position(|window| window == content).map(|at| (pack.clone(), at))
    });
    found.unwrap()
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_damaged_pack_costs_the_images_that_need_it_and_no_others() {
    let place = Place::new();
    let root = place.path("store");
    let own = project(&Store::open(&root).unwrap(), "p");
    let files: Vec<_> = (0..4).map(|number| (format!("f{number}"), noise(30_000, number))).collect();
    let given: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let whole = place.directory("whole", &given);
    let first = own.import_directory(&whole, &layerstone::ImportOptions::default()).unwrap().image;
    own.tag(&first.into(), &[parse("first"), parse("again")]).unwrap();
    let second =
        own.find(&first.into()).unwrap().edit().remove("/f2").commit(&CommitOptions::default()).unwrap();
    let given = Given { place, root, images: Vec::new() };
    let (pack, at) = find(&given.files("packs"), &files[2].1[..1_000]);
    flip(&pack, at);
    let before = fs::read(&pack).unwrap();

    let report = given.repair(PRESENT);
    assert_eq!(report.catalog, CatalogState::Whole);
    let [lost] = &report.damaged_images[..] else { panic!("{report:?}") };
    assert_eq!((lost.image, lost.lost_paths, lost.lost[0].path.to_string()), (first, 1, "/f2".to_owned()));
    assert_eq!(lost.tags, [parse("again"), parse("first")]);
    let [left] = &report.salvaged[..] else { panic!("{report:?}") };
    assert_eq!((left.of, left.entries, report.images), (first, 4, 2));
    let rest = own.find(&left.image.into()).unwrap();
    assert_eq!((rest.info().parent, rest.info().tags.len()), (Some(first), 0));
    assert_eq!(rest.history().unwrap().len(), 2);
    assert_eq!(rest.diff(&own.find(&second.image.into()).unwrap()).unwrap().count(), 0);
    // The frame is of all four files, and only one of them is lost.
    let image = own.find(&second.image.into()).unwrap();
    for number in [0, 1, 3] {
        assert_eq!(read(&image, &files[number].0).unwrap(), files[number].1);
    }
    assert!(own.find(&first.into()).unwrap_err().is_not_found());
    assert!(own.find(&reference("first")).unwrap_err().is_not_found());
    let aside = given.files("quarantine").into_iter().find(|file| fs::read(file).unwrap() == before);
    assert!(aside.is_some(), "the damaged pack is kept aside");
    // What was lost can be imported again.
    let again = own.import_directory(&whole, &layerstone::ImportOptions::default()).unwrap();
    assert!(again.is_new && again.image != first);
    assert!(Store::open(&given.root).unwrap().verify().unwrap().is_sound());
    let in_use = Store::repair(&given.root, PRESENT).unwrap_err();
    assert_eq!(in_use.kind(), ErrorKind::InUse, "what was found in it may go: {in_use}");
    drop((rest, image));
    assert_eq!(given.repair(PRESENT).removed.len(), 1, "the lost image is no more than a record");
    assert!(given.repair(ALL).damaged_images.is_empty());
}

#[test]
fn what_is_left_of_an_image_is_an_image() {
    let place = Place::new();
    let root = place.path("store");
    let own = project(&Store::open(&root).unwrap(), "p");
    let source = place.path("source");
    fs::create_dir_all(source.join("d/e")).unwrap();
    // Enough paths for many leaves, with links within and across them.
    for number in 0..400_u64 {
        fs::write(source.join(format!("d/e/{number:03}")), noise(100, number)).unwrap();
    }
    for (from, to) in [("d/e/000", "d/a"), ("d/e/000", "z"), ("d/e/399", "d/e/000-"), ("d/e/200", "d/e/201-")]
    {
        fs::hard_link(source.join(from), source.join(to)).unwrap();
    }
    let image = own.import_directory(&source, &layerstone::ImportOptions::default()).unwrap().image;
    let given = Given { place, root, images: Vec::new() };
    let [pack] = &given.files("packs")[..] else { panic!("one pack") };
    let sound = fs::read(pack).unwrap();
    let heads = sound.windows(4).enumerate().filter(|(_, word)| word == b"LSFR");
    let frames: Vec<_> = heads.map(|(at, _)| at).collect();
    let store = fs::read(given.root.join("catalog.redb")).unwrap();
    let mut partly = 0;
    for (frame, bytes) in frames.iter().flat_map(|at| [60, 200, 900].map(|within| (*at, at + within))) {
        if bytes >= sound.len() {
            continue;
        }
        fs::write(pack, &sound).unwrap();
        fs::write(given.root.join("catalog.redb"), &store).unwrap();
        let segments = given.root.join("segments");
        let _ = fs::remove_dir_all(&segments);
        fs::create_dir(&segments).unwrap();
        flip(pack, bytes);
        let report = given.repair(PRESENT);
        for left in &report.salvaged {
            assert_eq!(left.of, image);
            let copy = given.place.path("copy");
            let _ = fs::remove_dir_all(&copy);
            let left = own.find(&left.image.into()).unwrap();
            left.check_out(&copy, CheckoutOptions::default()).unwrap();
            let files = walk(&copy);
            for file in &files {
                let name = file.strip_prefix(&copy).unwrap();
                assert!(fs::read(file).unwrap() == fs::read(source.join(name)).unwrap(), "{frame}: {name:?}");
            }
            let again = own.import_directory(&copy, &layerstone::ImportOptions::default()).unwrap();
            assert_eq!(own.find(&again.image.into()).unwrap().info().entries, left.info().entries);
            partly += usize::from(!files.is_empty() && files.len() < 404);
        }
        fs::remove_dir_all(given.root.join("quarantine")).unwrap();
        given
            .files("packs")
            .iter()
            .filter(|file| *file != pack)
            .for_each(|file| fs::remove_file(file).unwrap());
    }
    assert!(partly > 0, "some paths of an image were lost and others not");
}

#[test]
fn a_damaged_checkout_and_a_workspace_without_its_image_are_let_go() {
    let given = Given::new();
    let own = Store::open(&given.root).unwrap().project(&parse("p")).unwrap();
    let copy = given.place.path("copy");
    own.find(&reference("t1")).unwrap().check_out(&copy, CheckoutOptions::default()).unwrap();
    let options = WorkspaceOptions { full_copy: true, name: Some(parse("w")), ..WorkspaceOptions::default() };
    let noisy = own.find(&reference("t2")).unwrap().edit().write("/noise", noise(30_000, 77));
    let noisy = noisy.commit(&CommitOptions::default()).unwrap().image;
    let work = own.find(&noisy.into()).unwrap().create_workspace(&options).unwrap();
    fs::write(work.path().unwrap().join("precious"), b"written by hand").unwrap();
    for state in given.files("directories") {
        fs::write(state, b"rubbish").unwrap();
    }
    let (pack, at) = find(&given.files("packs"), &noise(30_000, 77)[..1_000]);
    flip(&pack, at);
    // A repair was killed behind the move of the workspace.
    let moved = "quarantine/workspaces-0000000001-1";
    fs::create_dir(given.root.join("quarantine")).unwrap();
    fs::rename(work.path().unwrap().parent().unwrap(), given.root.join(moved)).unwrap();
    let report = given.repair(PRESENT);
    assert!(report.quarantined.iter().any(|name| name == moved), "{report:?}");
    assert!(report.lost_checkouts.contains(&copy), "{report:?}");
    assert_eq!((report.damaged_images.len(), report.damaged_images[0].image), (1, noisy));
    assert!(report.has_losses(), "{report:?}");
    assert_eq!(report.lost_workspaces, [format!("w of p, whose files are in {moved}")], "{report:?}");
    assert!(own.workspaces().unwrap().is_empty());
    let kept = given.files("quarantine").into_iter().any(|folder| {
        let found = walk(&folder);
        found.iter().any(|file| fs::read(file).unwrap() == b"written by hand")
    });
    assert!(kept, "what was written is set aside");
}

fn walk(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    fs::read_dir(path).unwrap().flat_map(|entry| walk(&entry.unwrap().path())).collect()
}

#[test]
fn an_older_catalog_is_noticed_by_its_dump() {
    let given = Given::new();
    let catalog = given.root.join("catalog.redb");
    let older = fs::read(&catalog).unwrap();
    let own = Store::open(&given.root).unwrap().project(&parse("p")).unwrap();
    let newer = given.place.import(&own, "made after the copy", &["newer"]);
    drop(own);
    Store::open(&given.root).unwrap().dump_catalog().unwrap();
    fs::write(&catalog, older).unwrap();
    let report = Store::open(&given.root).unwrap().verify().unwrap();
    assert!(report.faults.iter().any(|fault| fault.to_string().contains("an older copy was put back")));
    let report = given.repair(PRESENT);
    assert_eq!(report.catalog, CatalogState::Damaged);
    let own = Store::open(&given.root).unwrap().project(&parse("p")).unwrap();
    assert_eq!(own.find(&reference("newer")).unwrap().id(), newer);
    assert_eq!(given.sound(), EVERY);
}

#[test]
fn what_is_no_store_or_in_use_is_left_alone() {
    let place = Place::new();
    let repair =
        |path: &Path| StoreOptions::default().lock_timeout(std::time::Duration::ZERO).repair(path, PRESENT);
    assert!(repair(&place.path("nothing")).unwrap_err().is_not_found());
    let home = place.directory("home", &[("letter.txt", b"dear")]);
    assert_eq!(repair(&home).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    let root = place.path("store");
    let held = StoreOptions::default().exclusive(true).open(&root).unwrap();
    assert_eq!(repair(&root).unwrap_err().kind(), ErrorKind::Locked);
    drop(held);
    fs::write(root.join("format"), "layerstone store format 999\n").unwrap();
    assert_eq!(repair(&root).unwrap_err().kind(), ErrorKind::Unsupported);
}

fn copy_tree(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
}

fn collect(given: &Given) {
    let store = options().open(&given.root).unwrap();
    store.collect_garbage(&layerstone::GcOptions { full: true, ..Default::default() }).unwrap();
    assert!(store.verify().unwrap().is_sound());
}

#[test]
fn a_repair_that_is_killed_can_be_run_again() {
    let given = Given::new();
    let segment = given.files("segments").pop().unwrap();
    fs::remove_file(segment).unwrap();
    fs::remove_file(given.root.join("catalog.redb")).unwrap();
    let packs = given.files("packs");
    flip(&packs[0], 3_000);
    let damaged = given.place.path("damaged");
    copy_tree(&given.root, &damaged);
    let run = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_layerstone"));
        command.env("LAYERSTONE_STORE", &given.root).args(["repair", "--json"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let quarantined = || {
        let bytes = given.files("quarantine").into_iter().map(|file| fs::read(file).unwrap());
        bytes.collect::<BTreeSet<_>>()
    };
    let begun = std::time::Instant::now();
    run().wait().unwrap();
    let whole = begun.elapsed();
    let (sound, aside) = (given.sound(), quarantined());
    assert!(!sound.is_empty() && sound.len() < EVERY.len(), "{sound:?}");
    let turns = 40;
    for turn in 0..turns {
        copy_tree(&damaged, &given.root);
        let mut child = run();
        std::thread::sleep(whole * turn / turns);
        child.kill().unwrap();
        child.wait().unwrap();
        given.repair(PRESENT);
        // A collection takes what nothing names, and not what was set aside.
        collect(&given);
        assert_eq!(given.sound(), sound, "killed after {:?}", whole * turn / turns);
        assert!(quarantined() == aside, "killed after {:?}", whole * turn / turns);
        let unfinished =
            walk(&given.root).into_iter().find(|file| file.extension().is_some_and(|ending| ending == "new"));
        assert_eq!(unfinished, None);
    }
}
