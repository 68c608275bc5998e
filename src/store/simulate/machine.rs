//! A machine whose clock, chance and processes come from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::catalog::record::HolderRecord;
use crate::disk::simulated::Chance;
use crate::time::Moment;

/// 2026 began.
const FIRST_MS: u64 = 1_767_225_600_000;
/// Clocks are wrong by at most so much.
const WRONG_BY_MS: u64 = 60 * 60 * 1000;

/// One boot of a simulated machine, and the one process on it: to another boot, its leases are dead.
#[derive(Debug)]
pub struct SimulatedMachine {
    boot: u64,
    /// Readings of the clock and random numbers so far.
    drawn: AtomicU64,
}

impl SimulatedMachine {
    /// The machine since this boot, of which so much was drawn before.
    #[must_use]
    pub const fn new(boot: u64, drawn: u64) -> Self {
        Self { boot, drawn: AtomicU64::new(drawn) }
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
        HolderRecord { boot, process: 1, namespace: 1, started_ticks: 1 }
    }
}
