//! Compressed archives, and bombs made of them.

use std::io::Write;

use super::*;
use crate::archive::TarSummary;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn sample() -> Vec<u8> {
    archive(&[file(b"e").with(b"body"), file(b"f").with(&[5; 3000])])
}

fn summary(bytes: &[u8]) -> TarSummary {
    read_within(bytes, Limits::default()).unwrap().1
}

#[test]
fn compression_is_told_by_its_magic_and_leaves_no_trace() {
    let plain = sample();
    let (front, back) = plain.split_at(1000);
    let skippable = b"\x5a\x2a\x4d\x18\x03\0\0\0abc".to_vec();
    for bytes in [
        gzip(&plain),
        [gzip(front), gzip(&[]), gzip(back)].concat(),
        zstd(&plain),
        [zstd(front), skippable.clone(), zstd(back)].concat(),
        [skippable.clone(), zstd(&plain), skippable].concat(),
    ] {
        assert_eq!(summary(&bytes), summary(&plain));
        assert_eq!(read(&bytes).unwrap(), read(&plain).unwrap());
    }
}

/// Sources that give a byte at a time still have a magic.
#[test]
fn slow_sources() {
    struct Slow<'a>(&'a [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let len = buffer.len().min(1);
            self.0.read(&mut buffer[..len])
        }
    }
    for bytes in [sample(), gzip(&sample()), zstd(&sample())] {
        assert_eq!(
            Reader::new(Slow(&bytes), Limits::default()).unwrap().finish().unwrap(),
            summary(&sample())
        );
    }
}

