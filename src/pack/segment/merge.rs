//! Merging segments, so that a look-up meets few of them however large the store is.

use crate::disk::Disk;
use crate::error::Result;
use crate::id::SegmentId;
use crate::pack::Locator;

use super::writer::SegmentWriter;
use super::{ObjectId, Segment};

/// How many segments of one size become one: each object is written again once for every fourfold growth of the store,
/// and of each size there are at most three.
const FAN_IN: usize = 4;

/// The size class of a segment: each holds segments of up to four times as many rows as the one before.
fn tier(rows: u64) -> u32 {
    rows.max(1).ilog2() / FAN_IN.ilog2()
}

/// Which of the segments with these numbers of rows are to be merged now: enough of one size, and with them all that are
/// smaller.
pub(crate) fn due_for_merge(segments: impl IntoIterator<Item = (SegmentId, u64)>) -> Option<Vec<SegmentId>> {
    let mut by_size: Vec<_> = segments.into_iter().collect();
    by_size.sort_unstable_by_key(|(id, rows)| (tier(*rows), *id));
    let runs = by_size.chunk_by(|(_, one), (_, other)| tier(*one) == tier(*other));
    let mut smaller = 0;
    for run in runs {
        smaller += run.len();
        if run.len() >= FAN_IN {
            return by_size.get(..smaller).map(|due| due.iter().map(|(id, _)| *id).collect());
        }
    }
    None
}

/// Writes a segment that has the rows of all `inputs`, and gives their number. Of an object that several have, the first
/// one's row stays.
///
/// Fails with *corrupt* if an input is not what was written: its damage must not get a hash of its own.
pub(crate) fn merge(disk: &dyn Disk, segment: SegmentId, inputs: &[impl AsRef<Segment>]) -> Result<u64> {
    inputs.iter().try_for_each(|input| input.as_ref().check_body())?;
    let rows_max = inputs.iter().map(|input| input.as_ref().len()).sum();
    let mut writer = SegmentWriter::create(disk, segment, rows_max)?;
    let mut sources: Vec<_> = inputs.iter().map(|input| input.as_ref().rows().peekable()).collect();
    let mut last = None;
    loop {
        let mut least: Option<(usize, ObjectId, Locator)> = None;
        for (number, source) in sources.iter_mut().enumerate() {
            match source.peek() {
                Some(Ok((id, place))) if least.as_ref().is_none_or(|(_, least, _)| id < least) => {
                    least = Some((number, *id, *place));
                }
                None | Some(Ok(_)) => {}
                Some(Err(_)) => return source.next().map_or(Ok(0), |row| row.map(|_| 0)),
            }
        }
        let Some((number, id, place)) = least else { return writer.finish() };
        sources.get_mut(number).and_then(Iterator::next);
        if last != Some(id) {
            writer.push(&id, place)?;
            last = Some(id);
        }
    }
}
