//! What a command that takes long does, on standard error while it does it.
//!
//! On a terminal it is one line, which is gone before anything else is printed; elsewhere, if it is asked for, a line every
//! few seconds.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use layerstone::{Phase, Progress};

use crate::interrupt;
use crate::left::{self, Stream};
use crate::output::{Output, size};

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressKind {
    /// A line on a terminal, unless JSON or quiet output is asked for
    #[default]
    Auto,
    /// A line every few seconds
    Plain,
    /// Nothing
    None,
}

/// What takes less shows nothing.
const SHORTEST: Duration = Duration::from_millis(400);
const TICK: Duration = Duration::from_millis(100);
const BETWEEN_LINES: Duration = Duration::from_secs(3);

/// The line that is on the terminal now.
static LINE: Mutex<Option<ProgressBar>> = Mutex::new(None);
static IS_PAUSED: AtomicBool = AtomicBool::new(false);

/// Begins to show progress; `is_silent` if only results are wanted.
pub(crate) fn begin(kind: ProgressKind, is_silent: bool) {
    let is_terminal =
        std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let shows: fn() = match kind {
        ProgressKind::Plain => show_lines,
        ProgressKind::Auto if is_terminal && !is_silent => show_line,
        ProgressKind::Auto | ProgressKind::None => return,
    };
    // Without a thread the command goes on without progress. It ends with the program.
    let _ = std::thread::Builder::new().name("progress".into()).spawn(shows);
}

/// Takes the line away, before something else is printed.
pub(crate) fn clear() {
    if let Some(line) = LINE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        line.finish_and_clear();
    }
}

/// Shows nothing for as long as it lives.
pub(crate) struct Pause(());

/// Shows nothing from now on: the terminal is another program's.
pub(crate) fn pause() -> Pause {
    IS_PAUSED.store(true, Ordering::SeqCst);
    clear();
    Pause(())
}

impl Drop for Pause {
    fn drop(&mut self) {
        IS_PAUSED.store(false, Ordering::SeqCst);
    }
}

/// What is done now, since it has been done for long enough.
fn current(begun: &mut Instant) -> Option<Progress> {
    std::thread::sleep(TICK);
    if IS_PAUSED.load(Ordering::SeqCst) {
        *begun = Instant::now();
    }
    let progress = interrupt::task().progress();
    (progress.phase != Phase::Idle && begun.elapsed() >= SHORTEST).then_some(progress)
}

fn show_line() {
    let mut begun = Instant::now();
    loop {
        let Some(progress) = current(&mut begun) else {
            clear();
            continue;
        };
        let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at again under the lock: nothing is drawn once `pause` has cleared it.
        if !IS_PAUSED.load(Ordering::SeqCst) {
            let line = line.get_or_insert_with(new_line);
            line.set_message(text(&progress));
            line.tick();
        }
    }
}

fn new_line() -> ProgressBar {
    left::begin_line(Stream::Stderr);
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{spinner} {wide_msg}") {
        Ok(style) => line.with_style(style),
        Err(_) => line,
    }
}

fn show_lines() {
    let mut begun = Instant::now();
    let mut printed: Option<Instant> = None;
    loop {
        let Some(progress) = current(&mut begun) else { continue };
        if printed.is_none_or(|printed| printed.elapsed() >= BETWEEN_LINES) {
            Output::note(&format!("layerstone: {}", text(&progress)));
            printed = Some(Instant::now());
        }
    }
}

/// Progress in words.
fn text(progress: &Progress) -> String {
    let what = match (progress.phase, progress.holder) {
        (Phase::Waiting, Some(process)) => {
            return format!("waiting for process {process}, which uses the store");
        }
        (Phase::Waiting, None) => return "waiting for another process".to_owned(),
        (Phase::Reading, _) => "reading",
        (Phase::Writing, _) => "writing files",
        (Phase::Preparing, _) => "preparing files of the image, once",
        (Phase::Exporting, _) => "writing the archive",
        (Phase::Publishing, _) => "saving",
        (Phase::CheckingPacks, _) => "checking packs",
        (Phase::CheckingIndex, _) => "reading the catalog and the index",
        (Phase::Merging, _) => "merging",
        (Phase::CheckingImages, _) => "following images",
        (Phase::Copying, _) => "copying what is needed",
        (Phase::Unmounting, _) => "unmounting",
        (Phase::Removing, _) => "removing files",
        _ => "working",
    };
    let what = if interrupt::task().is_cancelled() { format!("stopping: {what}") } else { what.to_owned() };
    match amount(progress) {
        Some(amount) => format!("{what}: {amount}"),
        None => what,
    }
}

/// How much is done of how much.
fn amount(progress: &Progress) -> Option<String> {
    use layerstone::task::Unit;
    let (number, unit): (fn(u64) -> String, _) = match progress.phase.unit()? {
        Unit::Bytes => (size, ""),
        Unit::Images => (grouped, " images"),
        _ => (grouped, " paths"),
    };
    // A total is what was known before, and more may have come in.
    let total = progress.total.filter(|total| *total >= progress.done);
    let of = total.map_or(String::new(), |total| format!(" of {}", number(total)));
    let bytes = if progress.bytes > 0 { format!(", {}", size(progress.bytes)) } else { String::new() };
    Some(format!("{}{of}{unit}{bytes}", number(progress.done)))
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (29_000, "29,000"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }
}
