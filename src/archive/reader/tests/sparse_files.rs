//! Sparse files in all forms, and bombs made of them.

use super::*;
use crate::archive::testing::{Data, padded};

/// An old GNU sparse file: four pieces in the header, the rest in blocks of 21.
fn old(pieces: &[(u64, u64)], size: u64, body: &[u8]) -> Vec<u8> {
    let (first, rest) = pieces.split_at(pieces.len().min(4));
    let put = |raw: Raw, start: usize, pieces: &[(u64, u64)]| {
        pieces.iter().enumerate().fold(raw, |raw, (at, (offset, len))| {
            raw.binary(start + at * 24, 12, (*offset).into()).binary(start + at * 24 + 12, 12, (*len).into())
        })
    };
    let header = put(Raw::gnu(b'S', b"e"), 386, first).binary(483, 12, size.into());
    let header = header.at(482, &[u8::from(!rest.is_empty())]).size(body.len() as u64);
    let mut bytes = header.bytes();
    let blocks = rest.chunks(21);
    let count = blocks.len();
    for (number, block) in blocks.enumerate() {
        let empty = Raw::v7(0, b"").at(0, &[0; 512]);
        let more = u8::from(number + 1 < count);
        // No checksum here, so the block must be cut from a header without one.
        let block = put(empty, 0, block).at(504, &[more]);
        bytes.extend(block.unsummed());
    }
    bytes.extend(padded(body));
    bytes
}

fn pax_0_0(pieces: &[(&str, &str)], size: &str, body: &[u8]) -> Vec<u8> {
    let count = pieces.len().to_string();
    let mut records = vec![("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.numblocks", count.as_bytes())];
    for (offset, len) in pieces {
        records.push(("GNU.sparse.offset", offset.as_bytes()));
        records.push(("GNU.sparse.numbytes", len.as_bytes()));
    }
    [pax(&records), file(b"e").with(body)].concat()
}

fn pax_0_1(map: &str, size: &str, body: &[u8]) -> Vec<u8> {
    let records = [("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())];
    [pax(&records), file(b"e").with(body)].concat()
}

fn pax_1_0(map: &str, size: &str, body: &[u8]) -> Vec<u8> {
    let records = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"e"),
        ("GNU.sparse.realsize", size.as_bytes()),
    ];
    [pax(&records), file(b"GNUSparseFile.0/e").with(&[padded(map.as_bytes()), body.to_vec()].concat())]
        .concat()
}

/// A block of `a`, then what is given.
fn block_and(rest: &str) -> Vec<u8> {
    [&[b'a'; 512], rest.as_bytes()].concat()
}

#[test]
fn every_form_says_the_same() {
    let wanted: Data = vec![(10, vec![b'a'; 512]), (2000, b"de".to_vec())];
    let body = block_and("de");
    for bytes in [
        old(&[(10, 512), (2000, 2), (3000, 0)], 3000, &body),
        pax_0_0(&[("10", "512"), ("2000", "2")], "3000", &body),
        pax_0_1("10,512,2000,2,3000,0", "3000", &body),
        pax_1_0("3\n10\n512\n2000\n2\n3000\n0\n", "3000", &body),
    ] {
        let (found, data) = only(&archive(&[bytes]));
        assert_eq!((found, data), (member("e", MemberKind::File(3000)), wanted.clone()));
    }
}

#[test]
fn holes_come_as_holes() {
    let bytes = archive(&[pax_0_1("10,512,600,3", "1000", &block_and("abc")), file(b"f").bytes()]);
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    reader.next().unwrap();
    let mut buffer = [0; 500];
    let pieces: Vec<_> = (0..8).map(|_| reader.next_piece(&mut buffer).unwrap()).collect();
    let (hole, data) = (Piece::Hole, Piece::Data);
    assert_eq!(pieces, [hole(10), data(500), data(12), hole(78), data(3), hole(397), Piece::End, Piece::End]);
    assert_eq!(reader.next().unwrap().unwrap().path, path("f"));
}

#[test]
fn empty_and_whole_maps() {
    for (bytes, size) in [
        (pax_0_1("", "500", b""), 500),
        (pax_0_0(&[], "500", b""), 500),
        (pax_1_0("0\n", "500", b""), 500),
        (old(&[], 500, b""), 500),
        (old(&[(0, 3)], 3, b"abc"), 3),
    ] {
        assert_eq!(only(&archive(&[bytes])).0.kind, MemberKind::File(size));
    }
}

#[test]
fn many_old_pieces_go_on_in_further_blocks() {
    for count in [4_usize, 5, 25, 26, 60] {
        let body = vec![7; count * 512];
        let count = count as u64;
        let pieces: Vec<_> = (0..count).map(|number| (number * 1000, 512)).collect();
        let (found, data) = only(&archive(&[old(&pieces, count * 1000, &body)]));
        assert_eq!((found.kind, data.len() as u64), (MemberKind::File(count * 1000), count));
    }
}

#[test]
fn maps_that_do_not_fit() {
    let big = 1 << 40;
    for (pieces, size) in [
        (vec![(0, 3), (50, 2)], 100),  // a broken block before more
        (vec![(10, 3), (12, 2)], 100), // overlap
        (vec![(50, 3), (10, 2)], 100), // order
        (vec![(98, 5)], 100),          // beyond the end
        (vec![(101, 0), (0, 5)], 100),
        (vec![(0, 4)], 100), // less than is stored
        (vec![(0, 6)], 100), // more than is stored
        (vec![(big, big)], big),
        (vec![(big, 5)], big),
    ] {
        malformed(&[old(&pieces, size, b"abcde")], "map does not fit");
        let map: Vec<_> = pieces.iter().map(|(offset, len)| format!("{offset},{len}")).collect();
        malformed(&[pax_0_1(&map.join(","), &size.to_string(), b"abcde")], "map does not fit");
        let map: Vec<_> = pieces.iter().map(|(offset, len)| format!("{offset}\n{len}\n")).collect();
        let map = format!("{}\n{}", map.len(), map.concat());
        malformed(&[pax_1_0(&map, &size.to_string(), b"abcde")], "map does not fit");
    }
}

