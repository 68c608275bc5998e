//! Paths inside an image.
//!
//! A path is kept as its *key*: the components joined by a zero byte, without a leading or trailing one. Since
//! no component holds a zero byte, plain byte order of keys is component order, and everything below a
//! directory is one contiguous range of keys. The root directory is the empty key.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

/// Bytes a component may have.
pub const MAX_COMPONENT_BYTES: usize = 255;
/// Bytes a whole path may have: what one Linux system call takes, less its closing zero.
pub const MAX_PATH_BYTES: usize = 4095;

/// Why some bytes are not a [`TreePath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A `..` component.
    #[error("has a '..' component, which is not allowed")]
    DotDot,
    /// A `.` or empty component inside a key.
    #[error("has an empty or '.' component")]
    EmptyComponent,
    /// A zero byte, or a `/` where one component was expected.
    #[error("has a zero byte, or a '/' inside a component")]
    Separator,
    /// A component over [`MAX_COMPONENT_BYTES`].
    #[error("has a component of more than {MAX_COMPONENT_BYTES} bytes")]
    LongComponent,
    /// A path over [`MAX_PATH_BYTES`].
    #[error("has more than {MAX_PATH_BYTES} bytes")]
    LongPath,
}

/// A valid path inside an image: bytes, not necessarily UTF-8, never absolute, never with `.` or `..`.
///
/// ```
/// use layerstone::TreePath;
/// let path = TreePath::parse(b"/usr/./bin//env").unwrap();
/// assert_eq!(path.to_string(), "/usr/bin/env");
/// assert_eq!(path.parent().unwrap().to_string(), "/usr/bin");
/// assert!(TreePath::parse(b"a/../../etc").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Box<[u8]>);

impl TreePath {
    /// The root directory.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses a path as people and archives write it: `/` separates; leading, doubled and trailing separators
    /// and `.` components are dropped; `..` is refused wherever it stands.
    pub fn parse(text: &[u8]) -> Result<Self, PathError> {
        if text.contains(&0) {
            return Err(PathError::Separator);
        }
        let mut key = Vec::with_capacity(text.len());
        for component in text.split(|byte| *byte == b'/') {
            if component.is_empty() || component == b"." {
                continue;
            }
            push_component(&mut key, component)?;
        }
        Ok(Self(key.into()))
    }

    /// The path with this key; every component is checked.
    pub fn from_key(key: &[u8]) -> Result<Self, PathError> {
        if key.len() > MAX_PATH_BYTES {
            return Err(PathError::LongPath);
        }
        if !key.is_empty() {
            key.split(|byte| *byte == 0).try_for_each(check_component)?;
        }
        Ok(Self(key.into()))
    }

    /// The path whose key is the first `shared` bytes of this one's, or all if it has fewer, and then `suffix`: for lists in
    /// which each path is written by what it has not in common with the one before.
    pub(crate) fn with_suffix(&self, shared: usize, suffix: &[u8]) -> Result<Self, PathError> {
        let shared = self.0.get(..shared).unwrap_or(&self.0);
        if shared.len() + suffix.len() > MAX_PATH_BYTES {
            return Err(PathError::LongPath);
        }
        let key = [shared, suffix].concat();
        // The components before the last that they share are this path's, which are checked.
        let checked = shared.iter().rposition(|byte| *byte == 0).map_or(0, |end| end + 1);
        let unchecked = key.get(checked..).unwrap_or_default();
        if !key.is_empty() {
            unchecked.split(|byte| *byte == 0).try_for_each(check_component)?;
        }
        Ok(Self(key.into_boxed_slice()))
    }

    /// The key: components joined by zero bytes.
    #[must_use]
    pub fn as_key(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root directory.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path as the operating system takes it, relative to the image's root; empty for the root.
    #[must_use]
    pub fn to_relative(&self) -> Vec<u8> {
        self.0.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }).collect()
    }

    /// The components, from the root's child down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == 0).filter(|component| !component.is_empty())
    }

    /// How many components there are.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// The last component, none for the root.
    #[must_use]
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().last()
    }

    /// The directory this is in, none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == 0).unwrap_or(0);
        Some(Self(self.0.get(..end).unwrap_or_default().into()))
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        let mut key = self.0.to_vec();
        push_component(&mut key, name)?;
        Ok(Self(key.into()))
    }

    /// Whether this is `directory` itself or below it.
    #[must_use]
    pub fn starts_with(&self, directory: &Self) -> bool {
        directory.is_root()
            || self.0.strip_prefix(&*directory.0).is_some_and(|rest| matches!(rest.first(), None | Some(0)))
    }
}

