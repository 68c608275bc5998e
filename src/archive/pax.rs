//! PAX extended headers: `length SP key = value LF`, the length counting the whole record.
//!
//! The records that matter are kept as checked values. Values are bytes up to the length, so an extended
//! attribute may hold line feeds and zeros; names may not hold zeros.

use std::collections::{BTreeMap, BTreeSet};

use super::dump_list::DumpList;
use super::{Limits, Refusal, acl, number, sparse};
use crate::tree::entry::Timestamp;
use crate::tree::xattr;

const SCHILY_XATTR: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";
const SCHILY_ACL: &[u8] = b"SCHILY.acl.";
/// Digits that a record's length may have.
const LENGTH_DIGITS_MAX: usize = 20;

/// Records that are passed over without a loss: what else times, owners and places were, and how names are
/// written.
const UNIMPORTANT: [&[u8]; 14] = [
    b"atime",
    b"ctime",
    b"uname",
    b"gname",
    b"comment",
    b"charset",
    b"hdrcharset",
    b"LIBARCHIVE.creationtime",
    b"LIBARCHIVE.symlinktype",
    b"SCHILY.dev",
    b"SCHILY.ino",
    b"SCHILY.nlink",
    b"SCHILY.realsize",
    b"SCHILY.filetype",
];

/// What a volume is that goes on with a file of the one before it.
pub(super) const LATER_VOLUME: &str = "is the rest of a file that begins in an earlier volume (tar --multi-volume); unpack all \
                                       volumes together, and import the directory";

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;
/// The same in order, as members have them.
type XattrList = Vec<(Vec<u8>, Vec<u8>)>;

/// What extended headers said about the entry that follows.
#[derive(Clone, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) device_major: Option<u32>,
    pub(super) device_minor: Option<u32>,
    pub(super) sparse: sparse::Records,
    /// By their names as they are written.
    xattrs: Xattrs,
    libarchive_xattrs: Xattrs,
    /// Keys of records that say something of the entry which no image has.
    unkept: BTreeSet<Vec<u8>>,
    /// The names in a directory that was dumped incrementally.
    pub(super) dump_list: DumpList,
    /// Texts of ACLs, by the attributes that they stand for.
    acls: BTreeMap<&'static [u8], Vec<u8>>,
}

impl Records {
    /// Takes over the records of an extended header for one entry. A later record wins; an empty value takes
    /// back what an earlier or a global header said.
    pub(super) fn apply(&mut self, body: &[u8], limits: &Limits) -> Result<(), Refusal> {
        each_record(body, |key, value| self.apply_record(key, value, limits))
    }

    /// Takes the keys of records that say something of the entry which no image has.
    pub(super) fn take_unkept(&mut self) -> BTreeSet<Vec<u8>> {
        std::mem::take(&mut self.unkept)
    }

    /// Takes over the records of a global extended header.
    pub(super) fn apply_global(&mut self, body: &[u8]) -> Result<(), Refusal> {
        each_record(body, |key, value| match key {
            b"uid" | b"gid" | b"mtime" => self.apply_attribute(key, value),
            b"path" | b"linkpath" | b"size" => Err(one_entry_only(key)),
            // Where in a file the volume goes on.
            b"GNU.volume.offset" if number::decimal(value) != Some(0) => {
                Err(Refusal::unsupported(LATER_VOLUME))
            }
            _ if [b"GNU.sparse.", SCHILY_XATTR, LIBARCHIVE_XATTR, SCHILY_ACL]
                .iter()
                .any(|start| key.starts_with(start)) =>
            {
                Err(one_entry_only(key))
            }
            _ => Ok(()),
        })
    }

    /// Returns the extended attributes, each once and in its canonical form, names ascending. The text of an ACL counts only
    /// where its attribute is not there: the attribute has numbers where the text may have names.
    ///
    /// bsdtar writes each attribute in both forms, and escapes both names as libarchive does.
    pub(super) fn into_xattrs(self, limits: &Limits) -> Result<XattrList, Refusal> {
        let Self { xattrs, libarchive_xattrs, acls, .. } = self;
        let is_libarchive = |name: &[u8]| libarchive_xattrs.contains_key(name);
        let named = xattrs.into_iter().map(|(name, value)| {
            let name = if is_libarchive(&name) { percent_decoded(&name) } else { unescape(&name) };
            (name, value)
        });
        let named: Vec<_> = named.collect();
        let decoded = libarchive_xattrs.into_iter().map(|(name, value)| (percent_decoded(&name), value));
        let mut all: Xattrs = decoded.chain(named).filter(|(name, _)| !xattr::is_copy(name)).collect();
        for (name, text) in acls {
            if !all.contains_key(name)
                && let Some(value) = acl::attribute(name, &text)?
            {
                check_xattr(name, &value, limits)?;
                all.insert(name.to_vec(), value);
            }
        }
        check_count(&all, limits)?;
        let canonical = |(name, value): (Vec<u8>, Vec<u8>)| {
            let value = xattr::canonical(&name, &value).into_owned();
            (name, value)
        };
        Ok(all.into_iter().map(canonical).collect())
    }

