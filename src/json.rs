//! How values stand in JSON where serde's own form would lose something.
//!
//! Paths and targets of links are bytes, and JSON's strings are Unicode: a field has the text itself, not escaped; where the
//! bytes are not UTF-8, replacement characters show what isn't, and a second field, `NAME_bytes`, has all of them in
//! hexadecimal.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use serde::{Serialize, Serializer};

use crate::path::TreePath;

/// A path as JSON has it: its text, and its bytes where those are not UTF-8.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Path {
    /// The path; with replacement characters where it is not UTF-8.
    path: String,
    /// The path's bytes in hexadecimal, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
}

impl Path {
    /// The path with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { path: text(bytes), path_bytes: odd_bytes(bytes) }
    }
}

/// Where a symbolic link points.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Target {
    /// Where a symbolic link points; with replacement characters where that is not UTF-8. Null for all else.
    target: Option<String>,
    /// The target's bytes in hexadecimal, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_bytes: Option<String>,
}

/// The first name of a file with several.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct HardLinkTo {
    /// The least other name of the same inode, where this is a further one, and otherwise null; with replacement characters
    /// where it is not UTF-8.
    hard_link_to: Option<String>,
    /// That name's bytes in hexadecimal, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_link_to_bytes: Option<String>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes that are not UTF-8, in hexadecimal.
fn odd_bytes(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| {
        let mut digits = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            let _ = write!(digits, "{byte:02x}");
        }
        digits
    })
}

pub(crate) fn host_path<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    Path::of(path.as_os_str().as_bytes()).serialize(serializer)
}

pub(crate) fn host_paths<S: Serializer>(
    paths: &[std::path::PathBuf],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| Path::of(path.as_os_str().as_bytes())))
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
pub(crate) fn target<S: Serializer>(target: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    let target = target.as_deref();
    Target { target: target.map(text), target_bytes: target.and_then(odd_bytes) }.serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
pub(crate) fn hard_link_to<S: Serializer>(path: &Option<TreePath>, serializer: S) -> Result<S::Ok, S::Error> {
    let path = path.as_ref().map(TreePath::to_absolute);
    let path = path.as_deref();
    HardLinkTo { hard_link_to: path.map(text), hard_link_to_bytes: path.and_then(odd_bytes) }
        .serialize(serializer)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) fn octal<S: Serializer>(mode: &u16, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{mode:04o}"))
}

/// The schema of what serialises as text.
#[cfg(feature = "schema")]
macro_rules! text_schema {
    ($($type:ty: $name:literal { $($key:literal: $value:literal),* })*) => {$(
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string" $(, $key: $value)* })
            }
        }
    )*};
}

/// Four octal digits.
#[cfg(feature = "schema")]
pub(crate) struct Octal;

#[cfg(feature = "schema")]
text_schema! {
    crate::id::ImageId: "ImageId" { "format": "uuid", "description": "The UUID of an image." }
    crate::id::ObjectId: "ObjectId" { "pattern": "^[0-9a-f]{64}$", "description": "A BLAKE3 hash in hexadecimal." }
    crate::name::TagName: "TagName" { "description": "A tag." }
    crate::name::ProjectName: "ProjectName" { "description": "The name of a project." }
    crate::name::WorkspaceName: "WorkspaceName" { "description": "The name of a workspace." }
    crate::time::Moment: "Moment" { "format": "date-time", "description": "A moment, in UTC." }
    Octal: "Mode" { "pattern": "^[0-7]{4}$", "description": "Permission bits in octal." }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for TreePath {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Path".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Path::json_schema(generator)
    }
}
