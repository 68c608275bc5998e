//! Transactions whose closures run twice, so that tests show that a closure can: with `LAYERSTONE_RERUN` in the environment,
//! what the first run returned and changed is thrown away.

use std::sync::OnceLock;

/// Whether closures run twice.
pub(super) fn is_on() -> bool {
    static IS_ON: OnceLock<bool> = OnceLock::new();
    *IS_ON.get_or_init(|| std::env::var_os("LAYERSTONE_RERUN").is_some())
}
