//! Archives that must be refused, and what they must not cost.

use super::*;
use crate::archive::testing::padded;

fn long(flag: u8, text: &[u8]) -> Vec<u8> {
    Raw::gnu(flag, b"././@LongLink").with(text)
}

#[test]
fn names() {
    for name in [&b"../x"[..], b"a/../../x", b"a/..", b"..", b"/.."] {
        malformed(&[file(name).bytes()], "'..'");
        malformed(&[pax(&[("path", name)]), file(b"e").bytes()], "'..'");
        malformed(&[long(b'L', name), file(b"e").bytes()], "'..'");
        malformed(&[Raw::ustar(b'1', b"e").link(name).bytes()], "'..'");
    }
    assert_eq!(only(&archive(&[file(b"/etc/x").bytes()])).0.path, path("etc/x"));
    assert_eq!(only(&archive(&[file(b"/..a/...").bytes()])).0.path, path("..a/..."));
    malformed(&[file(b"").bytes()], "empty name");
    malformed(&[Raw::ustar(b'1', b"e").bytes()], "empty link target");
    malformed(&[Raw::ustar(b'2', b"e").bytes()], "without a target");
    malformed(&[pax(&[("path", b"a\0b")]), file(b"e").bytes()], "zero byte");
    malformed(&[pax(&[("linkpath", b"a\0b")]), Raw::ustar(b'2', b"e").bytes()], "zero byte");
    malformed(&[long(b'L', b"a\0b\0"), file(b"e").bytes()], "zero byte");
    malformed(&[pax(&[("path", &[b'x'; 256])]), file(b"e").bytes()], "255 bytes");
    malformed(&[pax(&[("path", "x/".repeat(2049).as_bytes())]), file(b"e").bytes()], "4095 bytes");
    malformed(&[pax(&[("path", "x/".repeat(100_000).as_bytes())]), file(b"e").bytes()], "4095 bytes");
    malformed(&[pax(&[("linkpath", &[b'x'; 4096])]), Raw::ustar(b'2', b"e").bytes()], "4095 bytes");
}

#[test]
fn errors_name_the_entry_in_escaped_form() {
    let error = read(&archive(&[Raw::ustar(b'1', b"a\x1b[31m\n").link(b"..").bytes()])).unwrap_err();
    assert_eq!(*error.subject(), Subject::ArchiveEntry("a\\u{1b}[31m\\n".into()));
    let error = read(&archive(&[pax(&[("path", &vec![b'x'; 100_000])]), file(b"e").bytes()])).unwrap_err();
    assert!(error.to_string().len() < 1000);
}

#[test]
fn numbers() {
    let sizes = [-1, i128::from(i64::MAX) + 1, 1 << 64, (1 << 64) + 5];
    for size in sizes {
        malformed(&[file(b"e").binary(124, 12, size).bytes()], "size is out of range");
        malformed(&[Raw::gnu(b'L', b"e").binary(124, 12, size).bytes()], "size is out of range");
        malformed(&[pax(&[("size", size.to_string().as_bytes())]), file(b"e").bytes()], "'size'");
    }
    malformed(&[file(b"e").at(124, b"-0000000001\0").bytes()], "size field is not a number");
    malformed(&[file(b"e").at(124, b"00000000008\0").bytes()], "size field is not a number");
    // The kernel takes 2^32 - 1 for "no change": a file with setuid would stay root's.
    for owner in [-1, (1 << 32) - 1, 1 << 32, (1 << 56) - 1 - (1 << 55)] {
        malformed(&[file(b"e").binary(108, 8, owner).bytes()], "uid is out of range");
        malformed(&[file(b"e").binary(116, 8, owner).bytes()], "gid is out of range");
        malformed(&[pax(&[("uid", owner.to_string().as_bytes())]), file(b"e").bytes()], "'uid'");
        malformed(&[pax(&[("gid", owner.to_string().as_bytes())]), file(b"e").bytes()], "'gid'");
    }
    for seconds in [i128::from(i64::MAX) + 1, i128::from(i64::MIN) - 1] {
        malformed(&[file(b"e").binary(136, 12, seconds).bytes()], "mtime is out of range");
        malformed(&[pax(&[("mtime", seconds.to_string().as_bytes())]), file(b"e").bytes()], "'mtime'");
    }
    for seconds in [i64::MAX, i64::MIN] {
        let (found, _) = only(&archive(&[file(b"e").binary(136, 12, seconds.into()).bytes()]));
        assert_eq!(found.mtime.seconds, seconds);
    }
    malformed(&[Raw::gnu(b'3', b"e").binary(329, 8, 1 << 32).bytes()], "device major is out of range");
    malformed(&[Raw::gnu(b'4', b"e").binary(337, 8, -1).bytes()], "device minor is out of range");
    malformed(&[Raw::v7(b'3', b"e").bytes()], "no device numbers");
}

