use std::collections::BTreeSet;

use super::*;
use crate::disk::{Disk, OpenMode};

fn crashes(disk: &SimulatedDisk, picks: u64) -> Vec<DiskImage> {
    let media = Media::default().after(&disk.log());
    (0..picks).map(|seed| media.crash(Pick::Seeded(seed)).0).collect()
}

fn bytes(image: &DiskImage, name: &str) -> Option<Vec<u8>> {
    image.files.get(name).map(Pages::to_vec)
}

#[test]
fn bytes_need_a_sync_and_names_one_of_their_folder() {
    let disk = SimulatedDisk::default();
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    file.write_at(b"old", 0).unwrap();
    file.sync().unwrap();
    assert!(crashes(&disk, 50).iter().any(|image| bytes(image, "a").is_none()), "its name is not durable");
    disk.sync_dir("").unwrap();
    assert!(crashes(&disk, 50).iter().all(|image| bytes(image, "a") == Some(b"old".to_vec())));
    file.write_at(b"newer", 0).unwrap();
    let found: BTreeSet<_> = crashes(&disk, 500).iter().filter_map(|image| bytes(image, "a")).collect();
    for possible in ["old", "new", "newer", "old\0\0", "new\0\0", "nld"] {
        assert!(found.contains(possible.as_bytes()), "{possible:?} is in {found:?}");
    }
    assert_eq!(bytes(&disk.image(), "a"), Some(b"newer".to_vec()), "processes see it at once");
}

#[test]
fn a_rename_leaves_either_name_both_or_neither() {
    let disk = SimulatedDisk::default();
    disk.open("old", OpenMode::CreateNew).unwrap();
    disk.sync_dir("").unwrap();
    disk.rename("old", "new").unwrap();
    let names = |image: &DiskImage| image.files().map(str::to_owned).collect::<Vec<_>>();
    let found: BTreeSet<_> = crashes(&disk, 100).iter().map(names).collect();
    let expected: [&[&str]; 4] = [&[], &["new"], &["new", "old"], &["old"]];
    assert!(found.iter().map(|names| names.iter().map(String::as_str).collect::<Vec<_>>()).eq(expected));
    disk.sync_dir("").unwrap();
    assert!(crashes(&disk, 100).iter().all(|image| names(image) == ["new"]));
}

#[test]
fn a_failed_sync_loses_what_it_was_for() {
    let disk = SimulatedDisk::default();
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    disk.sync_dir("").unwrap();
    file.write_at(b"lost", 0).unwrap();
    let fault = Fault { call: disk.calls().len(), kind: FaultKind::Io, is_lasting: false };
    disk.set_fault(Some(fault));
    assert!(file.sync().is_err());
    file.write_at(b"kept", 4).unwrap();
    file.sync().unwrap();
    assert!(crashes(&disk, 20).iter().all(|image| bytes(image, "a") == Some(b"\0\0\0\0kept".to_vec())));
}

#[test]
fn an_interrupted_call_is_made_again_where_real_ones_are() {
    let disk = SimulatedDisk::default();
    disk.set_fault(Some(Fault { call: 0, kind: FaultKind::Interrupted, is_lasting: true }));
    let file = disk.open("a", OpenMode::CreateNew).unwrap();
    file.write_at(b"whole", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(bytes(&disk.image(), "a"), Some(b"whole".to_vec()));
}

#[test]
fn images_share_nothing_that_changes() {
    let mut pages = Pages::default();
    pages.write(5_000, b"x");
    let before = pages.clone();
    pages.write(4_096, &[7; 5_000]);
    pages.set_len(4_100);
    pages.set_len(9_000);
    let mut expected = vec![0; 9_000];
    expected[4_096..4_100].fill(7);
    assert_eq!(pages.to_vec(), expected);
    assert_eq!((before.len(), before.to_vec()[5_000]), (5_001, b'x'));
    assert_ne!(before.fingerprint(), pages.fingerprint());
    let mut same = Pages::default();
    same.write(0, &expected);
    assert_eq!(same.fingerprint(), pages.fingerprint());
}
