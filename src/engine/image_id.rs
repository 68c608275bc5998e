//! Ids of images: UUIDs of version 7, each later than all that the store gave out before.

use uuid::Uuid;

use crate::catalog::table::{Sequence, Sequences};
use crate::catalog::{ReadTables, WriteTx};
use crate::error::Result;
use crate::id::ImageId;
use crate::sync::lock;
use crate::time::Moment;

use super::Engine;

impl Engine {
    /// A new image's id: later than every id that was given out before, by whichever process.
    pub(crate) fn next_image_id(&self, tx: &impl ReadTables) -> Result<ImageId> {
        let mut last = lock(&self.last_image);
        let floor = tx.last(Sequence::Image)?.max(*last);
        *last = first_of(self.surroundings.now().unix_ms()).max(floor + 1);
        Ok(image_id(*last, self.surroundings.random_half()))
    }
}

/// Bits of an image id's time that count within a millisecond.
const COUNTER_BITS: u32 = 12;

/// A version 7 UUID of this time and counter, and random bits.
pub(crate) fn image_id(time_and_counter: u64, random_half: u64) -> ImageId {
    let ms = time_and_counter >> COUNTER_BITS;
    let counter = time_and_counter & ((1 << COUNTER_BITS) - 1);
    let high = u128::from((ms << 16) | 0x7000 | counter);
    ImageId::from_uuid(Uuid::from_u128((high << 64) | u128::from(random_half)))
}

/// Milliseconds since 1970 from which on ids count up by themselves: a clock that is further ahead must not use them up.
const TIME_MAX_MS: u64 = 1 << 47;

/// The first time and counter of a millisecond.
pub(crate) fn first_of(ms: u64) -> u64 {
    ms.min(TIME_MAX_MS) << COUNTER_BITS
}

/// The time and counter in an image id.
pub(crate) fn time_and_counter(id: ImageId) -> u64 {
    let (high, _) = id.as_uuid().as_u64_pair();
    ((high >> 16) << COUNTER_BITS) | (high & 0xfff)
}

/// The latest moment at which an image can have been made: the id is from then, or was pushed above an earlier one. For an
/// image that is there, its record says when it was.
pub(crate) fn latest_created(id: ImageId) -> Moment {
    Moment::from_unix_ms(time_and_counter(id) >> COUNTER_BITS)
}

/// Records that this image id was used.
pub(crate) fn remember_image_id(tx: &mut WriteTx, id: ImageId) -> Result<()> {
    let newest = tx.last(Sequence::Image)?.max(time_and_counter(id));
    tx.put::<Sequences>(&Sequence::Image, &newest)
}
