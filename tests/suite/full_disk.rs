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
            // Not a byte is left.
            let filler = std::fs::File::create(mounted.path("filler")).unwrap();
            let mut chunk = MIB as u64;
            let mut filled = 0;
            while chunk > 0 {
                match rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), filled, chunk) {
                    Ok(()) => filled += chunk,
                    Err(_) => chunk /= 2,
                }
            }
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
            drop(filler);
            std::fs::remove_file(mounted.path("filler")).unwrap();
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
