#![expect(clippy::single_range_in_vec_init, reason = "a file without holes has one range of data")]

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::archive::testing::{
    Data, any_member, layout, member, only, path, pattern, read, run, system_tests,
};
use crate::error::ErrorKind;
use crate::tree::Timestamp;

mod naive;

type Written = (Member, Vec<Range<u64>>);

/// Writes members, their data in odd portions.
fn write(members: &[Written]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (member, data) in members {
        writer.append(member, data).unwrap();
        for range in data {
            pattern(range).chunks(777).for_each(|bytes| writer.write(bytes).unwrap());
        }
    }
    writer.finish().unwrap()
}

fn file(name: &str, size: u64) -> Member {
    member(name, MemberKind::File(size))
}

/// The runs of bytes other than zero: what [`pattern`] is made of.
fn runs(data: Data) -> Data {
    let mut runs = Data::new();
    for (start, bytes) in data {
        let mut position = start;
        for run in bytes.chunk_by(|one, other| (*one == 0) == (*other == 0)) {
            if run[0] != 0 {
                runs.push((position, run.to_vec()));
            }
            position += run.len() as u64;
        }
    }
    runs
}

fn expected(data: &[Range<u64>]) -> Data {
    data.iter().map(|range| (range.start, pattern(range))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn members_come_back(members in prop::collection::vec(any_member(), 0..6)) {
        let archive = write(&members);
        prop_assert_eq!(archive.len() % BLOCK, 0);
        prop_assert_eq!(&archive, &write(&members));
        let found: Vec<_> = read(&archive).unwrap().into_iter().map(|(member, data)| (member, runs(data))).collect();
        let wanted: Vec<_> = members.into_iter().map(|(member, data)| (member, expected(&data))).collect();
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn a_changed_archive_never_panics(
        members in prop::collection::vec(any_member(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut: prop::sample::Index,
        fix: bool,
    ) {
        let mut archive = write(&members);
        for (place, byte) in changes {
            let place = place.index(archive.len());
            archive[place] = byte;
            let header = place / BLOCK * BLOCK;
            if fix {
                fix_checksum(&mut archive[header..header + BLOCK]);
            }
        }
        let _ = read(&archive);
        let _ = read(&archive[..cut.index(archive.len())]);
    }

    #[test]
    fn maps_hold_all_data((data, size) in layout()) {
        let map = sparse_map(&data, size).unwrap_or(vec![0..size]);
        let (last, others) = map.split_last().unwrap();
        prop_assert_eq!(last.end, size);
        prop_assert!(others.iter().all(|piece| (piece.end - piece.start) % BLOCK_BYTES == 0));
        let bytes = |ranges: &[Range<u64>]| ranges.iter().map(|range| range.end - range.start).sum::<u64>();
        prop_assert!(bytes(&map) < bytes(&data) + 2 * BLOCK_BYTES * (data.len() as u64 + 1));
        prop_assert!(data.iter().all(|range| map.iter().any(|piece| piece.start <= range.start && range.end <= piece.end)));
    }
}

fn fix_checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn plain_members_need_no_extended_header() {
    let name = format!("{}/{}", "p".repeat(150), "n".repeat(98));
    for (member, data) in [
        (file("a", 5), vec![0..5]),
        (file(&name, 0), vec![]),
        (Member { uid: 0o777_7777, gid: 0o777_7777, ..member("d", MemberKind::Directory) }, vec![]),
        (member("s", MemberKind::Symlink(vec![b'x'; 100].into())), vec![]),
    ] {
        let archive = write(&[(member.clone(), data.clone())]);
        assert_eq!(archive.len(), 512 + data.len() * 512 + 1024, "{member:?}");
        assert_eq!(only(&archive).0, member);
    }
    assert!(write(&[(member("d", MemberKind::Directory), vec![])]).starts_with(b"./d/\0"));
    assert!(write(&[(member("", MemberKind::Directory), vec![])]).starts_with(b"./\0"));
}

#[test]
fn golden_header() {
    let mtime = Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 };
    let archive = write(&[(Member { mtime, mode: 0o4755, uid: 1000, ..file("bin/su", 3) }, vec![0..3])]);
    let text = |at: usize, len: usize| String::from_utf8_lossy(&archive[at..at + len]).replace('\0', "·");
    assert_eq!(text(0, 20), "./bin/PaxHeaders/su·");
    assert_eq!(text(100, 58), "0000644·0000000·0000000·00000000036·00000000000·0011357·x·");
    assert_eq!(text(257, 8), "ustar·00");
    assert_eq!(text(512, 32), "30 mtime=1700000000.500000000\n··");
    assert_eq!(text(1024, 9), "./bin/su·");
    assert_eq!(text(1124, 58), "0004755·0001750·0000000·00000000003·14524770400·0007303·0·");
    assert_eq!(&archive[1536..1539], &[1, 2, 3]);
}

#[test]
fn huge_sparse_files_stay_small() {
    let size = 1 << 62;
    let data = vec![4096..4100, (1 << 61)..(1 << 61) + 4];
    let archive = write(&[(file("huge", size), data.clone())]);
    assert!(archive.len() < 8192, "{}", archive.len());
    let (found, content) = only(&archive);
    assert_eq!((found, runs(content)), (file("huge", size), expected(&data)));
}

/// More pieces than a reader takes: the smallest holes become zeros, the large ones stay holes.
#[test]
fn many_holes_are_thinned_out() {
    let count = SPARSE_PIECES_MAX as u64 + 50;
    let mut data: Vec<_> = (0..count).map(|number| number * 1024 + 1..number * 1024 + 500).collect();
    let last = count * 1024;
    data.push(last + 102_400..last + 102_401);
    let size = last + 102_402;
    let (found, content) = only(&write(&[(file("many", size), data.clone())]));
    assert_eq!(found, file("many", size));
    assert!(content.len() <= SPARSE_PIECES_MAX && content.len() > SPARSE_PIECES_MAX - 10);
    assert_eq!(content.last().unwrap().0, last + 102_400);
    assert_eq!(runs(content), expected(&data));
}

#[test]
fn what_no_archive_holds_is_refused() {
    let refused = |member: Member, data: &[Range<u64>]| {
        Writer::new(Vec::new()).append(&member, data).map(drop).unwrap_err().kind()
    };
    assert_eq!(refused(file("a", 5), &[0..6]), ErrorKind::Invalid);
    assert_eq!(refused(file("a", 5), &[3..4, 2..3]), ErrorKind::Invalid);
    assert_eq!(refused(file("a", u64::MAX), &[]), ErrorKind::Invalid);
    assert_eq!(refused(member("a", MemberKind::Symlink(Box::default())), &[]), ErrorKind::Invalid);
    assert_eq!(refused(Member { mode: 0o10000, ..file("a", 0) }, &[]), ErrorKind::Invalid);
    // Its name would be a directory's, `./`, and with a body behind it nothing that can be read.
    assert_eq!(refused(file("", 5), &[0..5]), ErrorKind::Invalid);
    let xattrs = (0..20).map(|number| (vec![b'a' + number], vec![0; 60_000])).collect();
    assert_eq!(refused(Member { xattrs, ..file("a", 0) }, &[]), ErrorKind::Unsupported);

    let mut writer = Writer::new(Vec::new());
    writer.append(&file("a", 5), &[0..5]).unwrap();
    assert!(writer.write(b"123456").unwrap_err().to_string().contains("more data"));
    let mut writer = Writer::new(Vec::new());
    writer.append(&file("a", 5), &[0..5]).unwrap();
    writer.write(b"1234").unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("too little"));
}

/// A member of every kind that an ordinary file system can hold.
fn real_members() -> Vec<Written> {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let time = Timestamp { seconds: 1_234_567_890, nanos: 123_456_789 };
    let xattrs = vec![(b"user.a=b%25".to_vec(), b"\0\n=\xff".to_vec()), (b"user.empty".to_vec(), Vec::new())];
    let holes = vec![0..10, 1 << 20..(1 << 20) + 5000];
    let mut members = vec![
        (Member { mode: 0o1770, ..member("", MemberKind::Directory) }, vec![]),
        (member(&"d".repeat(120), MemberKind::Directory), vec![]),
        (Member { xattrs, ..file(&long, 3) }, vec![0..3]),
        (Member { mode: 0o4755, uid: 3_000_000, gid: 4_000_000_000, ..file("plain", 1000) }, vec![0..1000]),
        (file("holes", 1 << 30), holes),
        (file("hole", 1 << 20), vec![]),
        (member("hard", MemberKind::HardLink(path(&long))), vec![]),
        (member("soft", MemberKind::Symlink(vec![b't'; 150].into())), vec![]),
        (member("fifo", MemberKind::Fifo), vec![]),
        (member("null", MemberKind::CharDevice { major: 1, minor: 3 }), vec![]),
        (member("loop", MemberKind::BlockDevice { major: 7, minor: 1000 }), vec![]),
        (Member { mtime: Timestamp { seconds: -5, nanos: 250_000_000 }, ..file("old\n\x1b", 0) }, vec![]),
    ];
    for (member, _) in &mut members {
        if member.mtime == Timestamp::default() {
            member.mtime = time;
        }
    }
    members
}

#[test]
fn gnu_tar_extracts_what_was_written() {
    if !system_tests() {
        return;
    }
    let members = real_members();
    let archive = write(&members);
    let listed = run(Command::new("tar").args(["--quoting-style=literal", "-tf", "-"]), &archive);
    assert!(listed.starts_with(b"./\n./ddd"));
    let directory = tempfile::tempdir().unwrap();
    let mut extract = Command::new("tar");
    extract.args(["--xattrs", "--xattrs-include=*", "--same-owner", "-xpf", "-", "-C"]).arg(directory.path());
    run(&mut extract, &archive);
    for (member, data) in &members {
        check_extracted(directory.path(), member, data);
    }
    // What tar makes of it is the same again, except that it sees links in another order and modes of symlinks.
    let mut create = Command::new("tar");
    create.args(["--xattrs", "--xattrs-include=*", "--sparse", "--format=posix", "-C"]).arg(directory.path());
    let again = read(&run(create.args(["-cf", "-", "."]), &[])).unwrap();
    assert_eq!(again.len(), members.len());
    let linked = members.iter().position(|(member, _)| !member.xattrs.is_empty()).unwrap();
    for (number, (mut member, data)) in members.into_iter().enumerate() {
        let (found, content) = again.iter().find(|(found, _)| found.path == member.path).unwrap();
        match member.kind {
            MemberKind::HardLink(_) => continue,
            MemberKind::Symlink(_) => member.mode = 0o777,
            _ => {}
        }
        if number != linked {
            assert_eq!((found, runs(content.clone())), (&member, expected(&data)));
        }
    }
}

fn check_extracted(root: &Path, member: &Member, data: &[Range<u64>]) {
    use std::os::unix::ffi::OsStrExt;
    let relative = member.path.to_relative();
    let place = root.join(std::ffi::OsStr::from_bytes(&relative));
    let found = place.symlink_metadata().unwrap();
    if let MemberKind::HardLink(target) = &member.kind {
        let target = root.join(std::ffi::OsStr::from_bytes(&target.to_relative()));
        assert_eq!(found.ino(), target.metadata().unwrap().ino());
        return;
    }
    let nanos = i64::from(member.mtime.nanos);
    assert_eq!((found.mtime(), found.mtime_nsec()), (member.mtime.seconds, nanos), "{place:?}");
    assert_eq!((found.uid(), found.gid()), (member.uid, member.gid), "{place:?}");
    if !found.is_symlink() {
        assert_eq!(found.permissions().mode() & 0o7777, u32::from(member.mode), "{place:?}");
    }
    match &member.kind {
        MemberKind::Directory => assert!(found.is_dir()),
        MemberKind::Fifo => assert!(found.file_type().is_fifo()),
        MemberKind::CharDevice { .. } => assert!(found.file_type().is_char_device()),
        MemberKind::BlockDevice { .. } => assert!(found.file_type().is_block_device()),
        MemberKind::Symlink(target) => {
            assert_eq!(place.read_link().unwrap().as_os_str().as_bytes(), &**target);
        }
        MemberKind::File(size) => {
            assert_eq!(found.len(), *size, "{place:?}");
            assert!(data == [0..*size] || found.blocks() * 512 < 1 << 20, "{place:?} has no holes");
            let file = std::fs::File::open(&place).unwrap();
            for range in data {
                let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
                std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, range.start).unwrap();
                assert_eq!(bytes, pattern(range), "{place:?}");
            }
        }
        MemberKind::HardLink(_) => {}
    }
    for (name, value) in &member.xattrs {
        let mut buffer = [0; 100];
        let name = std::ffi::OsStr::from_bytes(name);
        let len = rustix::fs::getxattr(&place, name, &mut buffer).unwrap();
        assert_eq!(&buffer[..len], &value[..], "{place:?}");
    }
}
