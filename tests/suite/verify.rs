//! Verification: a sound store is called sound, and no damage is.

use std::fs;
use std::path::{Path, PathBuf};

use layerstone::object::ObjectKind;
use layerstone::testing::DiskLog;
use layerstone::{
    CheckoutOptions, CommitOptions, ErrorKind, ImportOptions, Project, Store, StoreOptions, Subject,
    VerifyReport,
};

use crate::given::{Place, project};
use crate::roundtrip::noise;

/// A store with two packs and two segments at least, of two projects' images and a commit; everything in it is needed.
fn store(place: &Place, options: StoreOptions) -> (PathBuf, Project) {
    let root = place.path("store");
    let store = options.open(&root).unwrap();
    let project = project(&store, "p");
    let source = place.directory("source", &[("text", "text ".repeat(9_000).as_bytes())]);
    for number in 0..60 {
        fs::write(source.join(format!("{number:02}")), noise(900 + 40 * number, number as u64)).unwrap();
    }
    fs::write(source.join("large"), noise(900_000, 99)).unwrap();
    let first = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    store.wait_for_upkeep();
    let copy = place.path("copy");
    project.find(&first.into()).unwrap().check_out(&copy, CheckoutOptions::default()).unwrap();
    fs::write(copy.join("30"), noise(5_000, 100)).unwrap();
    project.commit(&copy, &CommitOptions::default()).unwrap();
    store.wait_for_upkeep();
    let public = store.project(&"public".parse().unwrap()).unwrap();
    public.import_directory(&copy, &ImportOptions::default()).unwrap();
    store.wait_for_upkeep();
    (root, project)
}

fn small_packs() -> StoreOptions {
    StoreOptions::default().pack_bytes(300_000).row_objects(50).held_bytes(100_000)
}

