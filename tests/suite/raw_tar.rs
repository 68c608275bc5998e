//! Tars from raw 512-byte headers, as no tar library would write them.

/// A header under construction.
#[derive(Clone)]
pub(crate) struct Header([u8; 512]);

impl Header {
    /// A header in GNU form: no size, no owner, mode 644.
    pub(crate) fn new(flag: u8, name: impl AsRef<[u8]>) -> Self {
        let empty = Self([0; 512]).at(0, name.as_ref()).at(156, &[flag]).at(257, b"ustar  \0");
        let empty = empty.octal(100, 8, 0o644).octal(108, 8, 0).octal(116, 8, 0);
        empty.octal(124, 12, 0).octal(136, 12, 0)
    }

    /// Bytes anywhere.
    pub(crate) fn at(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn octal(self, offset: usize, width: usize, value: u64) -> Self {
        self.at(offset, format!("{value:0digits$o}\0", digits = width - 1).as_bytes())
    }

    /// Base 256 in two's complement.
    pub(crate) fn binary(self, offset: usize, width: usize, value: i128) -> Self {
        let mut bytes = value.to_be_bytes()[16 - width..].to_vec();
        bytes[0] |= 0x80;
        self.at(offset, &bytes)
    }

    pub(crate) fn size(self, size: u64) -> Self {
        self.octal(124, 12, size)
    }

    pub(crate) fn link(self, target: impl AsRef<[u8]>) -> Self {
        self.at(157, target.as_ref())
    }

    /// The header with its checksum.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.octal(148, 7, sum).0.to_vec()
    }

    /// The header with this body.
    pub(crate) fn with(self, body: impl AsRef<[u8]>) -> Vec<u8> {
        let body = body.as_ref();
        let mut bytes = self.size(body.len() as u64).bytes();
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

pub(crate) fn file(name: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    Header::new(b'0', name).with(body)
}

pub(crate) fn directory(name: impl AsRef<[u8]>) -> Vec<u8> {
    Header::new(b'5', name).bytes()
}

pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Vec<u8> {
    Header::new(b'2', name).link(target).bytes()
}

pub(crate) fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Vec<u8> {
    Header::new(b'1', name).link(target).bytes()
}

/// A GNU long name (`L`) or long link target (`K`) for the next entry.
pub(crate) fn long(flag: u8, text: impl AsRef<[u8]>) -> Vec<u8> {
    Header::new(flag, b"././@LongLink").with(text)
}

/// A PAX header with these records for the next entry.
pub(crate) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let len = (rest + 1..rest + 20).find(|len| rest + len.to_string().len() == *len).unwrap();
        body.extend(format!("{len} {key}=").as_bytes());
        body.extend(*value);
        body.push(b'\n');
    }
    Header::new(b'x', "PaxHeaders/x").with(body)
}

/// The parts, and the two zero blocks of an end.
pub(crate) fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), vec![0; 1024]].concat()
}
