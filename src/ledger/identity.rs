//! What makes two images the same.

use crate::catalog::record::{ImageRecord, OriginRecord};
use crate::catalog::table::Identities;
use crate::catalog::{ReadTables, WriteTx};
use crate::error::Result;
use crate::id::{ObjectId, ProjectId};

/// What makes two imports the same: the tree and the archive it came from; not tags, time or comment.
pub(crate) fn identity(root: ObjectId, origin: OriginRecord) -> ObjectId {
    let mut parts = root.as_bytes().to_vec();
    match origin {
        OriginRecord::Directory => parts.push(0),
        OriginRecord::Tar(digest) => {
            parts.push(1);
            parts.extend_from_slice(&digest);
        }
        OriginRecord::Commit => parts.push(2),
    }
    ObjectId::from_bytes(blake3::derive_key("layerstone v1 image identity", &parts))
}

/// An image's identity.
pub(crate) fn identity_of(image: &ImageRecord) -> ObjectId {
    identity(image.root, image.origin)
}

/// The keys in [`Identities`] of images with one identity, the first of which is the identity itself: that is where the next
/// import looks. Only a repair leaves more than one of them; their rows have no gap.
pub(crate) fn identity_keys(identity: ObjectId) -> impl Iterator<Item = ObjectId> {
    let further = (1_u64..).map(move |number| {
        let parts = [identity.as_bytes(), number.to_le_bytes().as_slice()].concat();
        ObjectId::from_bytes(blake3::derive_key("layerstone v1 further image of an identity", &parts))
    });
    std::iter::once(identity).chain(further)
}

/// Removes the row by which an image's content finds it. The last row of its identity takes the place.
pub(crate) fn forget_identity(tx: &mut WriteTx, scope: ProjectId, image: &ImageRecord) -> Result<()> {
    let mut rows = Vec::new();
    for key in identity_keys(identity_of(image)) {
        let Some(found) = tx.get::<Identities>(&(scope, key))? else { break };
        rows.push((key, found));
    }
    let Some(place) = rows.iter().position(|(_, found)| *found == image.id) else { return Ok(()) };
    if let Some((last, moved)) = rows.pop() {
        tx.remove::<Identities>(&(scope, last))?;
        if let Some((key, _)) = rows.get(place) {
            tx.put::<Identities>(&(scope, *key), &moved)?;
        }
    }
    Ok(())
}
