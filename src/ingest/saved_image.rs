//! Saved images: what `docker save` and programs for OCI images write holds an image's layers, and not its files. Who imports
//! one as a root file system gets a tree of blobs.

use serde_json::Value;

use crate::error::{Error, Remedy, Result, Subject};
use crate::host::source::SourceTree;
use crate::host::stat::FileKind;
use crate::path::TreePath;

/// Names, at the top, of the files that tell one.
const MANIFEST: &str = "manifest.json";
const LAYOUT: &str = "oci-layout";
/// As `docker save` wrote one alone before version 1.10.
const REPOSITORIES: &str = "repositories";
/// All of them.
const TELLING: [&str; 3] = [MANIFEST, LAYOUT, REPOSITORIES];
/// Bytes that such a file has at most.
const BYTES_MAX: usize = 1 << 20;

/// Returns whether a file of this name may tell a saved image.
pub(super) fn may_tell(path: &TreePath) -> bool {
    TELLING.iter().any(|name| path.as_key() == name.as_bytes())
}

/// Fails if a file with this name and content is a saved image's; `subject` is what it is in.
pub(super) fn refuse(path: &TreePath, content: &[u8], subject: impl FnOnce() -> Subject) -> Result<()> {
    let is_told = match serde_json::from_slice(content) {
        Ok(Value::Array(images)) if path.as_key() == MANIFEST.as_bytes() => {
            let has_layers =
                |image: &Value| matches!(image.get("Layers"), Some(Value::Array(_) | Value::Null));
            !images.is_empty() && images.iter().all(has_layers)
        }
        // As `skopeo copy` writes one to a directory.
        Ok(Value::Object(manifest)) if path.as_key() == MANIFEST.as_bytes() => {
            let has_digest = |layer: &Value| layer.get("digest").is_some_and(Value::is_string);
            let layers = manifest.get("layers").and_then(Value::as_array);
            manifest.contains_key("schemaVersion")
                && layers.is_some_and(|layers| layers.iter().all(has_digest))
        }
        Ok(Value::Object(layout)) if path.as_key() == LAYOUT.as_bytes() => {
            layout.get("imageLayoutVersion").is_some_and(Value::is_string)
        }
        // Names, each with its tags, each with the id of its last layer.
        Ok(Value::Object(names)) if path.as_key() == REPOSITORIES.as_bytes() => {
            let is_id = |id: &Value| id.as_str().is_some_and(is_layer_id);
            let has_ids = |tags: &Value| tags.as_object().is_some_and(|tags| tags.values().all(is_id));
            !names.is_empty() && names.values().all(has_ids)
        }
        _ => false,
    };
    if !is_told {
        return Ok(());
    }
    let message = format!(
        "is a saved image, as its '{path}' says: it holds layers instead of files; unpack it to a root file system first \
         ('podman load', then 'podman export' of a container; or 'umoci unpack')"
    );
    Err(Error::unsupported(subject(), message).with_remedy(Remedy::AcceptSavedImage))
}

/// Whether a text is what programs name layers by: 64 hexadecimal digits.
fn is_layer_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Fails if a directory is an unpacked saved image or an OCI image layout.
pub(crate) fn refuse_directory(source: &SourceTree) -> Result<()> {
    let Some(root) = source.directory(&TreePath::root())? else { return Ok(()) };
    for name in TELLING {
        let Some(found) = root.find(name.as_bytes())? else { continue };
        if found.stat.kind != FileKind::File {
            continue;
        }
        let mut buf = vec![0; BYTES_MAX + 1];
        if let Some(content) = root.open_file(&found)?.read_whole(&mut buf)? {
            refuse(&found.path, content, || Subject::Host(source.host_path(&TreePath::root())))?;
        }
    }
    Ok(())
}
