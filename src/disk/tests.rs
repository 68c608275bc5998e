use std::sync::Arc;

use super::recording::{DiskLog, DiskOperation, RecordingDisk};
use super::*;

/// Every disk behaves alike.
fn conforms(disk: &dyn Disk) {
    disk.create_dir("packs").unwrap();
    let file = disk.open("packs/a", OpenMode::CreateNew).unwrap();
    assert_eq!(disk.open("packs/a", OpenMode::CreateNew).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(disk.open("packs/b", OpenMode::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
    file.write_at(b"hello", 3).unwrap();
    let mut buf = [9; 8];
    file.read_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"\0\0\0hello");
    assert_eq!(file.read_at(&mut buf, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    file.set_len(5).unwrap();
    file.sync().unwrap();
    assert_eq!((file.len().unwrap(), &**file.map().unwrap()), (5, &b"\0\0\0he"[..]));
    disk.rename("packs/a", "packs/c").unwrap();
    disk.sync_dir("packs").unwrap();
    assert_eq!(disk.list("packs").unwrap(), ["c"]);
    disk.link("packs/c", "packs/d").unwrap();
    assert_eq!(disk.link("packs/c", "packs/d").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(disk.link("packs/e", "packs/f").unwrap_err().kind(), io::ErrorKind::NotFound);
    file.write_at(b"H", 3).unwrap();
    disk.open("packs/d", OpenMode::Read).unwrap().read_at(&mut buf[..5], 0).unwrap();
    assert_eq!(&buf[..5], b"\0\0\0He", "both names are the file");
    disk.remove("packs/d").unwrap();
    assert!(disk.exists("packs/c").unwrap());
    disk.remove("packs/c").unwrap();
    disk.remove("packs/c").unwrap();
    assert!(!disk.exists("packs/c").unwrap());

    let LockAttempt::Held(guard) = disk.try_lock().unwrap() else { panic!("nobody else has it") };
    let LockAttempt::Busy(holder) = disk.try_lock().unwrap() else { panic!("it is held") };
    assert_eq!(holder, Some(std::process::id()));
    drop(guard);
    let holders = [disk.hold("packs/held").unwrap(), disk.hold("packs/held").unwrap()];
    assert!(!disk.is_held("packs/other").unwrap());
    assert_eq!(disk.list("packs").unwrap(), ["held"], "whoever looks who holds what finds it there");
    for holder in holders {
        assert!(disk.is_held("packs/held").unwrap());
        drop(holder);
    }
    assert!(!disk.is_held("packs/held").unwrap());
    disk.remove("packs/held").unwrap();
    assert!(matches!(disk.try_lock().unwrap(), LockAttempt::Held(_)));
}

#[test]
fn all_disks_conform() {
    let folder = tempfile::tempdir().unwrap();
    conforms(&RealDisk::open_or_create(&folder.path().join("store")).unwrap());
    conforms(&MemoryDisk::default());
    #[cfg(feature = "testing")]
    conforms(&super::simulated::SimulatedDisk::default());
    conforms(&RecordingDisk::new(Arc::new(MemoryDisk::default()), DiskLog::default()));
}

#[test]
fn a_recording_keeps_the_order() {
    let log = DiskLog::default();
    let disk = RecordingDisk::new(Arc::new(MemoryDisk::default()), log.clone());
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.write_at(b"x", 7).unwrap();
    file.sync().unwrap();
    let name = || "f".to_owned();
    assert_eq!(
        log.take(),
        [
            DiskOperation::Create { name: name() },
            DiskOperation::Write { name: name(), offset: 7, bytes: 1 },
            DiskOperation::Sync { name: name() },
        ]
    );
}

#[test]
fn errors_of_the_real_disk_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(folder.path());
    let missing = disk.open("packs/1", OpenMode::Read).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    assert!(missing.to_string().starts_with(&format!("{}/packs/1: ", folder.path().display())), "{missing}");
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    let short = file.read_at(&mut [0; 4], 0).unwrap_err();
    assert_eq!(short.kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(short.to_string().contains("/f: "), "{short}");
}
