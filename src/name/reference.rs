//! References: what people write where an image is meant.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::{NameError, TagName};
use crate::error::{Error, Subject};
use crate::id::ImageId;
use crate::path::shortened;

/// A reference to an image, not yet resolved.
///
/// Displaying and parsing again gives the same value.
///
/// ```
/// use layerstone::ImageRef;
/// assert!(matches!("01890a5d-ac96-774b-bcce-b302099a8057".parse(), Ok(ImageRef::Id(_))));
/// assert!(matches!("tag:ubuntu".parse(), Ok(ImageRef::Tag(_))));
/// assert!(matches!("localhost:5000/a/b:1".parse(), Ok(ImageRef::Name(_))));
/// assert!(matches!("docker://ghcr.io/o/i:t".parse(), Ok(ImageRef::Oci(_))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageRef {
    /// An image's UUID.
    Id(ImageId),
    /// `tag:NAME`: certainly a tag.
    Tag(TagName),
    /// A bare name: a tag, and where an import is meant also an OCI reference.
    Name(TagName),
    /// What only an OCI reference can be: a URL form, a digest, or a tag beyond this crate's grammar.
    Oci(OciReference),
}

impl ImageRef {
    /// The tag to look up locally, none for a UUID or a digest.
    pub(crate) fn as_tag(&self) -> Option<TagName> {
        match self {
            Self::Tag(name) | Self::Name(name) => Some(name.clone()),
            Self::Oci(reference) if reference.digest.is_none() => reference.name_and_tag().parse().ok(),
            Self::Id(_) | Self::Oci(_) => None,
        }
    }
}

impl From<ImageId> for ImageRef {
    fn from(id: ImageId) -> Self {
        Self::Id(id)
    }
}

impl From<TagName> for ImageRef {
    fn from(name: TagName) -> Self {
        Self::Tag(name)
    }
}

impl FromStr for ImageRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |why: String| Error::invalid(Subject::Reference(shortened(text)), why);
        // Only the hyphenated form counts, in either case; other spellings of a UUID are refused as names too.
        if let Ok(uuid) = Uuid::try_parse(text) {
            return Ok(Self::Id(ImageId::from_uuid(uuid)));
        }
        if let Some(name) = text.strip_prefix("tag:") {
            let refuse = |error: NameError| invalid(format!("the tag {}", error.fault()));
            return name.parse().map(Self::Tag).map_err(refuse);
        }
        let name_error = match text.parse::<TagName>() {
            Ok(name) => return Ok(Self::Name(name)),
            Err(error) => error,
        };
        let fault = name_error.fault();
        OciReference::parse(text)
            .map(Self::Oci)
            .ok_or_else(|| invalid(format!("is no UUID, no OCI reference, and as a tag {fault}")))
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Tag(name) => write!(f, "tag:{name}"),
            Self::Name(name) => name.fmt(f),
            Self::Oci(reference) => reference.fmt(f),
        }
    }
}

/// An OCI image reference as written: nothing is normalised before an import or a push asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OciReference {
    scheme: Option<Box<str>>,
    name: Box<str>,
    tag: Option<Box<str>>,
    digest: Option<Box<str>>,
}

impl OciReference {
    /// The URL form's scheme (`docker`), where one was written.
    #[must_use]
    pub fn scheme(&self) -> Option<&str> {
        self.scheme.as_deref()
    }

    /// Registry and repository as written.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag, where one was written.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest (`sha256:…`), where one was written.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    fn name_and_tag(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.name),
            None => self.name.to_string(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        if !scheme.is_none_or(|scheme| matches!(scheme, "docker" | "oci")) || rest.len() > 1024 {
            return None;
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest, None),
        };
        // A colon after the last slash begins the tag; before it, it is a port.
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest.get(last..).and_then(|last_part| last_part.rfind(':')) {
            Some(colon) => (rest.get(..last + colon)?, Some(rest.get(last + colon + 1..)?)),
            None => (rest, None),
        };
        let valid = is_repository(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_sha256);
        let own = |text: &str| Box::from(text);
        valid.then(|| Self {
            scheme: scheme.map(own),
            name: name.into(),
            tag: tag.map(own),
            digest: digest.map(own),
        })
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        f.write_str(&self.name_and_tag())?;
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// `[domain[:port]/]component(/component)*`: components in lower case, the domain in either.
fn is_repository(name: &str) -> bool {
    let mut parts = name.split('/').peekable();
    let first = parts.peek().copied().unwrap_or_default();
    let has_domain = name.contains('/')
        && (first.contains(['.', ':']) || first == "localhost" || first.contains(char::is_uppercase));
    if has_domain {
        let (host, port) = first.split_once(':').unwrap_or((first, "0"));
        let host_is_valid =
            host.split('.').all(|label| is_words(label, |c| c.is_ascii_alphanumeric(), &["-"], true));
        if !host_is_valid || port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return false;
        }
        parts.next();
    }
    let separators = [".", "_", "__", "-"];
    parts.all(|part| is_words(part, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), &separators, true))
}

/// Words of `is_word` characters joined by one of `separators` (or, with `dashes`, any run of `-`).
fn is_words(text: &str, is_word: impl Fn(char) -> bool, separators: &[&str], dashes: bool) -> bool {
    let is_separator = |run: &str| {
        separators.contains(&run) || (dashes && !run.is_empty() && run.bytes().all(|byte| byte == b'-'))
    };
    let edges_are_words = text.starts_with(&is_word) && text.ends_with(&is_word);
    edges_are_words && text.split(&is_word).filter(|run| !run.is_empty()).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn is_sha256(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}