#[test]
fn sizes_where_programs_disagree() {
    // GNU tar reads a body, bsdtar none.
    for flag in *b"2346" {
        malformed(&[Raw::ustar(flag, b"e").link(b"t").size(512).bytes(), vec![0; 512]], "must be 0");
        malformed(&[pax(&[("size", b"1")]), Raw::ustar(flag, b"e").link(b"t").bytes()], "must be 0");
    }
    // bsdtar reads a body since PAX records came by, GNU tar none.
    let link = Raw::ustar(b'1', b"e").link(b"t").size(9);
    malformed(&[pax(&[("mtime", b"1.5")]), link.clone().bytes()], "must be 0");
    malformed(&[pax(&[("mtime", b"1.5")]), file(b"f").bytes(), link.bytes()], "must be 0");
    malformed(&[file(b"e/").with(b"body")], "must be 0");
}

/// Old programs write the file's size, and no body; in PAX form, a body whose size PAX says is the file's.
#[test]
fn sizes_of_hard_links_where_programs_agree() {
    let after = || file(b"after").with(b"Z");
    let kind = MemberKind::HardLink(path("a"));
    for raw in [Raw::v7, Raw::ustar, Raw::gnu] {
        let link = raw(b'1', b"l").link(b"a").size(9);
        let members = read(&archive(&[file(b"a").with(b"A"), link.bytes(), after()])).unwrap();
        assert_eq!((members.len(), &members[1].0.kind), (3, &kind));
    }
    let link = Raw::ustar(b'1', b"l").link(b"a");
    let body = padded(&[b'A'; 600]);
    let parts = [file(b"a").with(b"A"), pax(&[("size", b"600")]), link.bytes(), body, after()];
    let members = read(&archive(&parts)).unwrap();
    assert_eq!((members.len(), &members[1].0.kind), (3, &kind));
    let mut cut = parts[..3].concat();
    cut.extend([b'A'; 512]);
    refused(&cut, ErrorKind::Invalid, "cut short");
}

