//! What each header form says, and which form wins.

use super::*;

fn kinds(parts: &[Vec<u8>]) -> Vec<(String, MemberKind)> {
    let members = read(&archive(parts)).unwrap();
    members.into_iter().map(|(member, _)| (member.path.to_string(), member.kind)).collect()
}

#[test]
fn every_type() {
    let device = |flag| Raw::gnu(flag, b"d").octal(329, 8, 7).octal(337, 8, 300).bytes();
    let (major, minor) = (7, 300);
    for (part, kind) in [
        (file(b"d").bytes(), MemberKind::File(0)),
        (Raw::v7(0, b"d").bytes(), MemberKind::File(0)),
        (Raw::ustar(b'7', b"d").with(b"12"), MemberKind::File(2)),
        (Raw::ustar(b'1', b"d").link(b"./x").bytes(), MemberKind::HardLink(path("x"))),
        (Raw::ustar(b'2', b"d").link(b"../x/").bytes(), MemberKind::Symlink((*b"../x/").into())),
        (device(b'3'), MemberKind::CharDevice { major, minor }),
        (device(b'4'), MemberKind::BlockDevice { major, minor }),
        (Raw::v7(b'5', b"d").bytes(), MemberKind::Directory),
        (Raw::ustar(b'6', b"d").bytes(), MemberKind::Fifo),
        (Raw::v7(0, b"d/").bytes(), MemberKind::Directory),
        (file(b"d/").bytes(), MemberKind::Directory),
        (Raw::gnu(b'D', b"d/").with(&[b'Y'; 700]), MemberKind::Directory),
    ] {
        assert_eq!(
            kinds(&[part, file(b"next").bytes()]),
            [("/d".into(), kind), ("/next".into(), MemberKind::File(0))]
        );
    }
}

#[test]
fn a_directory_has_no_body_whatever_its_size() {
    let parts = [Raw::ustar(b'5', b"d").size(512).bytes(), file(b"inner").bytes()];
    assert_eq!(kinds(&parts).len(), 2);
    let parts = [pax(&[("size", b"512")]), Raw::ustar(b'5', b"d").bytes(), file(b"inner").bytes()];
    assert_eq!(kinds(&parts).len(), 2);
}

#[test]
fn names_in_every_form() {
    let long = "l".repeat(150);
    let with_zero = |text: &str| [text.as_bytes(), b"\0"].concat();
    for (parts, name) in [
        (vec![file(&[b'n'; 100]).bytes()], format!("/{}", "n".repeat(100))),
        (vec![file(b"name").at(345, b"pre/fix").bytes()], "/pre/fix/name".into()),
        // An odd version is still ustar; a GNU header has times where the prefix would be.
        (vec![file(b"name").at(263, b"\0\0").at(345, b"prefix").bytes()], "/prefix/name".into()),
        (vec![Raw::gnu(b'0', b"name").at(345, b"00000000001").bytes()], "/name".into()),
        (vec![file(b"/./a//b/.").bytes()], "/a/b".into()),
        (
            vec![Raw::gnu(b'L', b"././@LongLink").with(&with_zero(&long)), file(b"short").bytes()],
            format!("/{long}"),
        ),
        (
            vec![pax(&[("path", long.as_bytes())]), file(b"short").at(345, b"prefix").bytes()],
            format!("/{long}"),
        ),
        (
            vec![Raw::ustar(b'X', b"solaris").with(&pax_body(&[("path", b"p")])), file(b"short").bytes()],
            "/p".into(),
        ),
        (vec![file(b"a\n\xff").bytes()], "/a\\n\\xff".into()),
    ] {
        assert_eq!(kinds(&parts), [(name, MemberKind::File(0))]);
    }
}

