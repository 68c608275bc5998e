//! Archives made by the system's own tar and compressors.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::*;
use crate::archive::testing::{Data, run, system_tests};

const XATTR: (&[u8], &[u8]) = (b"user.odd=%3D%", b"\0=\n\xff");

/// A directory with something of everything that a format can hold, and what should be read back.
fn populate(root: &Path, names_max: usize) -> Vec<(Member, Data)> {
    let write = |name: &str, bytes: &[u8]| std::fs::write(root.join(name), bytes).unwrap();
    let mut wanted = Vec::new();
    let deep = "d".repeat(names_max.min(90));
    std::fs::create_dir(root.join(&deep)).unwrap();
    wanted.push((member(&deep, MemberKind::Directory), vec![]));
    let long = format!("{deep}/{}", "f".repeat(names_max.saturating_sub(91).clamp(1, 200)));
    for (name, bytes) in [("empty", &b""[..]), ("small", b"hello"), (&long, &[9; 5000])] {
        write(name, bytes);
        let data = if bytes.is_empty() { vec![] } else { vec![(0, bytes.to_vec())] };
        wanted.push((member(name, MemberKind::File(bytes.len() as u64)), data));
    }
    let odd = OsStr::from_bytes(b"odd\n\xff\x1b");
    std::fs::write(root.join(odd), b"x").unwrap();
    let odd = TreePath::parse(odd.as_bytes()).unwrap();
    wanted.push((Member { path: odd, ..member("x", MemberKind::File(1)) }, vec![(0, b"x".to_vec())]));
    let target = "t".repeat(names_max.min(300));
    symlink(&target, root.join("soft")).unwrap();
    wanted.push((member("soft", MemberKind::Symlink(target.into_bytes().into())), vec![]));
    wanted
}

/// What ustar and v7 have no room for.
fn populate_further(root: &Path, wanted: &mut Vec<(Member, Data)>) {
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    let mut data = Data::new();
    for number in 0..40_u64 {
        let bytes = vec![u8::try_from(number).unwrap() + 1; 4096];
        sparse.write_all_at(&bytes, number * (1 << 20)).unwrap();
        data.push((number * (1 << 20), bytes));
    }
    sparse.set_len(1 << 33).unwrap();
    wanted.push((member("sparse", MemberKind::File(1 << 33)), data));
    let mut fifo = Command::new("mkfifo");
    run(fifo.arg(root.join("fifo")), &[]);
    wanted.push((member("fifo", MemberKind::Fifo), vec![]));
    for (name, kind) in [
        ("c", MemberKind::CharDevice { major: 1, minor: 3 }),
        ("b", MemberKind::BlockDevice { major: 300, minor: 70_000 }),
    ] {
        let (MemberKind::CharDevice { major, minor } | MemberKind::BlockDevice { major, minor }) = kind
        else {
            continue;
        };
        let (major, minor) = (major.to_string(), minor.to_string());
        run(Command::new("mknod").arg(root.join(name)).args([name, &major, &minor]), &[]);
        wanted.push((member(name, kind), vec![]));
    }
}

/// Gives all the same mode, owner and time, which the formats then have to keep.
fn settle(root: &Path, wanted: &mut [(Member, Data)], uid: u32, mtime: Timestamp) {
    // A directory's time is set after what it holds.
    wanted.sort_by(|(one, _), (other, _)| other.path.cmp(&one.path));
    for (member, _) in wanted.iter_mut() {
        (member.uid, member.gid, member.mtime) = (uid, 7, mtime);
        let place = root.join(OsStr::from_bytes(&member.path.to_relative()));
        std::os::unix::fs::lchown(&place, Some(uid), Some(7)).unwrap();
        if let MemberKind::Symlink(_) = member.kind {
            member.mode = 0o777;
        } else {
            member.mode = 0o6751;
            std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o6751)).unwrap();
        }
        let when = format!("@{}", crate::archive::number::time_text(mtime));
        run(Command::new("touch").args(["-h", "-d", &when]).arg(place), &[]);
    }
}

