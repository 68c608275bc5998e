//! What one closure changes, kept apart from the transaction until the closure has succeeded: redb can take back only a
//! whole transaction, and several closures share one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::error::Result;

use super::{Direction, KeyRange, Visitor};

/// A record's new bytes; none where it is removed.
type Change = Option<Vec<u8>>;

/// What was changed, by table and key: ordered, so that the same changes are always made in the same order.
#[derive(Debug, Default)]
pub(super) struct Attempt(BTreeMap<&'static str, BTreeMap<Vec<u8>, Change>>);

impl Attempt {
    /// What became of the record under a key, if it was changed at all.
    pub(super) fn get(&self, table: &str, key: &[u8]) -> Option<&Change> {
        self.0.get(table)?.get(key)
    }

    pub(super) fn change(&mut self, table: &'static str, key: Vec<u8>, change: Change) {
        self.0.entry(table).or_default().insert(key, change);
    }

    /// Every change.
    pub(super) fn changes(self) -> impl Iterator<Item = (&'static str, Vec<u8>, Change)> {
        let of_table = |(table, changes): (_, BTreeMap<_, _>)| {
            changes.into_iter().map(move |(key, value)| (table, key, value))
        };
        self.0.into_iter().flat_map(of_table)
    }

    /// Visits what `scan` gives, as the attempt has changed it, in the same order.
    pub(super) fn scan_over(
        &self,
        table: &str,
        bounds: &KeyRange,
        direction: Direction,
        scan: impl FnOnce(&mut Visitor<'_>) -> Result<ControlFlow<()>>,
        visit: &mut Visitor<'_>,
    ) -> Result<()> {
        // A map panics where a range ends before it begins; redb finds nothing there.
        let within = self.0.get(table).into_iter().flatten();
        let within = within.filter(|(key, _)| std::ops::RangeBounds::contains(bounds, *key));
        let mut changes: Vec<_> = within.collect();
        if direction == Direction::Descending {
            changes.reverse();
        }
        let mut changes = changes.into_iter().peekable();
        let is_before = |one: &[u8], other: &[u8]| match direction {
            Direction::Ascending => one < other,
            Direction::Descending => one > other,
        };
        let visit_change = |(key, value): (&Vec<u8>, &Change), visit: &mut Visitor<'_>| {
            value.as_ref().map_or(Ok(ControlFlow::Continue(())), |value| visit((key.clone(), value.clone())))
        };
        let outcome = scan(&mut |(key, value)| {
            while let Some(change) = changes.next_if(|(changed, _)| is_before(changed, &key)) {
                if visit_change(change, visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            match changes.next_if(|(changed, _)| **changed == key) {
                Some(change) => visit_change(change, visit),
                None => visit((key, value)),
            }
        })?;
        if outcome.is_break() {
            return Ok(());
        }
        for change in changes {
            if visit_change(change, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
