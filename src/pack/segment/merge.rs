//! Merging segments, so that a look-up meets few of them however large the store is.

use std::iter::Peekable;

use crate::disk::Disk;
use crate::error::Result;
use crate::id::{ObjectId, SegmentId};

use super::writer::{too_large, write_sorted};
use super::{RowPlace, Segment};

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
    let mut frames = 0_u32;
    let mut sources = Vec::new();
    for input in inputs {
        // One list behind the other: a row's frame has as many more before it.
        let before = frames;
        let renumber = move |row: Result<(ObjectId, RowPlace)>| {
            let (id, place) = row?;
            let frame = place.frame.checked_add(before).ok_or_else(|| too_large(segment))?;
            Ok((id, RowPlace { frame, ..place }))
        };
        sources.push(input.as_ref().numbered_rows().map(renumber).peekable());
        frames = frames.checked_add(input.as_ref().head.frames).ok_or_else(|| too_large(segment))?;
    }
    let frames = inputs.iter().flat_map(|input| input.as_ref().frames());
    write_sorted(disk, segment, frames, rows_max, Merged { sources, last: None })
}

/// The rows of several segments in order, each object once.
struct Merged<I: Iterator> {
    sources: Vec<Peekable<I>>,
    last: Option<ObjectId>,
}

impl<I: Iterator<Item = Result<(ObjectId, RowPlace)>>> Merged<I> {
    /// The row that comes next, of whichever source.
    fn next_row(&mut self) -> Option<I::Item> {
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

impl<I: Iterator<Item = Result<(ObjectId, RowPlace)>>> Iterator for Merged<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        loop {
            let row = self.next_row()?;
            let id = row.as_ref().ok().map(|(id, _)| *id);
            if id.is_none() || self.last != id {
                self.last = id;
                return Some(row);
            }
        }
    }
}