#[test]
fn other_compressions_are_named() {
    refused(b"\xfd7zXZ\0\0\x04", ErrorKind::Unsupported, "xz");
    refused(b"BZh91AY&SY....", ErrorKind::Unsupported, "bzip2");
    refused(b"BZh9\x17\x72\x45\x38\x50\x90", ErrorKind::Unsupported, "bzip2");
    for (start, name) in [
        (&b"\x04\x22\x4d\x18\x64\x40\xa7"[..], "lz4"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff", "lzma"),
        (b"\x5d\x00\x00\x00\x03\x00\x28\x00\x00\x00", "lzma"),
        (b"\x1f\x9d\x90\x61\x00", "compress"),
        (b"LZIP\x01\x0c", "lzip"),
        (b"\x89LZO\x00\r\n\x1a\n\x10", "lzop"),
    ] {
        refused(start, ErrorKind::Unsupported, &format!("is compressed by {name}; expected"));
    }
    // A name may start like a magic.
    for name in [&b"BZh9-notes"[..], b"\x1f\x8bname", b"P*M", b"]", b"]\x01", b"LZIP", b"\x1f\x9dx"] {
        assert_eq!(read(&archive(&[file(name).bytes()])).unwrap().len(), 1);
    }
}

#[test]
fn other_files_are_named() {
    let twice = gzip(&gzip(&sample()));
    let inner = zstd(&gzip(&sample()));
    for (bytes, words) in [
        (&b"PK\x03\x04\x14\0\0\0"[..], "but a zip archive; unpack it"),
        (b"!<arch>\ndebian-binary", "but an ar archive"),
        (&[&b"070701"[..], &[b'0'; 600]].concat(), "but a cpio archive"),
        (&[&b"\x7fELF"[..], &[0; 600]].concat(), "but a program"),
        (&twice, "but compressed twice, within by gzip"),
        (&inner, "but compressed twice, within by gzip"),
        (b"# words", "(plain, or compressed by gzip or zstd)"),
    ] {
        refused(bytes, ErrorKind::Invalid, words);
    }
}

#[test]
fn damaged_streams() {
    for (bytes, name) in [(gzip(&sample()), "gzip"), (zstd(&sample()), "zstd")] {
        for len in [12, bytes.len() / 2, bytes.len() - 1] {
            refused(&bytes[..len], ErrorKind::Invalid, name);
        }
    }
    let mut flipped = gzip(&sample());
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    refused(&flipped, ErrorKind::Invalid, "gzip");
}

/// bsdtar fills what it compresses to standard output up to a block of 10,240 bytes.
#[test]
fn zeros_behind_a_compressed_stream_are_padding() {
    let plain = sample();
    let (front, back) = plain.split_at(1000);
    for pack in [gzip, zstd] {
        for zeros in [1, 511, 10_240, 200_000] {
            let zeros = vec![0; zeros];
            for bytes in [
                [pack(&plain), zeros.clone()].concat(),
                [pack(front), zeros.clone(), pack(back)].concat(),
                [pack(front), zeros.clone(), pack(back), zeros.clone(), pack(&[]), zeros].concat(),
            ] {
                assert_eq!(summary(&bytes), summary(&plain));
                assert_eq!(read(&bytes).unwrap(), read(&plain).unwrap());
            }
        }
    }
}

#[test]
fn other_bytes_behind_a_compressed_stream_are_named() {
    for (bytes, name) in [(gzip(&sample()), "gzip"), (zstd(&sample()), "zstd")] {
        for (zeros, junk) in [(0, &b"junk"[..]), (3, b"junk"), (100_000, b"j")] {
            let expected =
                format!("end of its {name} stream with other bytes than zeros, the first 0x6a at byte");
            let message = format!("{expected} {}", bytes.len() + zeros);
            refused(&[&bytes[..], &vec![0; zeros], junk].concat(), ErrorKind::Invalid, &message);
        }
        // What begins as another member does and is none is damage.
        for start in [&b"\x1f"[..], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50"] {
            refused(&[&bytes[..], start].concat(), ErrorKind::Invalid, name);
        }
    }
    // One kind of compression does not go on as another.
    refused(&[gzip(&sample()), zstd(&sample())].concat(), ErrorKind::Invalid, "gzip stream with other");
    refused(&[zstd(&sample()), gzip(&sample())].concat(), ErrorKind::Invalid, "zstd stream with other");
}

/// Neither padding nor members that hold nothing keep a reader beyond its limits.
#[test]
fn endless_padding_passes_the_limits() {
    for endless in [vec![0; 4096], gzip(&[])] {
        let start = std::io::Cursor::new(gzip(&sample()));
        let time = Some(std::time::Duration::from_millis(50));
        let limits = Limits { time_max: time, stream_bytes_max: u64::MAX, ..Limits::default() };
        let source = start.clone().chain(Repeated(endless.clone(), 0));
        assert_eq!(Reader::new(source, limits).unwrap().finish().unwrap_err().kind(), ErrorKind::TimedOut);
        let limits = Limits { stream_bytes_max: 1 << 20, ..Limits::default() };
        let error = Reader::new(start.chain(Repeated(endless, 0)), limits).unwrap().finish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
    }
}

/// The same bytes again and again.
struct Repeated(Vec<u8>, usize);

impl Read for Repeated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for byte in buffer.iter_mut() {
            *byte = self.0[self.1 % self.0.len()];
            self.1 += 1;
        }
        Ok(buffer.len())
    }
}

#[test]
fn bombs_pass_neither_ratio_nor_budget() {
    let quota = ErrorKind::QuotaExceeded;
    let zeros = vec![0; 80 << 20];
    let (gzipped, packed) = (gzip(&zeros), zstd(&zeros));
    assert!(zeros.len() / packed.len() > 10_000);
    refused(&packed, quota, "ratio_max");
    refused(&gzipped, quota, "ratio_max");
    let budget = Limits { stream_bytes_max: 1 << 20, ratio_max: u64::MAX, ..Limits::default() };
    refused_within(&gzipped, budget.clone(), quota, "stream_bytes_max");
    refused_within(&packed, budget, quota, "stream_bytes_max");
    // No gzip stream passes this.
    let trusting = Limits { ratio_max: 1_032, ..Limits::default() };
    assert_eq!(read_within(&gzipped, trusting).unwrap().1.bytes, 80 << 20);
}

#[test]
fn zstd_windows_have_a_limit() {
    let with_window = |log| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(&sample()).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(summary(&with_window(27)), summary(&sample()));
    refused(&with_window(28), ErrorKind::Invalid, "zstd_window_log_max");
    let limits = Limits { zstd_window_log_max: 20, ..Limits::default() };
    refused_within(&with_window(21), limits, ErrorKind::Invalid, "zstd_window_log_max");
}
