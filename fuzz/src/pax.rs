//! Any bytes as the records of an extended header, in front of an entry of some kind.

use super::tar::{check_archive, with_checksums};

/// The kinds of entry that records can be about, and what a body each has.
const ENTRIES: [(u8, &[u8]); 6] =
    [(b'0', b"0123456789"), (b'0', SPARSE_MAP), (b'1', b""), (b'2', b""), (b'3', b""), (b'5', b"")];
/// The map of a sparse file in PAX format 1.0: one piece of 4 bytes at 512. The pieces follow in a block of their own.
const SPARSE_MAP: &[u8] = b"1\n512\n4\n";

/// The first byte chooses the entry and, by its top bit, a global header.
pub fn check(bytes: &[u8]) -> bool {
    let Some((choice, records)) = bytes.split_first() else { return false };
    let (kind, body) = ENTRIES[usize::from(choice & 0x7f) % ENTRIES.len()];
    let flag = if choice & 0x80 == 0 { b'x' } else { b'g' };
    let body = if body == SPARSE_MAP { [padded(body), b"data".to_vec()].concat() } else { body.to_vec() };
    let mut archive = header(b'5', b"./", 0);
    archive.extend(header(b'0', b"target", 0));
    archive.extend(header(flag, b"PaxHeaders/name", records.len()));
    archive.extend(padded(records));
    archive.extend(header(kind, b"name", body.len()));
    archive.extend(padded(&body));
    archive.extend([0; 1024]);
    check_archive(&with_checksums(&archive))
}

fn header(flag: u8, name: &[u8], size: usize) -> Vec<u8> {
    let mut block = vec![0; 512];
    let octal = format!("{size:011o}");
    let fields: [(usize, &[u8]); 7] = [
        (0, name),
        (100, b"0000644"),
        (124, octal.as_bytes()),
        (136, b"00000000000"),
        (156, &[flag]),
        (157, b"target"),
        (257, b"ustar\x0000"),
    ];
    for (offset, bytes) in fields {
        block[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    block
}

fn padded(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(512), 0);
    body
}
