//! Where nodes begin: the part of the format that makes a tree's root a function of its map alone.
//!
//! The rule is the same on every level, over that level's items (entries, or nodes by their first key):
//! 1. An item whose [`priority`] is in the lowest 1/32 begins a node. This looks at one key alone, so an edit
//!    cannot move a boundary that it does not touch. What lies between two such items is a *natural run*.
//! 2. A natural run over the [caps](MAX_ITEMS) is split before its item of smallest priority, and so are the
//!    parts, until all are within. The caps count items and bytes of keys, never values: a change of a value
//!    does not move a boundary.
//!
//! The level is mixed into the priority, so names mined to be bad on one level are random on all others. On
//! the mined level one edit changes at most about [`MAX_ITEMS`] nodes, but it reads its whole natural run.

use crate::id::ObjectId;
use crate::path::TreePath;

/// Items that a node has at most.
pub(super) const MAX_ITEMS: usize = 128;
/// Bytes that the keys of a node's items have at most, uncompressed, unless there is only one.
pub(super) const MAX_KEY_BYTES: usize = 32 << 10;

/// Below this a priority begins a node: one in 32.
const BOUNDARY: u64 = 1 << 59;

/// The rank of a key on a level: uniformly distributed.
pub(super) fn priority(path: &TreePath, level: u8) -> u64 {
    mix(ObjectId::from_bytes(blake3::hash(path.as_key()).into()).prefix(), level)
}

/// A number that depends on all bits of `value` and on the level (the finaliser of `SplitMix64`).
pub(super) fn mix(value: u64, level: u8) -> u64 {
    let mut z = value.wrapping_add((u64::from(level) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether an item of this priority begins a node wherever it stands.
pub(super) fn is_boundary(priority: u64) -> bool {
    priority < BOUNDARY
}

/// What the shape rule looks at in an item.
#[derive(Clone, Copy)]
pub(super) struct Weight {
    /// The key's rank on this level.
    pub(super) priority: u64,
    /// The key's length.
    pub(super) key_bytes: usize,
}

/// For each item of a natural run, whether it begins a node. The first always does.
///
/// Splitting at the smallest, then the parts at theirs, is the Cartesian tree of the priorities. An item is a
/// split exactly if the part it would split, which reaches from the nearest smaller item before it to the
/// nearest smaller one after it, is over the caps: parts only shrink on the way down. One pass with a stack
/// finds both neighbours of every item, so names that make the tree deep cost nothing.
pub(super) fn splits(run: &[Weight]) -> Vec<bool> {
    struct Candidate {
        index: usize,
        /// Key bytes of the run before this item.
        before: usize,
        priority: u64,
    }
    let mut is_split = vec![false; run.len()];
    let mut bytes = 0;
    let mut stack: Vec<Candidate> = Vec::new();
    // Inner items of a natural run have priorities above zero, so the end and the first item bound them all.
    let end = Weight { priority: 0, key_bytes: 0 };
    for (index, weight) in run.iter().chain([&end]).enumerate() {
        while let Some(top) = stack.pop_if(|top| weight.priority < top.priority) {
            let (from, before) = stack.last().map_or((0, 0), |below| (below.index, below.before));
            if exceeds_caps(index - from, bytes - before)
                && let Some(flag) = is_split.get_mut(top.index)
            {
                *flag = true;
            }
        }
        let priority = if index == 0 { 0 } else { weight.priority };
        stack.push(Candidate { index, before: bytes, priority });
        bytes += weight.key_bytes;
    }
    if let Some(first) = is_split.first_mut() {
        *first = true;
    }
    is_split
}

/// Whether so many items with so many key bytes are too much for one node.
pub(super) fn exceeds_caps(items: usize, key_bytes: usize) -> bool {
    items > MAX_ITEMS || (key_bytes > MAX_KEY_BYTES && items > 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule as it is said: split at the smallest, then the parts.
    fn naive(run: &[Weight], from: usize, is_split: &mut [bool]) {
        let bytes = run.iter().map(|weight| weight.key_bytes).sum();
        if !exceeds_caps(run.len(), bytes) {
            return;
        }
        let (at, _) = run.iter().enumerate().skip(1).min_by_key(|(index, w)| (w.priority, *index)).unwrap();
        is_split[from + at] = true;
        naive(&run[..at], from, is_split);
        naive(&run[at..], from + at, is_split);
    }

    proptest! {
        #[test]
        fn the_stack_finds_what_recursion_finds(
            items in proptest::collection::vec((1..500_u64, 1..2000_usize), 1..600),
        ) {
            let run: Vec<Weight> =
                items.iter().map(|(priority, key_bytes)| Weight { priority: *priority, key_bytes: *key_bytes }).collect();
            let mut expected = vec![false; run.len()];
            expected[0] = true;
            naive(&run, 0, &mut expected);
            prop_assert_eq!(splits(&run), expected);
        }
    }

    #[test]
    fn priorities_are_pinned() {
        let path = TreePath::parse(b"usr/bin/env").unwrap();
        let expected = [12_308_446_697_528_407_174, 2_507_306_128_300_019_237, 7_414_280_689_708_116_402];
        assert_eq!([0, 1, 2].map(|level| priority(&path, level)), expected);
    }
}