#[test]
fn whole_blocks_that_overlap_or_go_back() {
    let body = block_and("de");
    for (first, second) in [(1000, 1511), (1000, 100), (1000, 0), (1000, 1000)] {
        malformed(&[old(&[(first, 512), (second, 2)], 3000, &body)], "map does not fit");
        malformed(&[pax_0_1(&format!("{first},512,{second},2"), "3000", &body)], "map does not fit");
        malformed(&[pax_1_0(&format!("2\n{first}\n512\n{second}\n2\n"), "3000", &body)], "map does not fit");
    }
    assert_eq!(only(&archive(&[old(&[(1000, 512), (1512, 2)], 3000, &body)])).1.len(), 1);
}

#[test]
fn malformed_maps() {
    for map in ["1,2,3", "1,", "-1,5", "1;5", "18446744073709551616,1", "9223372036854775808,1"] {
        malformed(&[pax_0_1(map, "100", b"abcde")], "GNU.sparse.map");
    }
    malformed(&[pax_0_0(&[("-1", "5")], "100", b"abcde")], "GNU.sparse.offset");
    malformed(&[pax_0_0(&[("1", "-5")], "100", b"abcde")], "GNU.sparse.numbytes");
    malformed(&[pax_0_0(&[("0", "5")], "-100", b"abcde")], "GNU.sparse.size");
    for map in ["1\n-1\n5\n", "x\n", "\n", "1\n\n0\n5\n", "18446744073709551616\n", "1\n0 5\n"] {
        malformed(&[pax_1_0(map, "100", b"abcde")], "map is malformed");
    }
    malformed(&[pax_1_0(&"0".repeat(600), "100", b"")], "map is malformed");
    let unfinished =
        [pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"5")]), file(b"e").with(&[b'0'; 1024])];
    malformed(&unfinished, "map goes beyond its body");
    malformed(&[pax_1_0("", "100", b"abcde")], "map goes beyond its body");
    let record = |records: &[(&str, &[u8])]| vec![pax(records), file(b"e").bytes()];
    malformed(&record(&[("GNU.sparse.map", b"0,0")]), "without its real size");
    malformed(&record(&[("GNU.sparse.size", b"5"), ("GNU.sparse.offset", b"0")]), "incomplete");
    malformed(&record(&[("GNU.sparse.size", b"5"), ("GNU.sparse.numblocks", b"1")]), "incomplete");
    malformed(&record(&[("GNU.sparse.numbytes", b"5")]), "GNU.sparse.numbytes");
    malformed(&record(&[("GNU.sparse.name", b"a\0b"), ("GNU.sparse.size", b"0")]), "zero byte");
    malformed(&[pax(&[("GNU.sparse.size", b"5")]), Raw::ustar(b'5', b"e").bytes()], "no regular file");
    let version = record(&[("GNU.sparse.major", b"2"), ("GNU.sparse.size", b"5")]);
    refused(&archive(&version), ErrorKind::Unsupported, "version 2.0");

    malformed(&[Raw::ustar(b'S', b"e").bytes()], "not in GNU form");
    malformed(&[Raw::gnu(b'S', b"e").binary(483, 12, -1).bytes()], "real size is out of range");
    let negative = Raw::gnu(b'S', b"e").binary(386, 12, -1).binary(398, 12, 5).size(5);
    malformed(&[negative.bytes()], "sparse offset is out of range");
    malformed(&[Raw::gnu(b'S', b"e").at(482, &[1]).bytes(), vec![0; 512]], "goes on after its end");
    let cut = old(&[(0, 1); 30], 100, b"");
    refused(&cut[..600], ErrorKind::Invalid, "cut short");
}

#[test]
fn bombs() {
    let quota = ErrorKind::QuotaExceeded;
    let pieces: Vec<_> = (0..10_001).map(|number| (number * 1000, 512)).collect();
    let count = |count: usize| old(&pieces[..count], 10_001_000, &vec![1; count * 512]);
    assert_eq!(only(&archive(&[count(10_000)])).1.len(), 10_000);
    refused(&archive(&[count(10_001)]), quota, "sparse_pieces_max");
    let map = |count: usize| vec!["0,0"; count].join(",");
    assert_eq!(only(&archive(&[pax_0_1(&map(10_000), "5", b"")])).1, []);
    refused(&archive(&[pax_0_1(&map(10_001), "5", b"")]), quota, "sparse_pieces_max");
    // The count alone is enough: nothing is allocated for it.
    refused(&archive(&[pax_1_0("18446744073709551615\n", "5", b"")]), quota, "sparse_pieces_max");
    let large = 1_u64 << 62;
    for bytes in
        [old(&[], large, b""), pax_0_1("", &large.to_string(), b""), pax_1_0("0\n", &large.to_string(), b"")]
    {
        refused(&archive(&[bytes]), quota, "logical_bytes_max");
    }
    // Sizes add up, without overflow.
    let limits = Limits { logical_bytes_max: u64::MAX - 1, ..Limits::default() };
    let most = (u64::MAX >> 1).to_string();
    let three = vec![pax_0_1("", &most, b""); 3].concat();
    refused_within(&archive(&[three]), limits, quota, "logical_bytes_max");
}
