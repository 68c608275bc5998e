//! Access control lists: the text form that `tar --acls` reads and writes, and the extended attributes that they are.
//!
//! ```text
//! text  = entry (LF | "," entry)* NUL*     spaces around an entry and what follows "#" do not count
//! entry = ("user" | "group" | "mask" | "other") ":" [name] ":" permissions [":" number]
//! ```
//! The attribute is what the kernel gives: a version and fixed entries, little-endian, in a fixed order.

use super::Refusal;
use super::number::{self, NO_ID};

pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The PAX records of their texts.
pub(super) const ACCESS_TEXT: &[u8] = b"SCHILY.acl.access";
pub(super) const DEFAULT_TEXT: &[u8] = b"SCHILY.acl.default";

const VERSION: u32 = 2;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// One entry; tags ascend in the order that the kernel keeps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tag: u16,
    id: u32,
    permissions: u16,
}

/// The value of the attribute `name`; none for a list that says no more than a mode does.
pub(super) fn attribute(name: &[u8], text: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let mut entries = Vec::new();
    let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for line in text.get(..end).unwrap_or_default().split(|byte| matches!(byte, b'\n' | b',')) {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if !line.is_empty() {
            entries.push(entry(line)?);
        }
    }
    entries.sort_unstable();
    let is_minimal = entries.iter().all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER));
    if entries.is_empty() || (is_minimal && name == ACCESS) {
        return Ok(None);
    }
    check(&entries)?;
    let mut value = VERSION.to_le_bytes().to_vec();
    for Entry { tag, id, permissions } in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Ok(Some(value))
}

/// Returns a mode with the permissions that an access list's attribute gives it, as the kernel does where the list is set: the
/// group's are the mask. bsdtar has the group's own in the header.
pub(super) fn mode(mode: u16, value: &[u8]) -> u16 {
    let Some((version, entries)) = value.split_first_chunk::<4>() else { return mode };
    if u32::from_le_bytes(*version) != VERSION {
        return mode;
    }
    let permissions = |wanted: u16| {
        let entries = entries.as_chunks::<8>().0.iter();
        let mut found = entries.filter(|[low, high, ..]| u16::from_le_bytes([*low, *high]) == wanted);
        found.next().map(|[_, _, low, high, ..]| u16::from_le_bytes([*low, *high]) & 7)
    };
    let group = permissions(MASK).or_else(|| permissions(GROUP_OBJ));
    match (permissions(USER_OBJ), group, permissions(OTHER)) {
        (Some(owner), Some(group), Some(other)) => mode & !0o777 | owner << 6 | group << 3 | other,
        _ => mode,
    }
}

/// The record that stands for the attribute `name`, and its text with every user and group as a number; none for what
/// is no list, or would not come back the same.
pub(super) fn record(name: &[u8], value: &[u8]) -> Option<(&'static [u8], String)> {
    let key = match name {
        ACCESS => ACCESS_TEXT,
        DEFAULT => DEFAULT_TEXT,
        _ => return None,
    };
    let (_, entries) = value.split_first_chunk::<4>()?;
    let text: String = entries.as_chunks().0.iter().copied().map(line).collect::<Option<_>>()?;
    let comes_back = attribute(name, text.as_bytes()).is_ok_and(|back| back.as_deref() == Some(value));
    comes_back.then_some((key, text))
}

