//! What a store does after a call of the disk has failed: as much as can still be promised, in the same process.

use std::sync::Arc;
use std::time::Duration;

use layerstone::id::ImageId;
use layerstone::testing::{DiskCall, Fault, FaultKind, SimulatedDisk, SimulatedMachine};
use layerstone::{ErrorKind, GcOptions, ImportOptions, ListOptions, Project, Store, StoreOptions};

use crate::given::{project, read};
use crate::roundtrip::noise;

fn open(disk: &SimulatedDisk, boot: u64, exclusive: bool) -> Store {
    open_with(disk, boot, exclusive, 2_048)
}

fn open_with(disk: &SimulatedDisk, boot: u64, exclusive: bool, row_objects: u64) -> Store {
    let options = StoreOptions::default()
        .threads(1)
        .lock_timeout(Duration::ZERO)
        .exclusive(exclusive)
        .row_objects(row_objects);
    let machine = Arc::new(SimulatedMachine::new(boot, 0));
    Store::open_simulated(disk, &machine, options.held_bytes(2_000).upkeep_when_waited_for()).unwrap()
}

fn import(project: &Project, seed: u64, bytes: usize) -> layerstone::Result<ImageId> {
    let mut tar = tar::Builder::new(Vec::new());
    let content = noise(bytes, seed);
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", content.as_slice()).unwrap();
    let tar = tar.into_inner().unwrap();
    Ok(project.import_tar(tar.as_slice(), &ImportOptions::default())?.image)
}

fn check_reads(project: &Project, image: ImageId, seed: u64, bytes: usize) {
    let image = project.find(&image.into()).unwrap();
    assert!(read(&image, "file").unwrap() == noise(bytes, seed));
    let all = ListOptions { tagged_only: false, ..ListOptions::default() };
    assert!(!project.images(&all).unwrap().images.is_empty());
}

/// The calls from now on, of an import.
fn calls_of_an_import(disk: &SimulatedDisk, project: &Project) -> std::ops::Range<usize> {
    let before = disk.calls().len();
    import(project, 50, 900).unwrap();
    before..disk.calls().len()
}

/// Every sync of an import fails, one after the other.
#[test]
fn after_a_failed_sync_reads_go_on_and_writes_are_refused_until_it_is_opened_again() {
    for exclusive in [false, true] {
        for bytes in [900, 9_000] {
            let probe = SimulatedDisk::default();
            let store = open(&probe, 1, exclusive);
            import(&project(&store, "p"), 1, 5_000).unwrap();
            let calls = calls_of_an_import(&probe, &store.project(&"p".parse().unwrap()).unwrap()).len() + 20;
            let mut poisoned = 0;
            for offset in 0..calls {
                let disk = SimulatedDisk::default();
                let store = open(&disk, 1, exclusive);
                let project = project(&store, "p");
                let first = import(&project, 1, 5_000).unwrap();
                disk.set_fault(Some(Fault {
                    call: disk.calls().len() + offset,
                    kind: FaultKind::Io,
                    is_lasting: false,
                }));
                let (number, outcome) = (disk.calls().len() + offset, import(&project, 2, bytes));
                disk.set_fault(None);
                if disk.calls().get(number) != Some(&DiskCall::Sync) {
                    continue;
                }
                poisoned += 1;
                assert!(outcome.is_err());
                check_reads(&project, first, 1, 5_000);
                for _ in 0..2 {
                    let refused = import(&project, 3, bytes).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::Poisoned, "{refused}");
                    assert_eq!(
                        project.tag(&first.into(), &["t".parse().unwrap()]).unwrap_err().kind(),
                        ErrorKind::Poisoned
                    );
                    let collected = store.collect_garbage(&GcOptions::default());
                    assert_eq!(collected.unwrap_err().kind(), ErrorKind::Poisoned);
                    check_reads(&project, first, 1, 5_000);
                }
                drop((project, store));
                let store = open(&disk, 2, exclusive);
                let project = store.project(&"p".parse().unwrap()).unwrap();
                check_reads(&project, first, 1, 5_000);
                let again = import(&project, 2, bytes).unwrap();
                check_reads(&project, again, 2, bytes);
                assert!(store.verify().unwrap().is_sound());
            }
            assert!(poisoned >= 3, "{poisoned} syncs");
        }
    }
}

/// Nothing is lost by a write that fails: there is room again, and the same store goes on.
#[test]
fn after_a_full_disk_the_same_store_goes_on() {
    for exclusive in [false, true] {
        // A large session that has many objects writes a segment of its own.
        for (bytes, row_objects) in [(900, 2_048), (9_000, 2_048), (9_000, 1)] {
            for offset in 0..400 {
                let disk = SimulatedDisk::default();
                let store = open_with(&disk, 1, exclusive, row_objects);
                let project = project(&store, "p");
                let first = import(&project, 1, 5_000).unwrap();
                let call = disk.calls().len() + offset;
                disk.set_fault(Some(Fault { call, kind: FaultKind::ShortWrite, is_lasting: true }));
                let outcome = import(&project, 2, bytes);
                check_reads(&project, first, 1, 5_000);
                disk.set_fault(None);
                let is_over = outcome.is_ok();
                if let Err(error) = outcome {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                }
                let again = import(&project, 2, bytes).unwrap();
                check_reads(&project, again, 2, bytes);
                check_reads(&project, first, 1, 5_000);
                store.collect_garbage(&GcOptions::default()).unwrap();
                assert!(store.verify().unwrap().is_sound());
                // Nothing keeps what the session had that could not be let go while the disk was full.
                for image in [first, again] {
                    project.remove(&image.into(), true).unwrap();
                }
                store.collect_garbage(&GcOptions::default()).unwrap();
                let image = disk.image();
                let left: Vec<_> = image.files().filter(|name| name.starts_with("packs/")).collect();
                assert!(left.is_empty(), "held {exclusive}, {bytes} bytes, after call {offset}: {left:?}");
                if is_over {
                    assert!(offset > 5);
                    break;
                }
            }
        }
    }
}