fn push_component(key: &mut Vec<u8>, component: &[u8]) -> Result<(), PathError> {
    check_component(component)?;
    if !key.is_empty() {
        key.push(0);
    }
    key.extend_from_slice(component);
    if key.len() > MAX_PATH_BYTES { Err(PathError::LongPath) } else { Ok(()) }
}

fn check_component(component: &[u8]) -> Result<(), PathError> {
    match component {
        b"" | b"." => Err(PathError::EmptyComponent),
        b".." => Err(PathError::DotDot),
        _ if component.len() > MAX_COMPONENT_BYTES => Err(PathError::LongComponent),
        _ if component.contains(&0) || component.contains(&b'/') => Err(PathError::Separator),
        _ => Ok(()),
    }
}

/// Bytes from outside as text that is safe on a terminal and in a log: control characters, backslashes and
/// what is not UTF-8 are escaped, so the text says exactly which bytes it stands for.
#[must_use]
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for piece in bytes.utf8_chunks() {
        for character in piece.valid().chars() {
            if is_active(character) || character == '\\' {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in piece.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Whether a character does something else on a terminal than stand for itself: controls, and those of Unicode that end
/// a line or turn the direction of writing.
#[must_use]
pub fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

impl fmt::Display for TreePath {
    /// The absolute path inside the image, escaped as [`escape_bytes`] does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str("/");
        }
        self.components().try_for_each(|component| write!(f, "/{}", escape_bytes(component)))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn a_suffix_is_checked_as_a_whole_key_is(
            before in "[a.]{1,2}(\u{0}[a.]{1,2}){0,2}",
            shared in 0..9_usize,
            suffix in "[a./\u{0}]{0,4}",
        ) {
            let Ok(before) = TreePath::from_key(before.as_bytes()) else { return Ok(()) };
            let shared = shared.min(before.as_key().len());
            let whole = [&before.as_key()[..shared], suffix.as_bytes()].concat();
            prop_assert_eq!(before.with_suffix(shared, suffix.as_bytes()), TreePath::from_key(&whole));
        }
    }

    #[test]
    fn a_subtree_is_contiguous_in_key_order() {
        let mut paths = ["a", "a!", "a/z", "a/b/c", "a-b", "", "b"].map(path);
        paths.sort();
        assert_eq!(paths, ["", "a", "a/b/c", "a/z", "a!", "a-b", "b"].map(path));
    }

    #[test]
    fn parsing_cleans_and_refuses() {
        assert_eq!(path("./usr//bin/./env/"), path("/usr/bin/env"));
        assert!(path("/").is_root());
        assert_eq!(TreePath::parse(b"../x"), Err(PathError::DotDot));
        assert_eq!(TreePath::parse(b"a\0b"), Err(PathError::Separator));
        assert_eq!(TreePath::parse(&[b'x'; 256]), Err(PathError::LongComponent));
        assert_eq!(TreePath::parse("x/".repeat(2049).as_bytes()), Err(PathError::LongPath));
        assert_eq!(TreePath::from_key(b"a\0\0b"), Err(PathError::EmptyComponent));
        assert_eq!(TreePath::from_key(b"a/b"), Err(PathError::Separator));
        assert_eq!(path("a").join(b"b/c"), Err(PathError::Separator));
    }

    #[test]
    fn relations() {
        let deep = path("usr/bin/env");
        assert_eq!(deep.file_name(), Some(&b"env"[..]));
        assert_eq!(deep.parent(), Some(path("usr/bin")));
        assert_eq!(path("usr").parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
        assert!(deep.starts_with(&path("usr")) && deep.starts_with(&deep));
        assert!(!path("usrx").starts_with(&path("usr")));
        assert_eq!(deep.depth(), 3);
    }

    #[test]
    fn display_says_which_bytes() {
        let odd = TreePath::parse(b"a\n\xff\\\x1b[31m").unwrap();
        assert_eq!(odd.to_string(), "/a\\n\\xff\\\\\\u{1b}[31m");
    }
}
