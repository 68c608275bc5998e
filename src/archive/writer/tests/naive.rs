//! What programs make of an archive that read its ustar headers alone, or only some PAX records.

use std::collections::BTreeSet;
use std::io::Read;

use super::*;

/// A header as such a program reads it: extended headers are passed over.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    name: String,
    link: String,
    numbers: [i128; 4],
    body: Vec<u8>,
}

fn seen(archive: &[u8]) -> Vec<Seen> {
    let mut rest = archive;
    let mut found = Vec::new();
    while rest.first().is_some_and(|byte| *byte != 0) {
        let (block, after) = rest.split_first_chunk::<BLOCK>().unwrap();
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(block);
        let fields = header.as_old();
        let number = |field: &[u8]| number::field(field, "number").unwrap();
        let numbers = [number(&fields.uid), number(&fields.gid), number(&fields.size), number(&fields.mtime)];
        let size = usize::try_from(numbers[2]).unwrap().min(after.len());
        if header.entry_type() != tar::EntryType::XHeader {
            found.push(Seen {
                name: String::from_utf8(header.path_bytes().into_owned()).unwrap(),
                link: String::from_utf8(header.link_name_bytes().unwrap_or_default().into_owned()).unwrap(),
                numbers,
                body: after[..size].to_vec(),
            });
        }
        rest = &after[size.next_multiple_of(BLOCK).min(after.len())..];
    }
    found
}

/// The header of a member, nothing of whose data is written.
fn header_of(member: &Member) -> Seen {
    let MemberKind::File(size) = member.kind else { panic!("no file") };
    let mut writer = Writer::new(Vec::new());
    writer.append(member, &[0..size]).unwrap();
    seen(&writer.out).remove(0)
}

#[test]
fn headers_hold_every_number_themselves() {
    let after = |seconds| Timestamp { seconds, nanos: 5 };
    let setuid = Member { mode: 0o6755, uid: 2_097_152, gid: u32::MAX, ..file("su", 9) };
    assert_eq!(header_of(&setuid).numbers, [2_097_152, u32::MAX.into(), 9, 0]);
    for seconds in [i64::MIN, -1, 0, 1 << 33, 1 << 40, i64::MAX] {
        assert_eq!(header_of(&Member { mtime: after(seconds), ..file("t", 1) }).numbers[3], seconds.into());
    }
    let size = (8 << 30) + 1;
    assert_eq!(header_of(&file("large", size)).numbers[2], size.into());

    let device = member("dev", MemberKind::CharDevice { major: u32::MAX, minor: 1 << 21 });
    let archive = write(&[(device, vec![])]);
    let header = &archive[archive.len() - 3 * BLOCK..];
    assert_eq!(number::field(&header[329..337], "major").unwrap(), u32::MAX.into());
    assert_eq!(number::field(&header[337..345], "minor").unwrap(), 1 << 21);
}

/// Older programs imported such: what unpacks it would leave it setuid to root.
#[test]
fn what_belongs_to_no_user_is_not_setuid() {
    for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
        let directory = Member { mode: 0o7755, uid, gid, ..member("su", MemberKind::Directory) };
        let archive = write(&[(directory, vec![])]);
        let header = &archive[archive.len() - 3 * BLOCK..];
        assert_eq!(number::field(&header[100..108], "mode").unwrap(), 0o1755);
    }
}

#[test]
fn sparse_files_stay_in_their_directories() {
    let holes = vec![1 << 20..(1 << 20) + 5];
    let sparse = |name| (file(name, (1 << 20) + 5), holes.clone());
    let archive = write(&[sparse("a/big"), sparse("a/b/big"), sparse("b/big"), sparse("big")]);
    let found: Vec<_> = seen(&archive).into_iter().map(|seen| seen.name).collect();
    for (name, directory) in found.iter().zip(["./a", "./a/b", "./b", "."]) {
        let own = name.strip_prefix(&format!("{directory}/GNUSparseFile.")).unwrap();
        let number = own.strip_suffix("/big").unwrap();
        assert!(number.bytes().all(|byte| byte.is_ascii_digit()), "{name}");
    }
}

/// Names around the limits of ustar's fields, alike in all that fits.
fn long_names() -> Vec<String> {
    let mut names = Vec::new();
    for len in [90, 97, 98, 99, 100, 101, 150, 155, 156, 200, 254] {
        for directory in ["", "d/", &format!("{}/", "e".repeat(153)), &format!("{}/", "e".repeat(154))] {
            for end in ["1", "2"] {
                names.push(format!("{directory}{}{end}", "n".repeat(len)));
            }
        }
    }
    names
}