    fn apply_record(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), Refusal> {
        match key {
            b"path" => self.path = name(key, value)?,
            b"linkpath" => self.link_path = name(key, value)?,
            b"size" => self.size = parsed(key, value, size)?,
            b"SCHILY.devmajor" => self.device_major = parsed(key, value, small)?,
            b"SCHILY.devminor" => self.device_minor = parsed(key, value, small)?,
            b"uid" | b"gid" | b"mtime" => self.apply_attribute(key, value)?,
            acl::ACCESS_TEXT => _ = self.acls.insert(acl::ACCESS, value.to_vec()),
            b"GNU.dumpdir" => {
                self.dump_list = DumpList::default();
                self.dump_list.take(value);
            }
            acl::DEFAULT_TEXT => _ = self.acls.insert(acl::DEFAULT, value.to_vec()),
            _ => {
                if let Some(field) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.apply(field, value, limits)?;
                } else if let Some(name) = key.strip_prefix(SCHILY_XATTR) {
                    check_xattr(&unescape(name), value, limits)?;
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                    check_count(&self.xattrs, limits)?;
                } else if let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR) {
                    let value = base64(value).ok_or_else(|| malformed(key))?;
                    check_xattr(&percent_decoded(name), &value, limits)?;
                    self.libarchive_xattrs.insert(name.to_vec(), value);
                    check_count(&self.libarchive_xattrs, limits)?;
                } else if value.is_empty() {
                    self.unkept.remove(key);
                } else if !UNIMPORTANT.contains(&key) {
                    self.unkept.insert(key.to_vec());
                }
            }
        }
        Ok(())
    }

    fn apply_attribute(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refusal> {
        match key {
            b"uid" => self.uid = parsed(key, value, number::id)?,
            b"gid" => self.gid = parsed(key, value, number::id)?,
            _ => self.mtime = parsed(key, value, number::time)?,
        }
        Ok(())
    }
}

/// Appends a record. The length counts its own digits.
pub(super) fn push_record(body: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + b" =\n".len();
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    body.extend_from_slice(format!("{len} ").as_bytes());
    body.extend_from_slice(key);
    body.push(b'=');
    body.extend_from_slice(value);
    body.push(b'\n');
}

/// The key under which an extended attribute is written.
pub(super) fn xattr_key(name: &[u8]) -> Vec<u8> {
    let mut key = SCHILY_XATTR.to_vec();
    for byte in name {
        match byte {
            b'%' => key.extend_from_slice(b"%25"),
            b'=' => key.extend_from_slice(b"%3D"),
            _ => key.push(*byte),
        }
    }
    key
}

fn each_record(
    mut body: &[u8],
    mut apply: impl FnMut(&[u8], &[u8]) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    while !body.is_empty() {
        let (key, value, rest) = split_record(body).ok_or_else(|| {
            Refusal::invalid("its PAX header is malformed: expected records of the form 'length key=value'")
        })?;
        apply(key, value)?;
        body = rest;
    }
    Ok(())
}

fn split_record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = body.iter().take(LENGTH_DIGITS_MAX + 1).position(|byte| *byte == b' ')?;
    let len = usize::try_from(number::decimal(body.get(..digits)?)?).ok()?;
    let (record, rest) = body.split_at_checked(len)?;
    let text = record.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    let (key, value) = text.split_at_checked(equals)?;
    if key.is_empty() || key.contains(&0) {
        return None;
    }
    Some((key, value.get(1..)?, rest))
}

/// A value that names something; none if it is empty.
pub(super) fn name(key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    if value.contains(&0) {
        let key = String::from_utf8_lossy(key).into_owned();
        return Err(Refusal::invalid(format!("its PAX '{key}' has a zero byte")));
    }
    Ok(Some(value.to_vec()).filter(|value| !value.is_empty()))
}

