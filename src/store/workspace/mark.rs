//! What a workspace's directory says of itself: a copy of its row, from which a repair brings it back where the catalog is
//! lost. It follows the row, so it may be older than that after a crash, and whoever has the row does not look at it.
//!
//! ```text
//! file = "LSWS" version(1) key(bytes) row(bytes)
//! ```
//! Bytes have their length before them as a varint; key and row are those of the catalog, and the row has its own check.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use crate::catalog::decode_row;
use crate::catalog::record::WorkspaceRecord;
use crate::catalog::table::{Table as _, Workspaces, key_bytes};
use crate::error::Result;
use crate::format::{DecodeError, Decoder, Encoder, record};
use crate::host::overlay;
use crate::id::ProjectId;
use crate::name::WorkspaceName;

/// Its name in the directory: one of those that versions without it take for the workspace's own.
pub(crate) const MARK: &str = ".layerstone-row";
const NEW_MARK: &str = ".layerstone-row.new";
const MAGIC: &[u8; 4] = b"LSWS";
const VERSION: u8 = 1;

type Key = (ProjectId, WorkspaceName);

/// Writes it. Without it a repair of a store that has lost its catalog names the workspace by its number, so failing to
/// write it is no failure of what changed the row.
pub(super) fn write(directory: &Path, key: &Key, record: &WorkspaceRecord) {
    let Ok(bytes) = encode(key, record) else { return };
    let is_durable = record.holder.is_none();
    let write = || {
        let new = directory.join(NEW_MARK);
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        if is_durable {
            file.sync_all()?;
        }
        std::fs::rename(new, directory.join(MARK))
    };
    if write().is_ok() && is_durable {
        let _ = overlay::sync_directory(directory);
    }
}

/// Removes it: before the files, of which a part must not come back as a workspace.
pub(super) fn remove(directory: &Path) {
    let _ = std::fs::remove_file(directory.join(MARK));
}

fn encode(key: &Key, record: &WorkspaceRecord) -> Result<Vec<u8>, DecodeError> {
    let key = key_bytes(key);
    let row = record::encode(Workspaces::NAME, &key, record)?;
    let mut out = Encoder::default();
    out.raw(MAGIC).u8(VERSION).bytes(&key).bytes(&row);
    Ok(out.0)
}

/// Returns the row that a mark has, if it is sound.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Key, WorkspaceRecord)> {
    let mut decoder = Decoder(bytes);
    if decoder.raw(MAGIC.len()).ok()? != MAGIC || decoder.u8().ok()? != VERSION {
        return None;
    }
    let (key, row) = (decoder.bytes().ok()?, decoder.bytes().ok()?);
    decode_row::<Workspaces>(key, row).ok().filter(|_| decoder.is_empty())
}
