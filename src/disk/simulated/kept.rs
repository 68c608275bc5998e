//! Which unsynced changes of a file a crash kept.

use super::Chance;
use super::media::Change;
use super::pages::{PAGE_BYTES, Pages};

/// What became of a file's unsynced changes, which are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// None was kept.
    Nothing,
    /// All were.
    All,
    /// The first so many.
    First(usize),
    /// Those that a seed chooses.
    Some(u64),
    /// All but this one.
    AllBut(usize),
    /// This one only.
    Only(usize),
    /// Of one only the first bytes, with all before it, and all after it or none.
    Torn {
        /// Which.
        change: usize,
        /// How many bytes of it.
        bytes: usize,
        /// Whether those after it were kept.
        with_later: bool,
    },
    /// Of each write those pages that a seed chooses.
    SomePages(u64),
    /// The length; of the bytes, only those in place of old ones, if any.
    Length {
        /// Whether those were kept.
        with_overwritten: bool,
        /// Chooses what is where the file grew: zeros without it.
        stale: Option<u64>,
    },
    /// The bytes as far as the old length goes.
    BytesOnly,
}

impl Kept {
    pub(super) fn choose(chance: &mut Chance, changes: &[Change]) -> Self {
        let change = chance.index(changes.len());
        match chance.below(24) {
            0..6 => Self::All,
            6..11 => Self::Nothing,
            11..13 => Self::First(change),
            13..15 => Self::Some(chance.next()),
            15 => Self::AllBut(change),
            16 => Self::Only(change),
            17..20 => {
                let len =
                    if let Some(Change::Write { bytes, .. }) = changes.get(change) { bytes.len() } else { 0 };
                let unit = chance.pick(&[512, PAGE_BYTES, 1]).copied().unwrap_or(1);
                let bytes = chance.index(len.div_ceil(unit)) * unit;
                Self::Torn { change, bytes, with_later: chance.flip() }
            }
            20 => Self::SomePages(chance.next()),
            21 => Self::Length { with_overwritten: chance.flip(), stale: None },
            22 => Self::Length { with_overwritten: chance.flip(), stale: Some(chance.next()) },
            _ => Self::BytesOnly,
        }
    }

    /// The file with what was kept.
    pub(super) fn apply(&self, durable: &Pages, changes: &[Change]) -> Pages {
        let mut pages = durable.clone();
        let mut keep = |is_kept: &mut dyn FnMut(usize) -> bool| {
            let kept = changes.iter().enumerate().filter(|(number, _)| is_kept(*number));
            kept.for_each(|(_, change)| change.apply(&mut pages));
        };
        match *self {
            Self::Nothing => {}
            Self::All => keep(&mut |_| true),
            Self::First(count) => keep(&mut |number| number < count),
            Self::Some(seed) => {
                let mut chance = Chance::new(seed);
                keep(&mut |_| chance.flip());
            }
            Self::AllBut(lost) => keep(&mut |number| number != lost),
            Self::Only(kept) => keep(&mut |number| number == kept),
            Self::Torn { change: torn, bytes: kept, with_later } => {
                for (number, change) in changes.iter().enumerate() {
                    match change {
                        Change::Write { offset, bytes } if number == torn => {
                            pages.write(*offset, bytes.get(..kept).unwrap_or(bytes));
                        }
                        _ if number < torn || with_later => change.apply(&mut pages),
                        _ => {}
                    }
                }
            }
            Self::SomePages(seed) => keep_pages(&mut pages, changes, &mut Chance::new(seed)),
            Self::Length { with_overwritten, stale } => {
                if with_overwritten {
                    keep_within(&mut pages, changes);
                }
                let mut whole = durable.clone();
                for change in changes {
                    change.apply(&mut whole);
                }
                pages.set_len(whole.len());
                if let Some(seed) = stale {
                    fill_with_stale(&mut pages, durable, &mut Chance::new(seed));
                }
            }
            Self::BytesOnly => keep_within(&mut pages, changes),
        }
        pages
    }
}

/// Writes that are within the file, and the parts of others that are.
fn keep_within(pages: &mut Pages, changes: &[Change]) {
    let len = pages.len();
    for change in changes {
        if let Change::Write { offset, bytes } = change {
            let within = usize::try_from(len.saturating_sub(*offset)).unwrap_or(usize::MAX);
            let within = bytes.get(..within).unwrap_or(bytes);
            if !within.is_empty() {
                pages.write(*offset, within);
            }
        }
    }
}

fn keep_pages(pages: &mut Pages, changes: &[Change], chance: &mut Chance) {
    for change in changes {
        match change {
            Change::SetLen(len) if chance.flip() => pages.set_len(*len),
            Change::SetLen(_) => {}
            Change::Write { offset, bytes } => {
                let (mut at, mut rest) = (*offset, &**bytes);
                while !rest.is_empty() {
                    let to_border = PAGE_BYTES - usize::try_from(at).unwrap_or(0) % PAGE_BYTES;
                    let (part, after) = rest.split_at(to_border.min(rest.len()));
                    if chance.flip() {
                        pages.write(at, part);
                    }
                    at += part.len() as u64;
                    rest = after;
                }
            }
        }
    }
}

/// Fills where the file grew with what was on the disk there before: bytes of the same file from elsewhere, which look like
/// what should be there, or anything.
fn fill_with_stale(pages: &mut Pages, durable: &Pages, chance: &mut Chance) {
    let (old, new) = (durable.len(), pages.len());
    let grown = usize::try_from(new.saturating_sub(old)).unwrap_or(0);
    if grown == 0 {
        return;
    }
    let mut stale = chance.bytes(grown);
    if chance.flip() {
        let from = chance.below(old);
        durable.read(from - from % 512, &mut stale);
    }
    pages.write(old, &stale);
}