/// The line of one entry of an attribute's value.
fn line(entry: [u8; 8]) -> Option<String> {
    let [tag_low, tag_high, low, high, id @ ..] = entry;
    let who = u32::from_le_bytes(id).to_string();
    let (kind, who) = match u16::from_le_bytes([tag_low, tag_high]) {
        USER_OBJ => ("user", ""),
        USER => ("user", who.as_str()),
        GROUP_OBJ => ("group", ""),
        GROUP => ("group", who.as_str()),
        MASK => ("mask", ""),
        OTHER => ("other", ""),
        _ => return None,
    };
    let bits = u16::from_le_bytes([low, high]);
    let letter = |bit, letter| if bits & bit == 0 { '-' } else { letter };
    Some(format!("{kind}:{who}:{}{}{}\n", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')))
}

/// What the kernel would refuse: entries that are missing or there twice.
fn check(entries: &[Entry]) -> Result<(), Refusal> {
    let count = |tag| entries.iter().filter(|entry| entry.tag == tag).count();
    let has_names = count(USER) + count(GROUP) > 0;
    let is_twice = entries.iter().zip(entries.iter().skip(1)).any(|(a, b)| (a.tag, a.id) == (b.tag, b.id));
    let has_all = [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1);
    if is_twice || !has_all || (has_names && count(MASK) == 0) {
        return Err(Refusal::invalid("has an ACL with entries that are missing or there twice"));
    }
    Ok(())
}

fn entry(line: &[u8]) -> Result<Entry, Refusal> {
    let malformed = || {
        let line = String::from_utf8_lossy(line).into_owned();
        Refusal::invalid(format!("has an ACL with a malformed entry '{line}'"))
    };
    let fields: Vec<_> = line.split(|byte| *byte == b':').map(<[u8]>::trim_ascii).collect();
    let (kind, who, permissions, digits) = match fields[..] {
        [kind @ (b"mask" | b"m" | b"other" | b"o"), permissions] => (kind, &b""[..], permissions, None),
        [kind, who, permissions] => (kind, who, permissions, None),
        [kind, who, permissions, digits] => (kind, who, permissions, Some(digits)),
        _ => return Err(malformed()),
    };
    let (tag, id) = match (kind, who) {
        (b"user" | b"u", b"") => (USER_OBJ, NO_ID),
        (b"group" | b"g", b"") => (GROUP_OBJ, NO_ID),
        (b"mask" | b"m", b"") => (MASK, NO_ID),
        (b"other" | b"o", b"") => (OTHER, NO_ID),
        (b"user" | b"u", who) => (USER, number_of("user", digits.unwrap_or(who))?),
        (b"group" | b"g", who) => (GROUP, number_of("group", digits.unwrap_or(who))?),
        _ => return Err(malformed()),
    };
    let mut bits = 0;
    for byte in permissions {
        bits |= match byte {
            b'r' => 4,
            b'w' => 2,
            b'x' => 1,
            b'-' => 0,
            _ => return Err(malformed()),
        };
    }
    if permissions.is_empty() { Err(malformed()) } else { Ok(Entry { tag, id, permissions: bits }) }
}

/// Reads the number of a user or a group.
fn number_of(kind: &str, who: &[u8]) -> Result<u32, Refusal> {
    number::id(who).ok_or_else(|| unnumbered(kind, who))
}

/// Which number a name stands for is known only where the archive was made.
fn unnumbered(kind: &str, who: &[u8]) -> Refusal {
    let is_number = !who.is_empty() && who.iter().all(u8::is_ascii_digit);
    let who = String::from_utf8_lossy(who);
    if is_number {
        let max = NO_ID - 1;
        return Refusal::invalid(format!("has an ACL for the {kind} {who}; numbers go to {max}"));
    }
    Refusal::unsupported(format!(
        "has an ACL for the {kind} '{who}' without a number; pack it with --xattrs --xattrs-include='*', which keeps numbers"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(name: &[u8], text: &str) -> Option<String> {
        let value = attribute(name, text.as_bytes()).ok()?;
        let bytes: Vec<_> = value?.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(bytes.concat())
    }

    #[test]
    fn the_kernel_gives_these_bytes_for_these_texts() {
        // As `getfattr -e hex` shows what `setfacl` set; `tar --acls` wrote the texts.
        let text = "user::rw-\nuser:12:rwx\nuser:1234:r--\ngroup::r--\ngroup:99:--x\nmask::rwx\nother::r--\n";
        let access = "0200000001000600ffffffff020007000c00000002000400d204000004000400ffffffff\
                      080001006300000010000700ffffffff20000400ffffffff";
        assert_eq!(hex(ACCESS, text).unwrap(), access);
        let other_ways = "other:r--,u:root:r:1234,group:x:x:99,mask:rwx # all\n,g::r,u:12:rwx,u::rw";
        assert_eq!(hex(ACCESS, other_ways).unwrap(), access);
        let text = "user::rwx\nuser:lp:rw-:7\ngroup::r-x\nmask::rwx\nother::r-x\n";
        let default =
            "0200000001000700ffffffff020006000700000004000500ffffffff10000700ffffffff20000500ffffffff";
        assert_eq!(hex(DEFAULT, text).unwrap(), default);
    }

    #[test]
    fn a_list_comes_back_from_its_text() {
        let all = "user::rw-\nuser:12:rwx\nuser:1234:r--\ngroup::r--\ngroup:99:--x\nmask::rwx\nother::r--\n";
        let value = attribute(ACCESS, all.as_bytes()).ok().flatten().unwrap();
        assert_eq!(record(ACCESS, &value), Some((ACCESS_TEXT, all.to_owned())));
        assert_eq!(record(DEFAULT, &value), Some((DEFAULT_TEXT, all.to_owned())));
        assert_eq!(record(b"user.a", &value), None);
        let [mut newer, mut doubled, mut unknown] = [value.clone(), value.clone(), value.clone()];
        newer[0] = 3;
        doubled.extend_from_within(4..12);
        unknown[4] = 3;
        for bad in [&newer, &doubled, &unknown, &value[..value.len() - 1], &value[..4], b""] {
            assert_eq!(record(ACCESS, bad), None);
        }
    }

    #[test]
    fn what_a_mode_says_is_no_attribute_except_as_a_default() {
        let text = b"user::rw-\ngroup::r--\nother::r--\n";
        assert!(matches!(attribute(ACCESS, text), Ok(None)));
        assert!(matches!(attribute(DEFAULT, text), Ok(Some(_))));
        assert!(matches!(attribute(DEFAULT, b""), Ok(None)));
    }

    #[test]
    fn a_number_that_is_too_large_is_not_taken_for_a_name() {
        for (entry, words) in [
            ("user:99999999999:r--", "the user 99999999999; numbers go to 4294967294"),
            ("group:staff:r--:4294967295", "the group 4294967295; numbers go to"),
            ("user:lisa:r--", "the user 'lisa' without a number"),
        ] {
            let Err(refusal) = attribute(ACCESS, entry.as_bytes()) else { panic!("{entry} was taken") };
            let text = refusal.at(b"f").to_string();
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let rest = "user::rw-\ngroup::r--\nmask::r--\nother::r--\n";
        for bad in [
            "user:lisa:r--",
            "user:4294967295:r--",
            "user:1:q",
            "user:1:",
            "user:1",
            "mask:1:r",
            "friend::r",
            "user:1:r:x",
            "user:1:r:1:1",
            "user::r",
            "\u{0}x",
        ] {
            assert!(attribute(ACCESS, format!("{rest}{bad}").as_bytes()).is_err(), "{bad}");
        }
        assert!(attribute(ACCESS, b"user::rw-\nuser:1:r--\ngroup::r--\nother::r--").is_err(), "no mask");
        assert!(attribute(ACCESS, b"user:1:r--\nmask::r--").is_err(), "no owner");
    }
}
