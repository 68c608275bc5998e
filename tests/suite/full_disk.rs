//! A real file system of 64 MiB that is filled up: what is there stays readable, and what is removed makes room.

use layerstone::id::ImageId;
use layerstone::{ErrorKind, GcOptions, ImportOptions, ListOptions, Project, StoreOptions};

use crate::given::{Place, project, read};
use crate::reflink::Mounted;
use crate::roundtrip::noise;
use crate::system;

const MIB: usize = 1 << 20;

fn import(project: &Project, place: &Place, number: u64, bytes: usize) -> layerstone::Result<ImageId> {
    let source = place.path("source");
    let _ = std::fs::remove_dir_all(&source);
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("large"), noise(bytes, number)).unwrap();
    for file in 0..20 {
        std::fs::write(source.join(format!("{file}")), noise(1_000 + 50 * file, number * 100 + file as u64))
            .unwrap();
    }
    let options =
        ImportOptions { tags: vec![format!("n{number}").parse().unwrap()], ..ImportOptions::default() };
    Ok(project.import_directory(&source, &options)?.image)
}

fn check(project: &Project, image: ImageId, number: u64, bytes: usize) {
    let image = project.find(&image.into()).unwrap();
    assert!(read(&image, "large").unwrap() == noise(bytes, number));
    assert!(read(&image, "7").unwrap() == noise(1_350, number * 100 + 7));
}

/// Leaves not a byte of the file system.
pub(crate) fn fill(mounted: &Mounted) -> std::path::PathBuf {
    let path = mounted.path("filler");
    let filler = std::fs::File::create(&path).unwrap();
    let (mut chunk, mut filled) = (MIB as u64, 0);
    while chunk > 0 {
        match rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), filled, chunk) {
            Ok(()) => filled += chunk,
            Err(_) => chunk /= 2,
        }
    }
    path
}

/// Opened for each call, as by commands, or once, as by a server; with packs of the usual size, and with small ones.
#[test]
fn a_full_file_system_can_be_read_cleared_and_filled_again() {
    if !system::is_on() {
        return;
    }
    for (exclusive, pack_bytes) in [(false, 128 * MIB), (true, 128 * MIB), (false, 4 * MIB), (true, 4 * MIB)]
    {
        let place = Place::new();
        let Some(mounted) = Mounted::sized(&place, 64 * MIB as u64, &["mkfs.ext4", "-q", "-m", "0"]) else {
            return;
        };
        let options = StoreOptions::default().exclusive(exclusive).pack_bytes(pack_bytes as u64);
        let root = mounted.path("store");
        let mut store = options.clone().open(&root).unwrap();
        let mut project = project(&store, "p");
        for round in 0..2_u64 {
            let mut there = Vec::new();
            // Large ones first, then ever smaller ones, until nothing at all fits.
            let mut bytes = 6 * MIB;
            for number in round * 1000.. {
                match import(&project, &place, number, bytes) {
                    Ok(image) => there.push((image, number, bytes)),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                        assert!(error.is_disk_full(), "{error:?}");
                        bytes /= 2;
                        if bytes < 1000 {
                            break;
                        }
                    }
                }
            }
            let filler = fill(&mounted);
            if !exclusive {
                drop((project, store));
                store = options.clone().open(&root).unwrap();
                project = store.project(&"p".parse().unwrap()).unwrap();
            }
            let listed = project.images(&ListOptions { limit: None, ..ListOptions::default() }).unwrap();
            assert_eq!(listed.images.len(), there.len());
            for (image, number, bytes) in &there {
                check(&project, *image, *number, *bytes);
            }
            assert!(import(&project, &place, 999_999, 1000).unwrap_err().is_disk_full());
            // All but two of the small ones.
            let kept = there.split_off(there.len() - 2);
            for (image, ..) in &there {
                project.remove(&(*image).into(), true).unwrap();
            }
            let report = store.collect_garbage(&GcOptions::default()).unwrap();
            assert!(report.freed_bytes > 30 * MIB as u64, "round {round}: {report:?}");
            for (image, number, bytes) in &kept {
                check(&project, *image, *number, *bytes);
            }
            std::fs::remove_file(filler).unwrap();
            let new = import(&project, &place, 5_000 + round, 20 * MIB).unwrap();
            check(&project, new, 5_000 + round, 20 * MIB);
            let report = store.verify().unwrap();
            assert!(report.is_sound(), "{:?}", report.faults);
            for image in kept.iter().map(|(image, ..)| *image).chain([new]) {
                project.remove(&image.into(), true).unwrap();
            }
            store.collect_garbage(&GcOptions::default()).unwrap();
        }
        drop((project, store));
    }
}

/// Somebody else takes the room that a removal made of the ballast: all is in one pack, which can't be condemned without a
/// segment.
#[test]
fn a_full_file_system_without_ballast_can_be_cleared() {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let Some(mounted) = Mounted::sized(&place, 64 * MIB as u64, &["mkfs.ext4", "-q", "-m", "0"]) else {
        return;
    };
    let root = mounted.path("store");
    let store = StoreOptions::default().open(&root).unwrap();
    let project = project(&store, "p");
    let there: Vec<_> = (0..6).map(|number| import(&project, &place, number, 4 * MIB).unwrap()).collect();
    store.wait_for_upkeep();
    for image in &there[1..] {
        project.remove(&(*image).into(), true).unwrap();
    }
    // As a removal on a full disk leaves it, before somebody else comes.
    std::fs::remove_file(root.join("ballast")).unwrap();
    let filler = fill(&mounted);
    let refused = import(&project, &place, 999, 1_000).unwrap_err();
    assert!(
        refused.is_disk_full() && refused.to_string().contains("keep room for a collection"),
        "{refused}"
    );
    let report = store.collect_garbage(&GcOptions::default()).unwrap();
    assert!(report.is_short_of_room && report.freed_packs == 0, "one image needs the pack: {report:?}");
    // Whoever reads may need it.
    let reader = project.find(&there[0].into()).unwrap();
    project.remove(&there[0].into(), true).unwrap();
    let report = store.collect_garbage(&GcOptions::default()).unwrap();
    assert!(report.is_short_of_room && report.freed_packs == 0, "{report:?}");
    assert!(read(&reader, "large").unwrap() == noise(4 * MIB, 0));
    drop(reader);
    let report = store.collect_garbage(&GcOptions::default()).unwrap();
    assert!(!report.is_short_of_room && report.freed_bytes > 24 * MIB as u64, "{report:?}");
    assert!(store.verify().unwrap().is_sound());
    let new = import(&project, &place, 7, 20 * MIB).unwrap();
    check(&project, new, 7, 20 * MIB);
    assert!(filler.exists() && root.join("ballast").exists());
    assert!(store.verify().unwrap().is_sound());
    drop((project, store));
}
