//! A machine whose clock, chance and processes come from a seed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::catalog::record::HolderRecord;
use crate::disk::simulated::Chance;
use crate::sync::lock;
use crate::time::Moment;

/// 2026 began.
const FIRST_MS: u64 = 1_767_225_600_000;
/// Clocks are wrong by at most so much.
const WRONG_BY_MS: u64 = 60 * 60 * 1000;

/// A process on one boot of a simulated machine: to another boot, its leases are dead.
#[derive(Debug)]
pub struct SimulatedMachine {
    boot: u64,
    process: u32,
    /// The processes of this boot that ended.
    ended: Arc<Mutex<BTreeSet<u32>>>,
    /// Readings of the clock and random numbers so far.
    drawn: AtomicU64,
}

impl SimulatedMachine {
    /// The machine since this boot, of which so much was drawn before.
    #[must_use]
    pub fn new(boot: u64, drawn: u64) -> Self {
        Self { boot, process: 1, ended: Arc::default(), drawn: AtomicU64::new(drawn) }
    }

    /// Another process on the same boot: the one of this number, which is not 1.
    #[must_use]
    pub fn beside(&self, process: u32) -> Self {
        let drawn = AtomicU64::new(u64::from(process) << 32);
        Self { boot: self.boot, process, ended: Arc::clone(&self.ended), drawn }
    }

    /// The process is killed: its leases are dead to the others.
    pub fn kill(&self) {
        lock(&self.ended).insert(self.process);
    }

    fn chance(&self) -> (u64, Chance) {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        (drawn, Chance::of(&[self.boot, drawn]))
    }

    /// A clock that runs, is wrong by up to an hour since the boot, and is set back now and then.
    pub(crate) fn now(&self) -> Moment {
        let (drawn, mut chance) = self.chance();
        let wrong_ms = Chance::new(self.boot).below(WRONG_BY_MS);
        let back_ms = if chance.below(16) == 0 { chance.below(WRONG_BY_MS) } else { 0 };
        Moment::from_unix_ms(FIRST_MS + WRONG_BY_MS + wrong_ms + drawn - back_ms)
    }

    pub(crate) fn random(&self) -> u64 {
        self.chance().1.next()
    }

    pub(crate) fn process(&self) -> HolderRecord {
        let boot = format!("simulated {}", self.boot);
        HolderRecord { boot, process: self.process, namespace: 1, started_ticks: 1 }
    }

    pub(crate) fn is_dead(&self, holder: &HolderRecord) -> bool {
        let is_of_boot = HolderRecord { process: holder.process, ..self.process() } == *holder;
        let ended = lock(&self.ended);
        !is_of_boot || ended.contains(&holder.process)
    }
}
