//! Transactions whose closures run twice, so that tests show that a closure can: with `LAYERSTONE_RERUN` in the environment,
//! about every second one, whose first run is thrown away with all that it returned and changed.

use std::cell::Cell;
use std::sync::OnceLock;

/// Whether the next closure runs twice: the same of the calls of a thread in each run.
pub(super) fn is_due() -> bool {
    static IS_ON: OnceLock<bool> = OnceLock::new();
    thread_local!(static STATE: Cell<u64> = const { Cell::new(1) });
    let is_on = *IS_ON.get_or_init(|| std::env::var_os("LAYERSTONE_RERUN").is_some());
    is_on
        && STATE.with(|state| {
            // Knuth's generator, whose highest bit is the best.
            state.set(
                state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407),
            );
            state.get() >> 63 == 1
        })
}
