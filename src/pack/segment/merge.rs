//! Merging segments, so that a look-up meets few of them however large the store is.

use std::iter::Peekable;

use crate::disk::Disk;
use crate::error::Result;
use crate::id::{ObjectId, PackId, SegmentId};

use super::writer::{too_large, write_sorted};
use super::{FramePlace, RowPlace, Segment};

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

/// Writes a segment that has the rows of all `inputs`, but those of packs that are gone, and gives their number. Where an
/// object is in several packs all its rows stay: any of these packs may go before the others.
///
/// Fails with *corrupt* if an input is not what was written: its damage must not get a hash of its own.
pub(crate) fn merge(
    disk: &dyn Disk,
    segment: SegmentId,
    inputs: &[impl AsRef<Segment>],
    is_gone: impl Fn(PackId) -> bool,
) -> Result<u64> {
    inputs.iter().try_for_each(|input| input.as_ref().check_body())?;
    let is_there = |frame: &FramePlace| !is_gone(frame.pack);
    let rows_max = inputs.iter().map(|input| input.as_ref().len()).sum();
    let mut frames = 0_u32;
    let mut sources = Vec::new();
    for input in inputs {
        // One list behind the other.
        let mut numbers = Vec::new();
        for frame in input.as_ref().frames() {
            numbers.push(is_there(&frame).then_some(frames));
            if is_there(&frame) {
                frames = frames.checked_add(1).ok_or_else(|| too_large(segment))?;
            }
        }
        let renumber = move |row: Result<(ObjectId, RowPlace)>| match row {
            Ok((id, place)) => {
                let number = usize::try_from(place.frame).ok().and_then(|frame| *numbers.get(frame)?);
                number.map(|frame| Ok((id, RowPlace { frame, ..place })))
            }
            Err(error) => Some(Err(error)),
        };
        sources.push(input.as_ref().numbered_rows().filter_map(renumber).peekable());
    }
    let frames = inputs.iter().flat_map(|input| input.as_ref().frames()).filter(is_there);
    write_sorted(disk, segment, frames, rows_max, Merged { sources })
}

/// The rows of several segments in order.
struct Merged<I: Iterator> {
    sources: Vec<Peekable<I>>,
}

impl<I: Iterator<Item = Result<(ObjectId, RowPlace)>>> Iterator for Merged<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let mut least: Option<(usize, ObjectId)> = None;
        for (number, source) in self.sources.iter_mut().enumerate() {
            match source.peek() {
                Some(Ok((id, _))) if least.as_ref().is_none_or(|(_, least)| id < least) => {
                    least = Some((number, *id));
                }
                None | Some(Ok(_)) => {}
                Some(Err(_)) => return source.next(),
            }
        }
        self.sources.get_mut(least?.0)?.next()
    }
}