/// A value as `parse` reads it, zero bytes at its end left out; none if it is empty.
pub(super) fn parsed<T>(
    key: &[u8],
    value: &[u8],
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>, Refusal> {
    if value.is_empty() {
        return Ok(None);
    }
    let end = value.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    parse(value.get(..end).unwrap_or_default()).map(Some).ok_or_else(|| malformed(key))
}

/// A size or offset in bytes: no more than 2^63 - 1.
pub(super) fn size(text: &[u8]) -> Option<u64> {
    number::decimal(text).filter(|size| i64::try_from(*size).is_ok())
}

fn small(text: &[u8]) -> Option<u32> {
    u32::try_from(number::decimal(text)?).ok()
}

pub(super) fn malformed(key: &[u8]) -> Refusal {
    Refusal::invalid(format!("its PAX '{}' is malformed or out of range", String::from_utf8_lossy(key)))
}

fn one_entry_only(key: &[u8]) -> Refusal {
    let key = String::from_utf8_lossy(key).into_owned();
    Refusal::invalid(format!("is a global PAX header with '{key}', which only makes sense for one entry"))
}

fn check_xattr(name: &[u8], value: &[u8], limits: &Limits) -> Result<(), Refusal> {
    if name.is_empty() || name.contains(&0) {
        return Err(Refusal::invalid("has an extended attribute without a name or with a zero byte in it"));
    }
    if name.len() > limits.xattr_name_bytes_max {
        let limit = limits.xattr_name_bytes_max;
        return Err(Refusal::limit("an extended attribute's name", "xattr_name_bytes_max", limit));
    }
    if value.len() > limits.xattr_value_bytes_max {
        let limit = limits.xattr_value_bytes_max;
        return Err(Refusal::limit("an extended attribute's value", "xattr_value_bytes_max", limit));
    }
    Ok(())
}

fn check_count(xattrs: &Xattrs, limits: &Limits) -> Result<(), Refusal> {
    if xattrs.len() > limits.xattrs_max {
        return Err(Refusal::limit("its number of extended attributes", "xattrs_max", limits.xattrs_max));
    }
    Ok(())
}

/// A name as GNU tar escapes it: `%3D` and `%25` and nothing else.
fn unescape(name: &[u8]) -> Vec<u8> {
    decode_percent(name, |code| match code {
        b"3D" => Some(b'='),
        b"25" => Some(b'%'),
        _ => None,
    })
}

/// A name as libarchive escapes it: any byte as `%` and two hexadecimal digits.
fn percent_decoded(name: &[u8]) -> Vec<u8> {
    decode_percent(name, |code| match code {
        [b'+', _] => None,
        _ => u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok(),
    })
}

fn decode_percent(mut text: &[u8], decode: impl Fn(&[u8]) -> Option<u8>) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        let code = if *first == b'%' { rest.split_at_checked(2) } else { None };
        let byte = code.and_then(|(code, after)| Some((decode(code)?, after)));
        let (byte, after) = byte.unwrap_or((*first, rest));
        decoded.push(byte);
        text = after;
    }
    decoded
}

/// Base 64 with or without its padding.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let mut decoded = Vec::with_capacity(end / 4 * 3 + 2);
    for group in text.get(..end)?.chunks(4) {
        let mut bits = 0_u32;
        for byte in group {
            bits = bits << 6 | u32::from(base64_digit(*byte)?);
        }
        let [_, bytes @ ..] = (bits << (6 * (4 - group.len()))).to_be_bytes();
        decoded.extend_from_slice(bytes.get(..group.len().checked_sub(1).filter(|len| *len > 0)?)?);
    }
    Some(decoded)
}

fn base64_digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64_of_every_length() {
        for (text, bytes) in
            [("", ""), ("Zg", "f"), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmE", "fooba")]
        {
            assert_eq!(base64(text.as_bytes()), Some(bytes.as_bytes().to_vec()), "{text}");
        }
        assert_eq!(base64(b"Z"), None);
        assert_eq!(base64(b"Zg!="), None);
        assert_eq!(base64(b"/+8="), Some(vec![0xff, 0xef]));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"6 a=b"[..], // no line feed
            b"6 a=b\n5 ",  // cut short
            b"7 a=b\n",    // length beyond the end
            b"5 a=b\n",    // length short of the line feed
            b"0 a=b\n",
            b"-6 a=b\n",
            b"99999999999999999999999 a=b\n",
            b"18446744073709551616 a=b\n",
            b"18446744073709551615 a=b\n",
            b"6a=b\n",
            b"5 ab\n",
            b"5 =b\n",
            b"6 \0=b\n",
            b"\n",
            b"6 a=b\n\0",
        ] {
            assert!(each_record(bad, |_, _| Ok(())).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_value_takes_back() {
        let limits = Limits::default();
        let mut records = Records::default();
        let mut body = Vec::new();
        push_record(&mut body, b"uid", b"7");
        push_record(&mut body, b"path", b"x");
        records.apply(&body, &limits).unwrap();
        assert_eq!((records.uid, records.path.as_deref()), (Some(7), Some(&b"x"[..])));
        records.apply(b"7 uid=\n8 path=\n", &limits).unwrap();
        assert_eq!((records.uid, records.path.as_deref()), (None, None));
    }

    proptest! {
        #[test]
        fn records_come_back(key in "[a-z]{1,12}", value in prop::collection::vec(any::<u8>(), 0..1200)) {
            let mut body = Vec::new();
            push_record(&mut body, key.as_bytes(), &value);
            let (found_key, found_value, rest) = split_record(&body).unwrap();
            prop_assert_eq!((found_key, found_value, rest), (key.as_bytes(), &value[..], &b""[..]));
        }

        #[test]
        fn xattr_names_come_back(name in prop::collection::vec(prop_oneof![Just(b'%'), Just(b'='), Just(b'2'), Just(b'5'), 1_u8..], 1..20)) {
            let key = xattr_key(&name);
            prop_assert!(!key.contains(&b'='));
            prop_assert_eq!(unescape(key.strip_prefix(SCHILY_XATTR).unwrap()), name);
        }
    }
}
