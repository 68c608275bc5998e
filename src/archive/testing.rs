//! What the tests of this module share: archives from raw 512-byte headers, made without any tar library, and
//! generated members.

use std::io::Write;
use std::ops::Range;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::{Limits, Member, MemberKind, Piece, Reader, TarSummary};
use crate::error::Result;
use crate::path::TreePath;
use crate::tree::entry::Timestamp;

/// A header under construction, in any form.
#[derive(Clone)]
pub(super) struct Raw([u8; 512]);

impl Raw {
    /// A v7 header: no magic.
    pub(super) fn v7(flag: u8, name: &[u8]) -> Self {
        let empty = Self([0; 512]).at(156, &[flag]).at(0, name).octal(100, 8, 0o644);
        empty.octal(108, 8, 0).octal(116, 8, 0).octal(124, 12, 0).octal(136, 12, 0)
    }

    pub(super) fn ustar(flag: u8, name: &[u8]) -> Self {
        Self::v7(flag, name).at(257, b"ustar\x0000")
    }

    pub(super) fn gnu(flag: u8, name: &[u8]) -> Self {
        Self::v7(flag, name).at(257, b"ustar  \0")
    }

    /// Bytes anywhere.
    pub(super) fn at(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn octal(self, offset: usize, width: usize, value: u64) -> Self {
        let text = format!("{value:0digits$o}\0", digits = width - 1);
        self.at(offset, text.as_bytes())
    }

    /// Base 256 in two's complement.
    pub(super) fn binary(self, offset: usize, width: usize, value: i128) -> Self {
        let mut bytes = value.to_be_bytes()[16 - width..].to_vec();
        bytes[0] |= 0x80;
        self.at(offset, &bytes)
    }

    pub(super) fn size(self, size: u64) -> Self {
        self.octal(124, 12, size)
    }

    pub(super) fn link(self, target: &[u8]) -> Self {
        self.at(157, target)
    }

    /// The header with its checksum.
    pub(super) fn bytes(mut self) -> Vec<u8> {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.octal(148, 7, sum).0.to_vec()
    }

    /// The block as it is.
    pub(super) fn unsummed(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// The header with this size, and the body.
    pub(super) fn with(self, body: &[u8]) -> Vec<u8> {
        [self.size(body.len() as u64).bytes(), padded(body)].concat()
    }
}

/// A body, padded to a block.
pub(super) fn padded(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(512), 0);
    body
}

/// An extended header with these records.
pub(super) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    Raw::ustar(b'x', b"PaxHeaders/x").with(&pax_body(records))
}

pub(super) fn pax_body(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let len = (rest + 1..rest + 20).find(|len| rest + len.to_string().len() == *len).unwrap();
        body.extend([format!("{len} {key}=").as_bytes(), *value, &b"\n"[..]].concat());
    }
    body
}

/// The parts and two zero blocks.
pub(super) fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), vec![0; 1024]].concat()
}

/// A file's content as it was read: data where it was, neighbours joined; all else is holes.
pub(super) type Data = Vec<(u64, Vec<u8>)>;

/// Everything in an archive, however large its files say they are.
pub(super) fn read(archive: &[u8]) -> Result<Vec<(Member, Data)>> {
    read_within(archive, Limits { logical_bytes_max: u64::MAX, ..Limits::default() })
        .map(|(members, _)| members)
}

pub(super) fn read_within(archive: &[u8], limits: Limits) -> Result<(Vec<(Member, Data)>, TarSummary)> {
    let mut reader = Reader::new(archive, limits)?;
    let mut members = Vec::new();
    while let Some(member) = reader.next()? {
        let data = read_body(&mut reader)?;
        members.push((member, data));
    }
    Ok((members, reader.finish()?))
}

fn read_body(reader: &mut Reader<&[u8]>) -> Result<Data> {
    let mut data = Data::new();
    let mut buffer = [0; 700];
    let mut position = 0;
    loop {
        match reader.next_piece(&mut buffer)? {
            Piece::End => return Ok(data),
            Piece::Hole(len) => position += len,
            Piece::Data(len) => {
                match data.last_mut().filter(|(start, bytes)| start + bytes.len() as u64 == position) {
                    Some((_, bytes)) => bytes.extend(&buffer[..len]),
                    None => data.push((position, buffer[..len].to_vec())),
                }
                position += len as u64;
            }
        }
    }
}

