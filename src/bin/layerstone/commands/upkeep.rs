//! Commands that look after a whole store.

use std::path::Path;

use layerstone::{Error, RepairOptions, Store, StoreOptions};

use crate::output::Output;
use crate::show;
use crate::{Failure, commands::Outcome};

/// Reads everything back; damage is a failure.
pub(super) fn verify(store: &Store, out: &Output, quick: bool) -> Outcome {
    let report = if quick { store.verify_quick()? } else { store.verify()? };
    let _: () = if out.json { Output::json(&report)? } else { show::damage::verified(&report, quick)? };
    if report.is_sound() {
        return Ok(());
    }
    Err(Failure::Store(Error::damaged(store.location())))
}

/// Makes a damaged store a sound one; what is lost is a failure.
pub(super) fn repair(options: StoreOptions, location: &Path, out: &Output, include_removed: bool) -> Outcome {
    let report = options.repair(location, RepairOptions { include_removed })?;
    let _: () = if out.json { Output::json(&report)? } else { show::damage::repaired(&report, location)? };
    if report.has_losses() { Err(Failure::Store(Error::lost(location))) } else { Ok(()) }
}
