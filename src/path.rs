//! Paths inside an image.
//!
//! A path is kept as its *key*: the components joined by a zero byte, without a leading or trailing one. Since
//! no component holds a zero byte, plain byte order of keys is component order, and everything below a
//! directory is one contiguous range of keys. The root directory is the empty key.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::error::{Error, Subject};
use crate::json;

pub use crate::json::Path as JsonPath;

/// Bytes a component may have.
pub const MAX_COMPONENT_BYTES: usize = 255;
/// Bytes a whole path may have: what one Linux system call takes, less its closing zero.
pub const MAX_PATH_BYTES: usize = 4095;

/// Some bytes are not a [`TreePath`]. Displays them, shortened and escaped, and what is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' {fault}")]
pub struct PathError {
    text: String,
    fault: PathFault,
}

impl PathError {
    fn new(bytes: &[u8]) -> impl Fn(PathFault) -> Self {
        move |fault| Self { text: shortened(&escape_bytes(bytes)), fault }
    }

    /// The rule that they break.
    #[must_use]
    pub fn fault(&self) -> PathFault {
        self.fault
    }
}

impl From<PathError> for Error {
    fn from(error: PathError) -> Self {
        Self::invalid(Subject::Argument("path"), error.to_string())
    }
}

/// The reason why some bytes are no [`TreePath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathFault {
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
/// # fn main() -> layerstone::Result<()> {
/// let path: TreePath = "/usr/./bin//env".parse()?;
/// assert_eq!(path.to_string(), "/usr/bin/env");
/// assert_eq!(path.parent().unwrap(), TreePath::parse(b"usr/bin")?);
/// let error = "a/../../etc".parse::<TreePath>().unwrap_err();
/// assert_eq!(error.to_string(), "'a/../../etc' has a '..' component, which is not allowed");
/// # Ok(()) }
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
        let refused = PathError::new(text);
        if text.contains(&0) {
            return Err(refused(PathFault::Separator));
        }
        let mut key = Vec::with_capacity(text.len());
        let components = text.split(|byte| *byte == b'/');
        let mut kept = components.filter(|component| !matches!(*component, b"" | b"."));
        kept.try_for_each(|component| push_component(&mut key, component)).map_err(refused)?;
        Ok(Self(key.into()))
    }

    /// The path with this key; every component is checked.
    pub fn from_key(key: &[u8]) -> Result<Self, PathError> {
        let refused = PathError::new(key);
        if key.len() > MAX_PATH_BYTES {
            return Err(refused(PathFault::LongPath));
        }
        if !key.is_empty() {
            key.split(|byte| *byte == 0).try_for_each(check_component).map_err(refused)?;
        }
        Ok(Self(key.into()))
    }

    /// The path whose key is the first `shared` bytes of this one's, or all if it has fewer, and then `suffix`: for lists in
    /// which each path is written by what it has not in common with the one before.
    pub(crate) fn with_suffix(&self, shared: usize, suffix: &[u8]) -> Result<Self, PathFault> {
        let shared = self.0.get(..shared).unwrap_or(&self.0);
        if shared.len() + suffix.len() > MAX_PATH_BYTES {
            return Err(PathFault::LongPath);
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

    /// The path as a process sees it whose root the image is.
    #[must_use]
    pub fn to_absolute(&self) -> Vec<u8> {
        [b"/", self.to_relative().as_slice()].concat()
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
        push_component(&mut key, name).map_err(PathError::new(name))?;
        Ok(Self(key.into()))
    }

    /// Whether this is `directory` itself or below it.
    #[must_use]
    pub fn starts_with(&self, directory: &Self) -> bool {
        directory.is_root()
            || self.0.strip_prefix(&*directory.0).is_some_and(|rest| matches!(rest.first(), None | Some(0)))
    }
}

impl FromStr for TreePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text.as_bytes())
    }
}

fn push_component(key: &mut Vec<u8>, component: &[u8]) -> Result<(), PathFault> {
    check_component(component)?;
    if !key.is_empty() {
        key.push(0);
    }
    key.extend_from_slice(component);
    if key.len() > MAX_PATH_BYTES { Err(PathFault::LongPath) } else { Ok(()) }
}

fn check_component(component: &[u8]) -> Result<(), PathFault> {
    match component {
        b"" | b"." => Err(PathFault::EmptyComponent),
        b".." => Err(PathFault::DotDot),
        _ if component.len() > MAX_COMPONENT_BYTES => Err(PathFault::LongComponent),
        _ if component.contains(&0) || component.contains(&b'/') => Err(PathFault::Separator),
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

/// Characters of a text that an error shows.
const SHOWN_CHARACTERS: usize = 80;

/// A text as an error shows it: the end is left out where it is long.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// A text in quotes, escaped.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.escape_debug())
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

/// A text with its active characters escaped and nothing else, so that what is escaped already stays as it is.
pub(crate) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        if is_active(character) {
            visible.extend(character.escape_default());
        } else {
            visible.push(character);
        }
    }
    visible
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

/// As the fields `path` and, where the path is not UTF-8, `path_bytes`.
impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json::Path::of(&self.to_absolute()).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(parsed: Result<TreePath, PathError>) -> PathFault {
        parsed.unwrap_err().fault()
    }

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
            prop_assert_eq!(before.with_suffix(shared, suffix.as_bytes()), TreePath::from_key(&whole).map_err(|error| error.fault()));
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
        assert_eq!(fault(TreePath::parse(b"../x")), PathFault::DotDot);
        assert_eq!(fault(TreePath::parse(b"a\0b")), PathFault::Separator);
        assert_eq!(fault(TreePath::parse(&[b'x'; 256])), PathFault::LongComponent);
        assert_eq!(fault(TreePath::parse("x/".repeat(2049).as_bytes())), PathFault::LongPath);
        assert_eq!(fault(TreePath::from_key(b"a\0\0b")), PathFault::EmptyComponent);
        assert_eq!(fault(TreePath::from_key(b"a/b")), PathFault::Separator);
        assert_eq!(fault(path("a").join(b"b/c")), PathFault::Separator);
    }

    #[test]
    fn an_error_shows_what_was_refused() {
        let parsed = || -> crate::Result<TreePath> { Ok("a\n/..".parse()?) };
        assert_eq!(
            parsed().unwrap_err().to_string(),
            "path: 'a\\n/..' has a '..' component, which is not allowed"
        );
        let long = TreePath::parse(&[b'x'; 5_000]).unwrap_err().to_string();
        assert!(
            long.starts_with("'xxx") && long.contains("x…' has a component") && long.len() < 160,
            "{long}"
        );
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