#[test]
fn pax_wins_over_long_names_and_the_later_over_the_earlier() {
    let long = |text: &[u8]| Raw::gnu(b'L', b"././@LongLink").with(text);
    let link = Raw::gnu(b'K', b"././@LongLink").with(b"klink\0");
    for parts in [
        vec![pax(&[("path", b"pax")]), long(b"long"), file(b"f").bytes()],
        vec![long(b"long"), pax(&[("path", b"pax")]), file(b"f").bytes()],
        vec![pax(&[("path", b"one"), ("path", b"pax")]), file(b"f").bytes()],
        vec![pax(&[("path", b"one")]), pax(&[("path", b"pax")]), file(b"f").bytes()],
        vec![long(b"one"), long(b"pax"), file(b"f").bytes()],
    ] {
        assert_eq!(kinds(&parts), [("/pax".into(), MemberKind::File(0))]);
    }
    let target = |parts: &[Vec<u8>]| kinds(parts).remove(0).1;
    let symlink = Raw::gnu(b'2', b"s").link(b"short").bytes();
    assert_eq!(target(&[link.clone(), symlink.clone()]), MemberKind::Symlink((*b"klink").into()));
    let pax_link = pax(&[("linkpath", b"plink")]);
    assert_eq!(target(&[link, pax_link, symlink]), MemberKind::Symlink((*b"plink").into()));
}

/// The size in a PAX header is that of the entry, neither that of the long name between them nor the header's.
#[test]
fn pax_size_wins_and_is_the_entrys() {
    let mut parts = vec![pax(&[("size", b"700")]), Raw::gnu(b'L', b"././@LongLink").with(b"long\0")];
    parts.extend([
        file(b"f").size(5).bytes(),
        crate::archive::testing::padded(&file(b"hidden").with(&[7; 188])),
    ]);
    let (member, data) = only(&archive(&parts));
    assert_eq!((member.path, member.kind), (path("long"), MemberKind::File(700)));
    assert_eq!(data[0].1.len(), 700);
}

