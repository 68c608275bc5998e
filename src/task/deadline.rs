//! When something has taken as long as it may.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Remedy, Result, Subject};

/// When an import has taken as long as it may.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadline {
    /// None if it may take any time, as if its end could not be told.
    end: Option<Instant>,
    time_max: Duration,
}

impl Deadline {
    /// That of what begins now.
    pub(crate) fn after(time_max: Option<Duration>) -> Self {
        let end = time_max.and_then(|time| Instant::now().checked_add(time));
        Self { end, time_max: time_max.unwrap_or_default() }
    }

    /// Fails with *timed out* once it has passed.
    pub(crate) fn check(&self, subject: impl FnOnce() -> Subject) -> Result<()> {
        if self.end.is_none_or(|end| Instant::now() < end) {
            return Ok(());
        }
        let message = format!("takes longer than the limit of {:?}", self.time_max);
        let remedy = Remedy::RaiseLimit { name: "time_max" };
        Err(Error::new(ErrorKind::TimedOut, subject(), message).with_remedy(remedy))
    }

    /// How long it is until then; none if it may take any time.
    pub(super) fn left(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }
}