/// The only member of an archive, and its data.
pub(super) fn only(archive: &[u8]) -> (Member, Data) {
    let mut members = read(archive).unwrap();
    assert_eq!(members.len(), 1);
    members.remove(0)
}

pub(super) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

pub(super) fn member<F>(text: &str, kind: MemberKind<F>) -> Member<F> {
    let mtime = Timestamp::default();
    Member { path: path(text), mode: 0o644, uid: 0, gid: 0, mtime, xattrs: Vec::new(), kind }
}

/// Ranges of data of some file and the file's size.
pub(super) fn layout() -> impl Strategy<Value = (Vec<Range<u64>>, u64)> {
    let run = (prop_oneof![Just(0), 1..2000_u64, 1..1_u64 << 40], 1..3000_u64);
    let tail = prop_oneof![Just(0), 1..1_u64 << 33];
    (prop::collection::vec(run, 0..6), tail).prop_map(|(runs, tail)| {
        let mut data: Vec<Range<u64>> = Vec::new();
        let mut end = 0;
        for (hole, len) in runs {
            let start = end + hole;
            end = start + len;
            match data.last_mut().filter(|last| last.end == start) {
                Some(last) => last.end = end,
                None => data.push(start..end),
            }
        }
        (data, end + tail)
    })
}

fn any_path() -> impl Strategy<Value = TreePath> {
    let odd = any::<u8>().prop_filter("separators", |byte| !matches!(byte, 0 | b'/'));
    let component = prop_oneof![
        prop::collection::vec(odd, 1..20),
        prop::collection::vec(b'a'..=b'z', 1..255),
        Just(b"a".to_vec())
    ];
    prop::collection::vec(component, 1..6).prop_filter_map("dots", |components| {
        TreePath::parse(&components.join(&b'/')).ok().filter(|path| !path.is_root())
    })
}

fn target() -> impl Strategy<Value = Box<[u8]>> {
    prop::collection::vec(1_u8.., 1..300).prop_map(Vec::into_boxed_slice)
}

fn big() -> impl Strategy<Value = u32> {
    prop_oneof![0..70_000_u32, 0..u32::MAX]
}

/// Any member, and where its data is.
pub(super) fn any_member() -> impl Strategy<Value = (Member, Vec<Range<u64>>)> {
    let bodiless = prop_oneof![
        Just(MemberKind::Directory),
        Just(MemberKind::Fifo),
        any_path().prop_map(MemberKind::HardLink),
        target().prop_map(MemberKind::Symlink),
        (big(), big()).prop_map(|(major, minor)| MemberKind::CharDevice { major, minor }),
        (big(), big()).prop_map(|(major, minor)| MemberKind::BlockDevice { major, minor }),
    ];
    let kind = prop_oneof![
        bodiless.prop_map(|kind| (kind, Vec::new())),
        layout().prop_map(|(data, size)| (MemberKind::File(size), data)),
    ];
    let time = (prop_oneof![0..1_i64 << 33, any::<i64>()], prop_oneof![Just(0), 0..1_000_000_000_u32]);
    let xattr = (prop::collection::vec(1_u8.., 1..40), prop::collection::vec(any::<u8>(), 0..700));
    let xattrs = prop::collection::btree_map(xattr.0, xattr.1, 0..4);
    (any_path(), 0..0o10000_u16, big(), big(), time, xattrs, kind).prop_map(
        |(path, mode, uid, gid, (seconds, nanos), xattrs, (kind, data))| {
            let mtime = Timestamp { seconds, nanos };
            (Member { path, mode, uid, gid, mtime, xattrs: xattrs.into_iter().collect(), kind }, data)
        },
    )
}

/// Bytes that differ by where they are, none of them zero.
pub(super) fn pattern(range: &Range<u64>) -> Vec<u8> {
    range.clone().map(|at| u8::try_from(at % 251).unwrap() + 1).collect()
}

/// Runs a program on `input` and gives its output; it must succeed.
pub(super) fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// Whether tests that need the system's programs are to run; a missing program is then a failure.
pub(super) fn system_tests() -> bool {
    let wanted = std::env::var_os("LAYERSTONE_SYSTEM_TESTS").is_some_and(|value| value == "1");
    if !wanted {
        println!("not run: set LAYERSTONE_SYSTEM_TESTS=1 to run it with the system's tar");
    }
    wanted
}
