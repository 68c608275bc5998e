//! Ids of images, and what makes two images the same.

use uuid::Uuid;

use crate::catalog::record::{ImageRecord, OriginRecord};
use crate::catalog::table::{Identities, Sequence, Sequences};
use crate::catalog::{ReadTables, WriteTx};
use crate::error::Result;
use crate::id::{ImageId, ObjectId, ProjectId};
use crate::time::Moment;

use super::Inner;

impl Inner {
    /// A new image's id: later than every id that was given out before, by whichever process.
    pub(super) fn next_image_id(&self, tx: &impl ReadTables) -> Result<ImageId> {
        let mut last = self.last_image.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let floor = tx.last(Sequence::Image)?.max(*last);
        *last = first_of(self.surroundings.now().unix_ms()).max(floor + 1);
        Ok(image_id(*last, self.surroundings.random_half()))
    }
}

/// Bits of an image id's time that count within a millisecond.
const COUNTER_BITS: u32 = 12;

/// A version 7 UUID of this time and counter, and random bits.
pub(super) fn image_id(time_and_counter: u64, random_half: u64) -> ImageId {
    let ms = time_and_counter >> COUNTER_BITS;
    let counter = time_and_counter & ((1 << COUNTER_BITS) - 1);
    let high = u128::from((ms << 16) | 0x7000 | counter);
    ImageId::from_uuid(Uuid::from_u128((high << 64) | u128::from(random_half)))
}

/// Milliseconds since 1970 from which on ids count up by themselves: a clock that is further ahead must not use them up.
const TIME_MAX_MS: u64 = 1 << 47;

/// The first time and counter of a millisecond.
pub(super) fn first_of(ms: u64) -> u64 {
    ms.min(TIME_MAX_MS) << COUNTER_BITS
}

/// The time and counter in an image id.
pub(super) fn time_and_counter(id: ImageId) -> u64 {
    let (high, _) = id.as_uuid().as_u64_pair();
    ((high >> 16) << COUNTER_BITS) | (high & 0xfff)
}

/// The latest moment at which an image can have been made: the id is from then, or was pushed above an earlier one. For an
/// image that is there, its record says when it was.
pub(super) fn latest_created(id: ImageId) -> Moment {
    Moment::from_unix_ms(time_and_counter(id) >> COUNTER_BITS)
}

/// Records that this image id was used.
pub(super) fn remember_image_id(tx: &mut WriteTx, id: ImageId) -> Result<()> {
    let newest = tx.last(Sequence::Image)?.max(time_and_counter(id));
    tx.put::<Sequences>(&Sequence::Image, &newest)
}

/// What makes two imports the same: the tree and the archive it came from; not tags, time or comment.
pub(super) fn identity(root: ObjectId, origin: OriginRecord) -> ObjectId {
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
pub(super) fn identity_of(image: &ImageRecord) -> ObjectId {
    identity(image.root, image.origin)
}

/// The keys in [`Identities`] of images with one identity, the first of which is the identity itself: that is where the next
/// import looks. Only a repair leaves more than one of them; their rows have no gap.
pub(super) fn identity_keys(identity: ObjectId) -> impl Iterator<Item = ObjectId> {
    let further = (1_u64..).map(move |number| {
        let parts = [identity.as_bytes(), number.to_le_bytes().as_slice()].concat();
        ObjectId::from_bytes(blake3::derive_key("layerstone v1 further image of an identity", &parts))
    });
    std::iter::once(identity).chain(further)
}

/// Removes the row by which an image's content finds it. The last row of its identity takes the place.
pub(super) fn forget_identity(tx: &mut WriteTx, scope: ProjectId, image: &ImageRecord) -> Result<()> {
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