#[test]
fn no_two_members_have_one_header_name() {
    let holes = vec![1 << 20..(1 << 20) + 5];
    let mut members = Vec::new();
    for name in long_names() {
        members.push((file(&format!("s/{name}"), (1 << 20) + 5), holes.clone()));
        members.push((file(&name, 0), vec![]));
        members.push((member(&format!("x/{name}"), MemberKind::Directory), vec![]));
        members.push((member(&format!("y/{name}"), MemberKind::HardLink(path(&name))), vec![]));
        members.push((member(&format!("z/{name}"), MemberKind::Symlink(name.into_bytes().into())), vec![]));
    }
    // An ordinary file that is called as a sparse file's header might be.
    members.push((file("s/GNUSparseFile.0/big", 0), vec![]));
    members.push((file("s/big", (1 << 20) + 5), holes));
    let archive = write(&members);
    let found = seen(&archive);
    assert_eq!(found.len(), members.len());
    let names: BTreeSet<_> = found.iter().map(|seen| seen.name.trim_end_matches('/')).collect();
    assert_eq!(names.len(), members.len());
    let files = found.iter().zip(&members).filter(|(_, (member, _))| member.kind != MemberKind::Directory);
    for (seen, (member, _)) in files {
        assert!(!seen.name.ends_with('/'), "{} would be a directory", seen.name);
        let target = match &member.kind {
            MemberKind::HardLink(target) => format!("./{}", String::from_utf8(target.to_relative()).unwrap()),
            MemberKind::Symlink(target) => String::from_utf8(target.to_vec()).unwrap(),
            _ => String::new(),
        };
        // A link that is cut short would lead to something else.
        assert!(seen.link == target || seen.link.contains('~'), "{} for {target}", seen.link);
    }
}

#[test]
fn holes_can_be_written_as_zeros() {
    let data = vec![10..20, 4096..4106, 70_000..70_005];
    let mut writer = Writer::new(Vec::new()).filling_holes();
    writer.append(&file("a/holes", 1 << 20), &data).unwrap();
    for range in &data {
        writer.write(&pattern(range)).unwrap();
    }
    writer.append(&file("a/hole", 1 << 19), &[]).unwrap();
    let archive = writer.finish().unwrap();
    let mut expected = vec![0; 1 << 20];
    for range in data {
        let place = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        expected[place].copy_from_slice(&pattern(&range));
    }
    let [holes, hole] = &seen(&archive)[..] else { panic!("two members") };
    assert_eq!((holes.name.as_str(), holes.body == expected), ("./a/holes", true));
    assert_eq!((hole.name.as_str(), hole.body == vec![0; 1 << 19]), ("./a/hole", true));

    // The same with a reader that knows neither sparse files nor our other records.
    let mut archive = tar::Archive::new(&archive[..]);
    let mut entries = archive.entries().unwrap();
    let mut bytes = Vec::new();
    entries.next().unwrap().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == expected);
}

/// Unpacks with other programs what must not become root's, and what they know of times and sizes.
#[test]
fn other_programs_see_who_owns_what() {
    if !system_tests() {
        return;
    }
    let time = |seconds| Timestamp { seconds, nanos: 250_000_000 };
    let members = [
        (Member { mode: 0o6755, uid: 3_000_000, gid: 4_000_000_000, ..file("su", 3) }, vec![0..3]),
        (Member { mtime: time(1_000_000_000), ..file("time", 0) }, vec![]),
        (Member { mtime: time(-5), uid: 2_097_151, gid: 2_097_152, ..file("old", 0) }, vec![]),
        (Member { mtime: time((1 << 33) + 1), ..file("late", 0) }, vec![]),
    ];
    let archive = write(&members);
    let python =
        "import sys,tarfile; tarfile.open(fileobj=sys.stdin.buffer,mode='r|').extractall(sys.argv[1])";
    for (program, arguments) in [
        ("busybox", &["tar", "-xpf", "-", "-C"][..]),
        ("bsdtar", &["-xpf", "-", "-C"]),
        ("tar", &["-xpf", "-", "--numeric-owner", "-C"]),
        ("python3", &["-c", python]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        run(Command::new(program).args(arguments).arg(directory.path()), &archive);
        for (member, _) in &members {
            let name = String::from_utf8(member.path.to_relative()).unwrap();
            let found = directory.path().join(&name).metadata().unwrap();
            assert_eq!((found.uid(), found.gid()), (member.uid, member.gid), "{program}: {name}");
            assert_eq!(found.permissions().mode() & 0o7777, u32::from(member.mode), "{program}: {name}");
            // These two round a time before 1970 with a fraction up; busybox knows no fractions.
            if member.mtime.seconds >= 0 || !["python3", "bsdtar"].contains(&program) {
                assert_eq!(found.mtime(), member.mtime.seconds, "{program}: {name}");
            }
        }
    }
}