#[test]
fn attributes_in_every_form() {
    let header =
        file(b"f").octal(100, 8, 0o104_755).octal(108, 8, 1000).octal(116, 8, 100).octal(136, 12, 1 << 32);
    let wanted = Member { mode: 0o4755, uid: 1000, gid: 100, ..member("f", MemberKind::File(0)) };
    let at = |seconds, nanos| Timestamp { seconds, nanos };
    let first = |parts: &[Vec<u8>]| read(&archive(parts)).unwrap().remove(0).0;
    assert_eq!(first(&[header.clone().bytes()]), Member { mtime: at(1 << 32, 0), ..wanted.clone() });

    let unextended = header.clone().at(136, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xfc\x18");
    assert_eq!(first(&[unextended.bytes()]).mtime, at(-1000, 0));
    let binary = header.clone().binary(108, 8, 0xffff_fffe).binary(136, 12, -7);
    assert_eq!(first(&[binary.bytes()]), Member { uid: u32::MAX - 1, mtime: at(-7, 0), ..wanted.clone() });

    // What the header holds does not matter where a record says otherwise.
    let records =
        [("uid", &b"4294967294"[..]), ("gid", b"1"), ("mtime", b"-1.5"), ("atime", b"x"), ("comment", b"")];
    let header = header.octal(100, 8, 0o4755).binary(108, 8, 1 << 40).binary(136, 12, 1 << 70);
    assert_eq!(
        first(&[pax(&records), header.bytes()]),
        Member { uid: u32::MAX - 1, gid: 1, mtime: at(-2, 500_000_000), ..wanted }
    );
    let records = [("SCHILY.devmajor", &b"4294967295"[..]), ("SCHILY.devminor", b"9")];
    let device = first(&[pax(&records), Raw::ustar(b'3', b"f").bytes()]);
    assert_eq!(device.kind, MemberKind::CharDevice { major: u32::MAX, minor: 9 });
}

#[test]
fn global_headers_are_defaults() {
    let global = |records: &[(&str, &[u8])]| Raw::ustar(b'g', b"g").with(&pax_body(records));
    let parts = [
        global(&[("uid", b"5"), ("comment", b"abc"), ("mtime", b"9")]),
        file(b"a").bytes(),
        global(&[("gid", b"6")]),
        pax(&[("uid", b""), ("mtime", b"1")]),
        file(b"b").octal(108, 8, 3).bytes(),
        global(&[("uid", b""), ("gid", b"")]),
        file(b"c").bytes(),
        global(&[("uid", b"1")]),
    ];
    let members = read(&archive(&parts)).unwrap();
    let seen: Vec<_> = members.iter().map(|(found, _)| (found.uid, found.gid, found.mtime.seconds)).collect();
    assert_eq!(seen, [(5, 0, 9), (3, 6, 1), (0, 0, 9)]);
}

#[test]
fn extended_attributes_are_bytes() {
    let records = [
        ("LIBARCHIVE.xattr.user.%6Fnly%20here", &b"AP8"[..]),
        ("SCHILY.xattr.user.z", b"\0\n12 a=b\n=\xff"),
        ("LIBARCHIVE.xattr.user.z", b"Zm9v"),
        ("SCHILY.xattr.user.a%3Db%25%41", b""),
        ("SCHILY.acl.access", b"user::rw-\ngroup::r--\nother::r--\n"),
        ("SCHILY.acl.default", b"user::rwx\nuser:7:r\ngroup::r\nmask::r\nother::-\n"),
        ("SCHILY.xattr.system.posix_acl_default", b"wins"),
    ];
    let (found, _) = only(&archive(&[pax(&records), file(b"f").bytes()]));
    let wanted = [
        (b"system.posix_acl_default".to_vec(), b"wins".to_vec()),
        (b"user.a=b%%41".to_vec(), vec![]),
        (b"user.only here".to_vec(), vec![0, 255]),
        (b"user.z".to_vec(), b"\0\n12 a=b\n=\xff".to_vec()),
    ];
    assert_eq!(found.xattrs, wanted);
}

/// bsdtar 3.6.2 writes every attribute in both forms, under one name.
#[test]
fn an_attribute_that_is_written_twice_is_one() {
    let records = [
        ("LIBARCHIVE.xattr.user.%C3%BC", &b"djE"[..]),
        ("SCHILY.xattr.user.%C3%BC", b"v1"),
        ("LIBARCHIVE.xattr.user.a%3Db%2541", b"djI"),
        ("SCHILY.xattr.user.a%3Db%2541", b"v2"),
        ("LIBARCHIVE.xattr.user.%25C3%25BC", b"djM"),
        ("SCHILY.xattr.user.%25C3%25BC", b"v3"),
        ("SCHILY.xattr.user.%41", b"of GNU tar"),
    ];
    let (found, _) = only(&archive(&[pax(&records), file(b"f").bytes()]));
    let named = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    let wanted = [
        named("user.%41", b"of GNU tar"),
        named("user.%C3%BC", b"v3"),
        named("user.a=b%41", b"v2"),
        named("user.ü", b"v1"),
    ];
    assert_eq!(found.xattrs, wanted);
}

/// GNU tar writes names without numbers in the text, and numbers in the attribute if that is asked for.
#[test]
fn an_acl_counts_by_its_attribute_where_that_is_there() {
    let text = &b"user::rw-\nuser:nobody-knows:r--\ngroup::r--\nmask::r--\nother::r--\n"[..];
    for (key, name) in
        [("SCHILY.acl.access", "system.posix_acl_access"), ("SCHILY.acl.default", "system.posix_acl_default")]
    {
        for (attribute, value) in [("SCHILY.xattr", &b"foo"[..]), ("LIBARCHIVE.xattr", b"Zm9v")] {
            let attribute = format!("{attribute}.{name}");
            for records in [[(key, text), (&attribute, value)], [(&attribute, value), (key, text)]] {
                let (found, _) = only(&archive(&[pax(&records), file(b"f").bytes()]));
                assert_eq!(found.xattrs, [(name.as_bytes().to_vec(), b"foo".to_vec())]);
            }
        }
        let error = read(&archive(&[pax(&[(key, text)]), file(b"f").bytes()])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error.to_string().contains("'nobody-knows' without a number; pack it with --xattrs"),
            "{error}"
        );
    }
}

#[test]
fn a_volume_label_is_skipped() {
    assert_eq!(kinds(&[Raw::gnu(b'V', b"label").bytes(), file(b"f").bytes()]).len(), 1);
}

#[test]
fn old_signed_checksums_are_right_too() {
    let mut bytes = file(b"\xff\xfe").bytes();
    let signed: i32 = (0..512)
        .map(|at| if (148..156).contains(&at) { 32 } else { i32::from(bytes[at].cast_signed()) })
        .sum();
    bytes[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
    assert_eq!(kinds(&[bytes]).len(), 1);
}

#[test]
fn the_end_in_every_form() {
    let entry = file(b"f").with(b"body");
    let digest = |bytes: &[u8]| read_within(bytes, Limits::default()).unwrap().1;
    for zeros in [0, 512, 1024, 10_240] {
        let bytes = [&entry[..], &vec![0; zeros]].concat();
        let summary = digest(&bytes);
        assert_eq!((summary.bytes, summary.entries), (bytes.len() as u64, 1));
    }
    // What follows the end is ignored, but hashed.
    let junk = [archive(std::slice::from_ref(&entry)), file(b"hidden").bytes(), b"junk".to_vec()].concat();
    assert_eq!(digest(&junk).entries, 1);
    assert_eq!(digest(&junk).bytes, junk.len() as u64);
    assert_ne!(digest(&junk).sha256, digest(&junk[..junk.len() - 1]).sha256);

    // So is a second archive, and where it begins is known.
    let whole = archive(std::slice::from_ref(&entry));
    for (zeros, rest) in [(0, &whole[..]), (9_000, &whole), (0, b"junk"), (7, b"\x01")] {
        let bytes = [&whole[..], &vec![0; zeros], rest].concat();
        assert_eq!(digest(&bytes).other_data_at, Some((whole.len() + zeros) as u64));
    }
    assert_eq!(digest(&[&whole[..], &[0; 9_001]].concat()).other_data_at, None);

    for (zeros, has_end_mark) in [(0, false), (512, false), (1024, true), (10_240, true)] {
        let bytes = [&entry[..], &vec![0; zeros]].concat();
        assert_eq!(digest(&bytes).has_end_mark, has_end_mark, "{zeros}");
    }

    refused(&[], ErrorKind::Invalid, "is empty");
    refused(b"\x7fELF, no archive at all", ErrorKind::Invalid, "is no tar archive");
    refused(&[b'x'; 5000], ErrorKind::Invalid, "is no tar archive");
    refused(&[&entry[..], &[0; 512], &entry].concat(), ErrorKind::Invalid, "lone zero block");
    refused(&[&entry[..], &[0; 700]].concat(), ErrorKind::Invalid, "cut short");
    refused(&[&entry[..], &[1; 511]].concat(), ErrorKind::Invalid, "cut short");
}

/// ext4, Btrfs, XFS in a partition, ISO 9660 and others begin with zeros.
#[test]
fn what_begins_with_zeros_and_goes_on_is_no_archive() {
    for zeros in [512, 513, 1023, 1024, 1025, 32_768, 65_536, 1 << 20] {
        for rest in [&b"\xff"[..], &[7; 5000], &archive(&[file(b"f").bytes()])] {
            let bytes = [&vec![0; zeros], rest, &[0; 1024]].concat();
            let at = zeros + rest.iter().position(|byte| *byte != 0).unwrap();
            refused(
                &bytes,
                ErrorKind::Invalid,
                &format!("is no tar archive: it begins with zeros, as an empty one does, but byte {at} "),
            );
        }
    }
    refused(&[0; 512], ErrorKind::Invalid, "neither an entry nor an end mark");
    for zeros in [1024, 10_240, 1 << 20] {
        assert_eq!(read_within(&vec![0; zeros], Limits::default()).unwrap().1.entries, 0, "an empty archive");
    }
}

#[test]
fn the_digest_is_plain_sha256() {
    let summary = read_within(&[0; 1024], Limits::default()).unwrap().1;
    let hex: String = summary.sha256.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    // `head -c 1024 /dev/zero | sha256sum`
    assert_eq!(hex, "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
}

#[test]
fn bodies_left_unread_are_skipped() {
    let bytes = archive(&[file(b"a").with(&[1; 1000]), file(b"b").with(&[2; 10])]);
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    assert_eq!(reader.next_piece(&mut [0; 8]).unwrap(), Piece::End);
    assert_eq!(reader.next().unwrap().unwrap().path, path("a"));
    assert_eq!(reader.next_piece(&mut [0; 8]).unwrap(), Piece::Data(8));
    assert_eq!(reader.next_piece(&mut []).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(reader.next().unwrap().unwrap().path, path("b"));
    let mut buffer = [0; 64];
    assert_eq!(reader.next_piece(&mut buffer).unwrap(), Piece::Data(10));
    assert_eq!(buffer[..10], [2; 10]);
    assert_eq!(reader.next_piece(&mut buffer).unwrap(), Piece::End);
    assert!(reader.next().unwrap().is_none() && reader.next().unwrap().is_none());
    assert_eq!(reader.finish().unwrap().entries, 2);
}