/// Each as GNU tar 1.34 and bsdtar 3.6.2 read it; what one of them refuses is refused.
#[test]
fn numbers_as_gnu_tar_and_bsdtar_read_them() {
    for (field, mode) in
        [(&b"\xff\xff\xff\xff\xff\xff\xff\xff"[..], 0o7777), (b"77777777", 0o7777), (b"0100644\0", 0o644)]
    {
        assert_eq!(only(&archive(&[file(b"e").at(100, field).bytes()])).0.mode, mode);
    }
    for field in [&b"-0000001750\0"[..], b"       -1750", b"+1750\0\0\0\0\0\0\0"] {
        malformed(&[file(b"e").at(136, field).bytes()], "mtime field is not a number");
    }
    assert_eq!(only(&archive(&[file(b"e").at(136, b"       1750\0").bytes()])).0.mtime.seconds, 1000);
    malformed(&[file(b"e").at(108, b"-2\0\0\0\0\0\0").bytes()], "uid field is not a number");
    for uid in [-2, -1, -32_768, u32::MAX.into(), 1 << 32] {
        malformed(&[file(b"e").binary(108, 8, uid).bytes()], "uid is out of range");
    }
    for (value, nanos) in [(&b"1.5\0"[..], 500_000_000), (b"1e9", 0), (b"1 ", 0)] {
        let found = only(&archive(&[pax(&[("mtime", value)]), file(b"e").bytes()])).0;
        assert_eq!((found.mtime.seconds, found.mtime.nanos), (1, nanos), "{value:?}");
    }
    assert_eq!(only(&archive(&[pax(&[("uid", b"5\0")]), file(b"e").bytes()])).0.uid, 5);
    for (key, value) in
        [("mtime", ".5"), ("mtime", "+5"), ("mtime", " 5"), ("uid", "5 "), ("uid", "+5"), ("uid", "-2")]
    {
        malformed(&[pax(&[(key, value.as_bytes())]), file(b"e").bytes()], key);
    }
    let text = b"user::rw-\nuser:7:r--\ngroup::r--\nmask::r--\nother::---\n\0";
    let acl = only(&archive(&[pax(&[("SCHILY.acl.access", text)]), file(b"e").bytes()])).0.xattrs;
    assert_eq!(acl.len(), 1);
}

#[test]
fn types_without_meaning() {
    for flag in *b"NAIEz89\xff" {
        refused(&archive(&[Raw::gnu(flag, b"e").bytes()]), ErrorKind::Unsupported, "has the type");
    }
}

#[test]
fn checksums() {
    let mut bytes = archive(&[file(b"e").bytes()]);
    bytes[0] ^= 1;
    refused(&bytes, ErrorKind::Invalid, "checksum is wrong");
    let mut bytes = archive(&[file(b"e").bytes()]);
    bytes[148..156].fill(b'x');
    refused(&bytes, ErrorKind::Invalid, "checksum field is not a number");
}

#[test]
fn an_extended_header_that_is_refused_is_named_by_its_entry() {
    let bad = || Raw::ustar(b'x', b"././@PaxHeader").with(&pax_body(&[("mtime", b"x.1")]));
    let both = Raw::ustar(b'x', b"././@PaxHeader").with(&pax_body(&[("path", b"long/e"), ("mtime", b"x.1")]));
    let cases = [
        (vec![bad(), file(b"dir/e").bytes()], "dir/e"),
        (vec![both, file(b"cut").bytes()], "long/e"),
        (vec![long(b'L', b"gnu/e"), bad(), file(b"cut").bytes()], "gnu/e"),
        (vec![bad(), long(b'L', b"gnu/e"), file(b"cut").bytes()], "././@PaxHeader"),
        (vec![bad()], "././@PaxHeader"),
    ];
    for (parts, name) in cases {
        let error = read(&archive(&parts)).unwrap_err();
        assert_eq!(*error.subject(), Subject::ArchiveEntry(name.into()), "{error}");
        assert!(error.to_string().contains("its PAX 'mtime' is malformed"), "{error}");
    }
}

#[test]
fn the_rest_of_a_file_of_an_earlier_volume_is_named_as_such() {
    let rest = Raw::gnu(b'M', b"large").with(b"rest");
    refused(&archive(&[rest]), ErrorKind::Unsupported, "unpack all volumes together");
    // So in the PAX form, whose first volume may have a label.
    let global = |records: &[(&str, &[u8])]| Raw::ustar(b'g', b"h").with(&pax_body(records));
    let rest =
        [("GNU.volume.filename", &b"large"[..]), ("GNU.volume.size", b"4"), ("GNU.volume.offset", b"8")];
    let part = file(b"GNUFileParts/large.2").with(b"rest");
    refused(&archive(&[global(&rest), part]), ErrorKind::Unsupported, "unpack all volumes together");
    let label = global(&[("GNU.volume.label", b"x Volume 1")]);
    assert_eq!(read(&archive(&[label, file(b"e").bytes()])).unwrap().len(), 1);
}

