//! Which packs are worth collecting.

use std::collections::{HashMap, HashSet};

use crate::catalog::ReadTables;
use crate::catalog::record::{OpenPackRecord, SealedPackRecord};
use crate::catalog::table::{Leases, OpenPacks, SealedPacks};
use crate::error::Result;
use crate::id::PackId;
use crate::pack::frame::PACK_HEAD_BYTES;

use super::marks::PackUse;

/// Bytes that are copied between two condemnations: what a collection needs of the disk before it frees anything.
const BATCH_BYTES: u64 = 256 << 20;

/// Packs as a collection finds them.
pub(super) struct Packs {
    sealed: Vec<(PackId, SealedPackRecord)>,
    /// Those that nobody is adding to now.
    open: Vec<(PackId, OpenPackRecord)>,
    /// Bytes of all packs.
    pub(super) bytes: u64,
}

/// How much of a pack must be unneeded to be worth it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threshold {
    pub(super) is_full: bool,
}

/// Packs to collect.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nothing is needed of them.
    pub(super) unneeded: Vec<(PackId, SealedPackRecord)>,
    /// What is needed of them is to be copied: in turns.
    pub(super) to_copy: Vec<Vec<(PackId, SealedPackRecord)>>,
    /// Bytes of frames to be copied.
    pub(super) copied_bytes: u64,
    /// About how many bytes of the packs that stay are unneeded.
    pub(super) unneeded_bytes: u64,
}

impl Packs {
    pub(super) fn list(tx: &impl ReadTables) -> Result<Self> {
        let leases: HashSet<_> = tx.collect::<Leases>(&[])?.into_iter().map(|(lease, _)| lease).collect();
        let open = tx.collect::<OpenPacks>(&[])?;
        let sealed = tx.collect::<SealedPacks>(&[])?;
        let bytes = open.iter().map(|(_, record)| record.committed_bytes).sum::<u64>()
            + sealed.iter().map(|(_, record)| record.bytes).sum::<u64>();
        let is_filled =
            |record: &SealedPackRecord| record.filled_by.is_none_or(|lease| !leases.contains(&lease));
        Ok(Self {
            sealed: sealed.into_iter().filter(|(_, record)| is_filled(record)).collect(),
            open: open
                .into_iter()
                .filter(|(_, record)| record.owner.is_none() && record.committed_bytes > 0)
                .collect(),
            bytes,
        })
    }

    /// Open packs that are worth collecting: they must be sealed first.
    pub(super) fn to_seal(&self, uses: &HashMap<PackId, PackUse>, threshold: Threshold) -> Vec<PackId> {
        let open = self.open.iter().filter(|(pack, record)| {
            threshold.is_worth(&as_sealed(record), uses.get(pack).copied().unwrap_or_default())
        });
        open.map(|(pack, _)| *pack).collect()
    }

    /// Open packs of which nothing is needed.
    pub(super) fn unneeded_open(&self, uses: &HashMap<PackId, PackUse>) -> Vec<(PackId, OpenPackRecord)> {
        self.open.iter().filter(|(pack, _)| !uses.contains_key(pack)).copied().collect()
    }

    /// What to do with the packs. Open ones were not worth sealing, unless they are to be taken for sealed.
    pub(super) fn plan(
        &self,
        uses: &HashMap<PackId, PackUse>,
        threshold: Threshold,
        takes_open: bool,
    ) -> Plan {
        let mut plan = Plan::default();
        let mut packs = self.sealed.clone();
        let open = self.open.iter().map(|(pack, record)| (*pack, as_sealed(record)));
        if takes_open {
            packs.extend(open);
        } else {
            let needed = |pack: &PackId| uses.get(pack).copied().unwrap_or_default();
            plan.unneeded_bytes = open.map(|(pack, record)| unneeded_bytes(&record, needed(&pack))).sum();
        }
        let mut partly = Vec::new();
        for (pack, record) in packs {
            let needed = uses.get(&pack).copied().unwrap_or_default();
            if needed.objects == 0 {
                plan.unneeded.push((pack, record));
            } else if threshold.is_worth(&record, needed) {
                partly.push((unneeded_bytes(&record, needed), needed.bytes, (pack, record)));
            } else {
                plan.unneeded_bytes += unneeded_bytes(&record, needed);
            }
        }
        // What frees most for each byte that is copied comes first.
        partly.sort_unstable_by_key(|(unneeded, needed, (pack, _))| {
            (std::cmp::Reverse(unneeded * 1000 / (needed + 1)), *pack)
        });
        let mut bytes = BATCH_BYTES;
        for (_, needed, pack) in partly {
            plan.copied_bytes += needed;
            if bytes + needed > BATCH_BYTES {
                plan.to_copy.push(Vec::new());
                bytes = 0;
            }
            bytes += needed;
            plan.to_copy.last_mut().into_iter().for_each(|batch| batch.push(pack));
        }
        plan
    }
}

fn as_sealed(record: &OpenPackRecord) -> SealedPackRecord {
    let OpenPackRecord { committed_bytes: bytes, objects, domain, .. } = *record;
    SealedPackRecord { bytes, objects, domain, filled_by: None }
}

impl Threshold {
    fn is_worth(self, record: &SealedPackRecord, needed: PackUse) -> bool {
        let (unneeded, part) = if self.is_full {
            (unneeded_bytes(record, needed), 32)
        } else {
            (frame_bytes(record).saturating_sub(needed.bytes), 3)
        };
        needed.objects == 0 || unneeded > frame_bytes(record) / part
    }
}

fn frame_bytes(record: &SealedPackRecord) -> u64 {
    record.bytes.saturating_sub(PACK_HEAD_BYTES as u64)
}

/// About how many of a pack's bytes nothing needs: whole frames, or in proportion to their objects.
fn unneeded_bytes(record: &SealedPackRecord, needed: PackUse) -> u64 {
    let whole = frame_bytes(record).saturating_sub(needed.bytes);
    let objects = record.objects.saturating_sub(needed.objects);
    let share = u128::from(frame_bytes(record)) * u128::from(objects) / u128::from(record.objects.max(1));
    whole.max(u64::try_from(share).unwrap_or(u64::MAX))
}
