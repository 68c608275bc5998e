//! Any bytes as an archive: members and bodies, or an error. What was read can be written and read again, and makes a
//! file system with every directory in it.

use std::collections::BTreeMap;
use std::ops::Range;

use layerstone::testing::{Assembly, Limits, Member, MemberKind, Piece, Placed, Reader, Writer};
use layerstone::{ErrorKind, Result, TreePath};

/// Small enough for thousands of archives a second, and for the memory of a fuzzer.
fn limits() -> Limits {
    Limits {
        entries_max: 2_000,
        logical_bytes_max: 1 << 20,
        stream_bytes_max: 4 << 20,
        metadata_bytes_max: 1 << 20,
        zstd_window_log_max: 20,
        ..Limits::default()
    }
}

pub fn check(bytes: &[u8]) -> bool {
    let is_taken = check_archive(bytes);
    // A mutated header's checksum is hardly ever right by chance.
    let summed = with_checksums(bytes);
    let is_taken_then = summed != bytes && check_archive(&summed);
    is_taken || is_taken_then
}

const BLOCK: usize = 512;

/// The archive with the checksum that it should have in every block that looks like a header.
pub(crate) fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut summed = bytes.to_vec();
    for block in summed.chunks_exact_mut(BLOCK).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    summed
}

/// Whether the archive was read to its end.
pub(crate) fn check_archive(bytes: &[u8]) -> bool {
    let Ok(files) = read(bytes, limits()) else { return false };
    for file in &files {
        check_member(&file.member);
    }
    let is_writable = |file: &File| file.member.kind == MemberKind::Directory || !file.member.path.is_root();
    if files.iter().all(is_writable)
        && let Ok(written) = write(&files)
    {
        let again = read(&written, Limits::default()).expect("what was written can be read");
        assert_eq!(again.len(), files.len());
        for (one, other) in again.iter().zip(&files) {
            assert_eq!((&one.member, one.content()), (&other.member, other.content()));
        }
        assert!(write(&again).is_ok_and(|again| again == written), "an archive is a function of its members");
    }
    let mut assembly = Assembly::new(limits());
    if files.into_iter().try_for_each(|file| assembly.add(file.member)).is_ok()
        && let Ok(assembled) = assembly.finish()
    {
        check_assembled(assembled);
    }
    true
}

/// A member and its body: where it has data, and that data.
struct File {
    member: Member,
    ranges: Vec<Range<u64>>,
    data: Vec<u8>,
}

impl File {
    /// What the data and the holes come to.
    fn content(&self) -> Vec<u8> {
        let MemberKind::File(size) = self.member.kind else { return Vec::new() };
        let offset = |bytes: u64| usize::try_from(bytes).expect("within the limit");
        let mut content = vec![0; offset(size)];
        let mut data = self.data.as_slice();
        for range in &self.ranges {
            let place = &mut content[offset(range.start)..offset(range.end)];
            let (head, rest) = data.split_at(place.len());
            place.copy_from_slice(head);
            data = rest;
        }
        content
    }
}

fn read(bytes: &[u8], limits: Limits) -> Result<Vec<File>> {
    let mut reader = Reader::new(bytes, limits)?;
    let mut files = Vec::new();
    while let Some(member) = reader.next()? {
        let (mut ranges, mut data) = (Vec::<Range<u64>>::new(), Vec::new());
        let (mut buffer, mut position) = ([0; 700], 0);
        loop {
            match reader.next_piece(&mut buffer)? {
                Piece::End => break,
                Piece::Hole(len) => position += len,
                Piece::Data(len) => {
                    data.extend_from_slice(&buffer[..len]);
                    let end = position + len as u64;
                    match ranges.last_mut().filter(|last| last.end == position) {
                        Some(last) => last.end = end,
                        None => ranges.push(position..end),
                    }
                    position = end;
                }
            }
        }
        let size = if let MemberKind::File(size) = member.kind { size } else { 0 };
        assert_eq!(position, size, "{}: a body is as long as its member says", member.path);
        files.push(File { member, ranges, data });
    }
    let summary = reader.finish()?;
    assert_eq!(summary.entries, files.len() as u64);
    Ok(files)
}

fn write(files: &[File]) -> Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for File { member, ranges, data } in files {
        let appended = writer.append(member, ranges);
        if let Err(error) = &appended {
            // Several headers of the most that one may have.
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
        appended.and_then(|()| writer.write(data))?;
    }
    writer.finish()
}

fn check_member(member: &Member) {
    let Member { path, mode, mtime, xattrs, kind, .. } = member;
    assert!(*mode <= 0o7777 && mtime.nanos < 1_000_000_000, "{member:?}");
    assert!(xattrs.is_sorted_by(|(a, _), (b, _)| a < b), "{path}: attributes ascend");
    assert!(xattrs.iter().all(|(name, _)| !name.is_empty() && !name.contains(&0)), "{path}");
    if let MemberKind::Symlink(target) = kind {
        assert!((1..=4095).contains(&target.len()) && !target.contains(&0), "{path}");
    }
}

fn check_assembled(assembled: impl Iterator<Item = Placed<u64>>) {
    let placed: Vec<_> = assembled.collect();
    assert!(placed[0].path().is_root());
    assert!(placed.is_sorted_by(|one, other| one.path() < other.path()), "paths ascend");
    let inodes: BTreeMap<&TreePath, &Placed<u64>> =
        placed.iter().map(|placed| (placed.path(), placed)).collect();
    for placed in &placed {
        if let Some(parent) = placed.path().parent() {
            let is_directory = |placed: &Placed<u64>| matches!(placed, Placed::Inode { member, .. } if member.kind == MemberKind::Directory);
            assert!(inodes.get(&parent).is_some_and(|parent| is_directory(parent)), "{}", placed.path());
        }
        match placed {
            Placed::HardLink { path, first } => {
                let links = |placed: &Placed<u64>| matches!(placed, Placed::Inode { links, .. } if links.contains(path));
                assert!(inodes.get(first).is_some_and(|first| links(first)), "{path}");
            }
            Placed::Inode { member, links } => {
                assert!(!matches!(member.kind, MemberKind::HardLink(_)), "{}", member.path);
                assert!(links.is_sorted_by(|one, other| one < other), "{}", member.path);
                assert!(
                    links.iter().all(|path| *path > member.path && inodes.contains_key(path)),
                    "{}",
                    member.path
                );
            }
        }
    }
}