#[test]
fn pax_headers() {
    for body in [&b"6 a=b"[..], b"7 a=b\n", b"x", b"18446744073709551616 a=b\n", b"5 a=b\n", b"6 a=b\n\0"] {
        malformed(&[Raw::ustar(b'x', b"h").with(body), file(b"e").bytes()], "PAX header is malformed");
        malformed(&[Raw::ustar(b'g', b"h").with(body), file(b"e").bytes()], "PAX header is malformed");
    }
    for (key, value) in [("uid", "x"), ("size", "1.5"), ("mtime", "x.1"), ("SCHILY.devmajor", "4294967296")] {
        malformed(&[pax(&[(key, value.as_bytes())]), file(b"e").bytes()], key);
    }
    malformed(&[pax(&[("LIBARCHIVE.xattr.a", b"!")]), file(b"e").bytes()], "LIBARCHIVE");
    malformed(&[pax(&[("SCHILY.xattr.", b"v")]), file(b"e").bytes()], "without a name");
    for key in ["path", "linkpath", "size", "SCHILY.xattr.a", "GNU.sparse.size"] {
        malformed(
            &[Raw::ustar(b'g', b"h").with(&pax_body(&[(key, b"1")]))],
            "only makes sense for one entry",
        );
    }
    let global = Raw::ustar(b'g', b"h").with(&pax_body(&[("uid", b"1")]));
    malformed(
        &[pax(&[("path", b"p")]), global, file(b"e").bytes()],
        "between an extended header and its entry",
    );
    for dangling in [pax(&[("path", b"p")]), long(b'L', b"l"), long(b'K', b"k")] {
        refused(&archive(std::slice::from_ref(&dangling)), ErrorKind::Invalid, "before its entry");
        refused(&dangling, ErrorKind::Invalid, "before its entry");
    }
}

/// Claims of sizes that are not there cost nothing: no test machine could allocate them.
#[test]
fn claimed_sizes_are_not_allocated() {
    for flag in *b"xXgLK" {
        for size in [512 << 20, (1 << 33) - 1] {
            let bytes = archive(&[Raw::gnu(flag, b"e").size(size).bytes()]);
            refused(&bytes, ErrorKind::QuotaExceeded, "header_bytes_max");
        }
        refused(&archive(&[Raw::gnu(flag, b"e").size(1 << 20).bytes()]), ErrorKind::Invalid, "cut short");
    }
    let claim = file(b"e").binary(124, 12, i64::MAX.into()).bytes();
    refused(&claim, ErrorKind::QuotaExceeded, "logical_bytes_max");
    let limits = Limits { logical_bytes_max: u64::MAX, ..Limits::default() };
    refused_within(&claim, limits.clone(), ErrorKind::Invalid, "9223372036854775807 bytes before");
    let mut reader = Reader::new(&claim[..], limits).unwrap();
    reader.next().unwrap();
    assert!(reader.next().unwrap_err().to_string().contains("cut short"));
}

#[test]
fn floods() {
    let flood = |part: Vec<u8>| archive(&[vec![part; 17].concat(), file(b"e").bytes()]);
    for part in [pax(&[("path", b"p")]), long(b'L', b"l"), long(b'K', b"k"), Raw::gnu(b'V', b"v").bytes()] {
        refused(&flood(part.clone()), ErrorKind::QuotaExceeded, "pending_headers_max");
        assert_eq!(read(&archive(&[vec![part; 16].concat(), file(b"e").bytes()])).unwrap().len(), 1);
    }
    let global = Raw::ustar(b'g', b"g").with(&pax_body(&[("uid", b"1")]));
    refused(&flood(global), ErrorKind::QuotaExceeded, "pending_headers_max");

    let names: Vec<_> = (0..1025).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let records: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let many = |count: usize| archive(&[pax(&records[..count]), file(b"e").bytes()]);
    assert_eq!(only(&many(1024)).0.xattrs.len(), 1024);
    refused(&many(1025), ErrorKind::QuotaExceeded, "xattrs_max");
    let large = pax(&[("SCHILY.xattr.user.a", &vec![0; (1 << 16) + 1])]);
    refused(&archive(&[large, file(b"e").bytes()]), ErrorKind::QuotaExceeded, "xattr_value_bytes_max");
    let name = format!("SCHILY.xattr.{}", "n".repeat(256));
    refused(
        &archive(&[pax(&[(&name, b"")]), file(b"e").bytes()]),
        ErrorKind::QuotaExceeded,
        "xattr_name_bytes_max",
    );
}