fn tar(root: &Path, format: &str, names: &[(Member, Data)]) -> Vec<u8> {
    let mut create = Command::new("tar");
    create.args(["--no-recursion", "--numeric-owner", &format!("--format={format}")]);
    if matches!(format, "posix" | "gnu") {
        create.arg("--sparse");
    }
    if format == "posix" {
        create.args(["--xattrs", "--xattrs-include=*"]);
    }
    create.arg("-C").arg(root).args(["-cf", "-", "--"]);
    create.args(names.iter().map(|(member, _)| OsStr::from_bytes(&member.path.to_relative()).to_owned()));
    run(&mut create, &[])
}

#[test]
fn gnu_tar_in_every_format() {
    if !system_tests() {
        return;
    }
    for (format, names_max) in [("posix", 400), ("gnu", 400), ("ustar", 99), ("v7", 98)] {
        let root = tempfile::tempdir().unwrap();
        let mut wanted = populate(root.path(), names_max);
        let modern = matches!(format, "posix" | "gnu");
        if modern {
            populate_further(root.path(), &mut wanted);
        }
        let seconds = if modern { -1_000 } else { 1_000_000_000 };
        let nanos = if format == "posix" { 250_000_001 } else { 0 };
        let uid = if modern { 3_000_000_000 } else { 1234 };
        settle(root.path(), &mut wanted, uid, Timestamp { seconds, nanos });
        if format == "posix" {
            let small = wanted.iter_mut().find(|(member, _)| member.path == path("small")).unwrap();
            let name = OsStr::from_bytes(XATTR.0);
            rustix::fs::setxattr(root.path().join("small"), name, XATTR.1, rustix::fs::XattrFlags::empty())
                .unwrap();
            small.0.xattrs = vec![(XATTR.0.to_vec(), XATTR.1.to_vec())];
        }
        // A link comes after what it names.
        std::fs::hard_link(root.path().join("small"), root.path().join("hard")).unwrap();
        let target = wanted.iter().find(|(member, _)| member.path == path("small")).unwrap().0.clone();
        let hard = Member {
            path: path("hard"),
            kind: MemberKind::HardLink(path("small")),
            xattrs: vec![],
            ..target
        };
        wanted.push((hard, vec![]));
        let bytes = tar(root.path(), format, &wanted);
        let found = read(&bytes).unwrap();
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(found.0, wanted.0, "{format}");
            assert!(found.1 == wanted.1, "{format}: content of {}", wanted.0.path);
        }
        assert_eq!(found.len(), wanted.len());
        compressors(&bytes);
    }
}

/// Old PAX sparse forms, which GNU tar still writes when asked.
#[test]
fn gnu_tar_sparse_versions() {
    if !system_tests() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut wanted = Vec::new();
    populate_further(root.path(), &mut wanted);
    let sparse = wanted.remove(0);
    for version in ["0.0", "0.1", "1.0"] {
        let mut create = Command::new("tar");
        create.args(["--sparse", "--format=posix", &format!("--sparse-version={version}")]);
        let bytes = run(create.arg("-C").arg(root.path()).args(["-cf", "-", "sparse"]), &[]);
        let (found, data) = only(&bytes);
        assert_eq!((found.path, found.kind), (sparse.0.path.clone(), sparse.0.kind.clone()), "{version}");
        assert!(data == sparse.1, "{version}");
    }
}

fn compressors(bytes: &[u8]) {
    let plain = read_within(bytes, Limits::default()).unwrap().1;
    for program in [&["gzip", "-c"][..], &["zstd", "-qc"], &["zstd", "-qc", "--long=27"]] {
        let packed = run(Command::new(program[0]).args(&program[1..]), bytes);
        assert_eq!(read_within(&packed, Limits::default()).unwrap().1, plain, "{program:?}");
    }
}
