//! Names people give: tags, projects, workspaces and references to images.

mod reference;

use std::fmt;

pub use reference::{ImageRef, OciReference};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::error::{Error, Subject};
use crate::path::{quoted, shortened};

/// Bytes a name may have.
pub const MAX_NAME_BYTES: usize = 256;

/// Some text is not a name. Displays the text, shortened and escaped, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {fault}", quoted(.text))]
pub struct NameError {
    of: NameKind,
    text: String,
    fault: NameFault,
}

/// What was to be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameKind {
    Tag,
    Project,
    Workspace,
}

impl NameError {
    fn new(of: NameKind, text: &str) -> impl Fn(NameFault) -> Self {
        move |fault| Self { of, text: shortened(text), fault }
    }

    /// The text, the end of it left out where it is long.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The rule that it breaks.
    #[must_use]
    pub fn fault(&self) -> &NameFault {
        &self.fault
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        let subject = match error.of {
            NameKind::Tag => Subject::Tag,
            NameKind::Project => Subject::Project,
            NameKind::Workspace => Subject::Workspace,
        };
        Self::invalid(subject(error.text), error.fault.to_string())
    }
}

/// The reason why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameFault {
    /// No characters at all.
    #[error("is empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`].
    #[error("has {0} bytes; at most {MAX_NAME_BYTES} are allowed")]
    TooLong(usize),
    /// A character that may not stand where it stands.
    #[error("has {:?} at position {}: {expected}", .character, .position)]
    Character {
        /// The offending character.
        character: char,
        /// Its position in characters, from 1.
        position: usize,
        /// What may stand there.
        expected: &'static str,
    },
    /// A separator at the end.
    #[error("ends in {character:?} at position {position}: a letter, digit, '_' or '-' must follow")]
    TrailingSeparator {
        /// The separator.
        character: char,
        /// Its position in characters, from 1.
        position: usize,
    },
    /// Text that reads as a UUID or begins with `tag:`.
    #[error("{0}")]
    Reserved(&'static str),
}

/// The name of a tag: `[A-Za-z0-9][A-Za-z0-9_-]*([:/.][A-Za-z0-9_-]+)*`, at most 256 bytes, case-sensitive,
/// no UUID and not beginning with `tag:`.
///
/// ```
/// use layerstone::TagName;
/// # fn main() -> layerstone::Result<()> {
/// let tag: TagName = "team/python:3.12-slim".parse()?;
/// assert_eq!(tag.as_str(), "team/python:3.12-slim");
/// let error = "team//python".parse::<TagName>().unwrap_err();
/// assert_eq!(error.to_string(), "'team//python' has '/' at position 6: two separators may not follow each other");
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagName(Box<str>);

impl TagName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `NAME:latest`, where this name has no `:` yet and the result is still a name.
    pub(crate) fn with_latest(&self) -> Option<Self> {
        if self.0.contains(':') { None } else { format!("{self}:latest").parse().ok() }
    }
}

impl std::str::FromStr for TagName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = NameError::new(NameKind::Tag, text);
        check_grammar(text, |character| matches!(character, ':' | '/' | '.')).map_err(&refused)?;
        if text.starts_with("tag:") {
            return Err(refused(NameFault::Reserved("begins with 'tag:', which marks a reference by tag")));
        }
        if Uuid::try_parse(text).is_ok() {
            return Err(refused(NameFault::Reserved("reads as a UUID, which names an image by id")));
        }
        Ok(Self(text.into()))
    }
}

/// The name of a project: the grammar of a tag without `:` and `/`. `public` names the public scope.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectName(Box<str>);

impl ProjectName {
    /// The public scope's name.
    pub const PUBLIC: &'static str = "public";
    /// The project that is used, and made, where none is named.
    pub const DEFAULT: &'static str = "default";

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this names the public scope.
    #[must_use]
    pub fn is_public(&self) -> bool {
        &*self.0 == Self::PUBLIC
    }
}

impl std::str::FromStr for ProjectName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = NameError::new(NameKind::Project, text);
        check_grammar(text, |character| character == '.').map_err(refused)?;
        Ok(Self(text.into()))
    }
}

/// The name of a workspace: the grammar of a project's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceName(Box<str>);

impl WorkspaceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for WorkspaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = NameError::new(NameKind::Workspace, text);
        check_grammar(text, |character| character == '.').map_err(refused)?;
        Ok(Self(text.into()))
    }
}

/// Words of letters, digits, `_` and `-`, joined by single separators; the first begins with a letter or digit.
fn check_grammar(text: &str, is_separator: impl Fn(char) -> bool) -> Result<(), NameFault> {
    if text.is_empty() {
        return Err(NameFault::Empty);
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameFault::TooLong(text.len()));
    }
    let mut previous = None;
    for (position, character) in (1..).zip(text.chars()) {
        let after_separator = previous.is_some_and(&is_separator);
        let expected = match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' => None,
            '_' | '-' if previous.is_some() => None,
            _ if previous.is_none() => Some("a name begins with a letter or digit"),
            _ if is_separator(character) && !after_separator => None,
            _ if is_separator(character) => Some("two separators may not follow each other"),
            _ => Some("only ASCII letters, digits, '_', '-' and separators are allowed"),
        };
        if let Some(expected) = expected {
            return Err(NameFault::Character { character, position, expected });
        }
        previous = Some(character);
    }
    match previous {
        Some(character) if is_separator(character) => {
            Err(NameFault::TrailingSeparator { character, position: text.chars().count() })
        }
        _ => Ok(()),
    }
}

macro_rules! text_name {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )*};
}

text_name!(TagName, ProjectName, WorkspaceName);

#[cfg(test)]
mod tests;