fn files(root: &Path, folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn verify(root: &Path) -> VerifyReport {
    Store::open(root).unwrap().verify().unwrap()
}

#[test]
fn a_sound_store_is_sound_and_all_of_it_is_read() {
    let place = Place::new();
    let (root, _) = store(&place, small_packs());
    let log = DiskLog::default();
    let recorded = Store::open_recorded(&root, StoreOptions::default(), &log).unwrap();
    let report = recorded.verify().unwrap();
    assert!(report.is_sound() && report.faults.is_empty(), "{report:?}");
    assert_eq!(report.images, 3);
    assert_eq!(log.take(), [], "nothing is written");
    let packs = files(&root, "packs");
    assert!(packs.len() > 1 && !files(&root, "segments").is_empty(), "{packs:?}");
    assert_eq!(report.packs, packs.len() as u64);
    let bytes: u64 = packs.iter().map(|pack| fs::metadata(pack).unwrap().len() - 24).sum();
    assert_eq!(report.stored_bytes, Some(bytes), "every byte behind the packs' heads");
}

#[test]
fn every_flipped_bit_of_packs_and_segments_is_found() {
    let place = Place::new();
    let (root, _) = store(&place, small_packs());
    let all = verify(&root).objects.unwrap();
    for folder in ["packs", "segments"] {
        for file in files(&root, folder) {
            let sound = fs::read(&file).unwrap();
            for position in (0..sound.len()).step_by(sound.len() / 23) {
                let mut damaged = sound.clone();
                damaged[position] ^= 1 << (position % 8);
                fs::write(&file, &damaged).unwrap();
                let report = verify(&root);
                assert!(!report.is_sound(), "byte {position} of {}", file.display());
                assert!(report.objects.unwrap() * 2 > all, "the rest is read: {report:?}");
            }
            fs::write(&file, &sound).unwrap();
        }
    }
    assert!(verify(&root).is_sound(), "all damage was undone");
}

/// The pack that has these bytes as they are, its own bytes, and where they are in it.
fn find_in_packs(root: &Path, content: &[u8]) -> (PathBuf, Vec<u8>, usize) {
    let found = files(root, "packs").into_iter().find_map(|pack| {
        let bytes = fs::read(&pack).unwrap();
        let at = bytes.windows(content.len()).position(|window| window == content)?;
        Some((pack, bytes, at))
    });
    found.unwrap()
}

#[test]
fn a_damaged_object_is_named_and_so_are_the_paths_that_need_it() {
    let place = Place::new();
    let (root, _) = store(&place, small_packs());
    let content = noise(900 + 40 * 7, 7);
    let id = ObjectKind::Chunk.id_of(&content);
    // Noise is stored as it is, among other files in one frame.
    let (pack, mut bytes, at) = find_in_packs(&root, &content);
    bytes[at + 500] ^= 1;
    fs::write(pack, bytes).unwrap();
    let report = verify(&root);
    let [fault] = &report.faults[..] else { panic!("{report:?}") };
    assert_eq!(fault.subject(), &Subject::Object(id));
    assert!(fault.to_string().contains("are not what was written"), "{fault}");
    assert_eq!((report.fault_count, report.damaged_image_count), (1, 3), "{report:?}");
    let scopes: Vec<_> = report.damaged_images.iter().map(|image| image.project.as_str()).collect();
    assert_eq!(scopes, ["public", "p", "p"]);
    for image in &report.damaged_images {
        let [lost] = &image.lost[..] else { panic!("{image:?}") };
        assert_eq!((lost.path.to_string().as_str(), lost.paths, image.lost_paths), ("/07", 1, 1));
        assert_eq!(lost.cause.subject(), &Subject::Object(id));
        assert!(image.lost_history.is_none());
    }
    assert!(Store::open(&root).unwrap().verify_quick().unwrap().is_sound(), "contents are not read");
}

#[test]
fn behind_a_damaged_frame_the_next_is_found_without_the_index() {
    let place = Place::new();
    let (root, _) = store(&place, small_packs());
    let all = verify(&root).objects.unwrap();
    let (pack, mut bytes, at) = find_in_packs(&root, &noise(900 + 40 * 7, 7));
    let magic = bytes[..at].windows(4).rposition(|window| window == b"LSFR").unwrap();
    let lost = u64::from(u16::from_le_bytes(bytes[magic + 6..magic + 8].try_into().unwrap()));
    // The payload's length: whoever believes it goes astray.
    bytes[magic + 12] ^= 0x40;
    fs::write(&pack, bytes).unwrap();
    fs::remove_file(files(&root, "segments").pop().unwrap()).unwrap();
    let report = verify(&root);
    assert_eq!(report.objects, Some(all - lost));
    let texts: Vec<_> = report.faults.iter().map(ToString::to_string).collect();
    let has = |text: &str| texts.iter().any(|fault| fault.contains(text));
    assert!(has(&format!("bytes {magic} to ")) && has("its file is missing"), "{texts:?}");
}

#[test]
fn what_only_a_past_root_leads_to_may_be_gone() {
    let place = Place::new();
    let root = place.path("store");
    let project = project(&Store::open(&root).unwrap(), "p");
    let source = place.directory("source", &[("old", &noise(70_000, 1))]);
    let first = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let image = project.find(&first.into()).unwrap();
    image.edit().remove("/old").write("/new", b"new".to_vec()).commit(&CommitOptions::default()).unwrap();
    project.remove(&first.into(), true).unwrap();
    let (pack, mut bytes, at) = find_in_packs(&root, &noise(70_000, 1)[..10_000]);
    bytes[at] ^= 1;
    fs::write(pack, bytes).unwrap();
    let report = verify(&root);
    // The chunk is damaged, and no image loses anything.
    assert_eq!((report.fault_count, report.damaged_image_count), (1, 0), "{report:?}");
}

#[test]
fn a_quick_look_finds_what_is_missing() {
    let place = Place::new();
    let (root, _) = store(&place, small_packs());
    let quick = || Store::open(&root).unwrap().verify_quick().unwrap();
    let sound = quick();
    assert!(sound.is_sound() && sound.images == 3 && sound.objects.is_none(), "{sound:?}");
    for folder in ["packs", "segments", "directories"] {
        for file in files(&root, folder) {
            let bytes = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            let missing = quick();
            fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
            let cut = quick();
            fs::write(&file, &bytes).unwrap();
            // The state of a directory that was imported saves time and nothing else.
            let is_import = folder == "directories" && missing.is_sound();
            assert!(is_import || (!missing.is_sound() && !cut.is_sound()), "{}: {cut:?}", file.display());
            if folder == "packs" {
                assert!(missing.damaged_image_count > 0, "{missing:?}");
            }
        }
    }
    assert!(quick().is_sound());
}

#[test]
fn what_is_cut_missing_or_in_anothers_place_is_found() {
    let place = Place::new();
    let (root, _) = store(&place, small_packs());
    let packs = files(&root, "packs");
    let [first, second, ..] = &packs[..] else { panic!("two packs") };
    let sound = [fs::read(first).unwrap(), fs::read(second).unwrap()];
    let faults = || verify(&root).fault_count;
    for len in [0, 10, 24, 1_000, sound[0].len() - 1] {
        fs::write(first, &sound[0][..len]).unwrap();
        assert!(faults() > 0, "cut to {len}");
    }
    fs::remove_file(first).unwrap();
    assert!(faults() > 0);
    fs::write(first, &sound[1]).unwrap();
    fs::write(second, &sound[0]).unwrap();
    assert!(faults() >= 2);
    fs::write(first, &sound[0]).unwrap();
    fs::write(second, &sound[1]).unwrap();
    assert_eq!(faults(), 0);
}

#[test]
fn an_object_that_only_the_index_lacks_is_missed() {
    let place = Place::new();
    // All rows are in the catalog's open packs but for one segment's.
    let (root, project) = store(&place, small_packs());
    drop(project);
    let segment = files(&root, "segments").pop().unwrap();
    // A segment of no rows, as if its pack's objects had been forgotten.
    let number = u32::from_le_bytes(fs::read(&segment).unwrap()[8..12].try_into().unwrap());
    fs::write(&segment, layerstone::testing::empty_segment(number).unwrap()).unwrap();
    let report = verify(&root);
    // One for all objects of a pack, and no frame is damaged.
    let missing = report.faults.iter().filter(|fault| {
        let text = fault.to_string();
        text.starts_with("pack ") && text.contains(": the index has not got ")
    });
    assert_eq!(missing.count() as u64, report.fault_count, "{report:?}");
    assert!((1..=report.packs).contains(&report.fault_count), "{report:?}");
    assert!(report.damaged_image_count > 0, "{report:?}");
    assert!(report.faults.iter().all(|fault| fault.kind() == ErrorKind::Corrupt));
}
