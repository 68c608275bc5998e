//! Transactions whose closures run twice, so that tests show that a closure can: with `LAYERSTONE_RERUN` in the environment,
//! about every second one, whose first run is thrown away with all that it returned and changed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which closures of an open catalog run twice: the same of the same calls, so that what is simulated can be played again.
#[derive(Debug, Default)]
pub(super) struct Reruns(AtomicU64);

impl Reruns {
    /// Whether the next closure runs twice.
    pub(super) fn is_due(&self) -> bool {
        static IS_ON: OnceLock<bool> = OnceLock::new();
        let is_on = *IS_ON.get_or_init(|| std::env::var_os("LAYERSTONE_RERUN").is_some());
        // Bits of the number's product with the golden ratio are as good as drawn.
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        is_on && number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 1
    }
}
