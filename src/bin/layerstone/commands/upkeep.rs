//! Commands that look after a whole store.

use layerstone::{Error, Store};

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
