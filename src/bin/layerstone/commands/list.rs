//! What commands over a list have in common: all that can be done is done.

use layerstone::Error;

use super::Outcome;
use crate::output::{Output, Report};
use crate::{Failure, interrupt};

/// Does `act` with each of `items` and shows what came of it, as JSON in one array. A failure keeps no other item from its
/// turn, and neither does a reader of the output that goes away; all failures are the command's.
pub(super) fn each<'i, T, R: Report>(
    out: &Output,
    items: &'i [T],
    act: impl Fn(&'i T) -> Result<R, Error>,
) -> Outcome {
    let mut printed = Ok(());
    let (reports, failures) = attempt(items, |item| {
        let report = act(item)?;
        if !out.json && printed.is_ok() {
            printed = report.text();
        }
        Ok(report)
    });
    if out.json {
        printed = Output::json(&reports);
    }
    finish(failures)?;
    printed.map_err(|error| Failure::Unreported { error, done: "all of the list was done".to_owned() })
}

/// What came of doing `act` with each of `items`, and why it failed with the others.
pub(super) fn attempt<'i, T, R>(
    items: &'i [T],
    mut act: impl FnMut(&'i T) -> Result<R, Error>,
) -> (Vec<R>, Vec<Error>) {
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for item in items {
        match act(item) {
            Ok(report) => reports.push(report),
            Err(error) => {
                failures.push(error);
                if interrupt::task().is_cancelled() {
                    break;
                }
            }
        }
    }
    (reports, failures)
}

/// The command's outcome.
pub(super) fn finish(failures: Vec<Error>) -> Outcome {
    if failures.is_empty() { Ok(()) } else { Err(Failure::Several(failures)) }
}