#[test]
fn budgets() {
    let bytes =
        archive(&[file(b"e").with(&[1; 600]), file(b"f").with(&[1; 600]), Raw::ustar(b'5', b"d").bytes()]);
    let (default, quota) = (Limits::default(), ErrorKind::QuotaExceeded);
    let exact = Limits {
        entries_max: 3,
        logical_bytes_max: 1200,
        stream_bytes_max: bytes.len() as u64,
        metadata_bytes_max: 3,
        ..default.clone()
    };
    assert_eq!(read_within(&bytes, exact.clone()).unwrap().1.entries, 3);
    refused_within(&bytes, Limits { entries_max: 2, ..default.clone() }, quota, "entries_max");
    refused_within(&bytes, Limits { logical_bytes_max: 1199, ..default.clone() }, quota, "logical_bytes_max");
    refused_within(&bytes, Limits { metadata_bytes_max: 2, ..default }, quota, "metadata_bytes_max");
    let longer = [&bytes[..], &[0]].concat();
    refused_within(&longer, exact, quota, "stream_bytes_max");
}

#[test]
fn cut_anywhere() {
    let bytes = [
        pax(&[("path", b"p"), ("SCHILY.xattr.user.a", &[7; 600])]),
        file(b"e").with(&[1; 700]),
        long(b'L', b"long"),
        file(b"f").with(&[2; 10]),
    ]
    .concat();
    let whole = bytes.len();
    for len in (1..whole).filter(|len| len % 512 != 0 || ![3584, whole].contains(len)) {
        let result = read(&bytes[..len]);
        // Only between two entries is an end an end.
        assert_eq!(result.is_ok(), len == 512 + 1024 + 512 + 1024, "{len}");
    }
    assert_eq!(read(&bytes).unwrap().len(), 2);
}

#[test]
fn after_an_error_it_stays_an_error() {
    let bytes = archive(&[file(b"..").bytes(), file(b"ok").bytes()]);
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    assert!(reader.next().is_err());
    assert!(reader.next().is_err());
    assert!(reader.next_piece(&mut [0]).is_err());
    assert!(reader.finish().is_err());
}

/// A source that fails is told from an archive that is bad.
#[test]
fn input_errors_are_io() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0 {
                0 => Err(std::io::Error::from_raw_os_error(5)),
                1 => {
                    self.0 = 2;
                    Err(std::io::ErrorKind::Interrupted.into())
                }
                _ => {
                    let len = buffer.len().min(self.0 - 1).min(100);
                    self.0 = if self.0 - len == 1 { 0 } else { self.0 - len };
                    buffer[..len].fill(0);
                    Ok(len)
                }
            }
        }
    }
    assert_eq!(Reader::new(Failing(0), Limits::default()).err().unwrap().kind(), ErrorKind::Io);
    let error = Reader::new(Failing(1), Limits::default()).err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::Io));
    let mut reader = Reader::new(Failing(600), Limits::default()).unwrap();
    assert_eq!(reader.next().unwrap_err().kind(), ErrorKind::Io);
    // A cut in the padding of the last body is a cut.
    let bytes = file(b"e").with(b"1");
    refused(&bytes[..bytes.len() - 1], ErrorKind::Invalid, "1 bytes before");
    assert_eq!(padded(b"1").len(), 512);
}
