//! Moments, and the one place where the clock is read.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result, Subject};
use crate::path::shortened;

/// A moment in milliseconds since 1970. Shown, and serialised, in RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// This many milliseconds after 1970 began.
    #[must_use]
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// The moment now, by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        #[expect(clippy::disallowed_methods, reason = "it is read here alone")]
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(ms) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "{ms} ms after 1970"),
        }
    }
}

impl FromStr for Moment {
    type Err = Error;

    /// Reads a time in RFC 3339, or a date, which stands for its beginning in UTC.
    fn from_str(text: &str) -> Result<Self> {
        let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
            let date = text.parse::<jiff::civil::Date>().ok()?;
            date.to_zoned_datetime(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        });
        let ms = timestamp.and_then(|timestamp| u64::try_from(timestamp.as_millisecond()).ok());
        ms.map(Self).ok_or_else(|| {
            let message = "is no time since 1970 such as 2026-01-31 or 2026-01-31T12:00:00Z";
            Error::invalid(Subject::Reference(shortened(text)), message)
        })
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_parses_as_it_is_displayed_and_an_error_shows_what_is_none() {
        for ms in [0, 1, 1_767_225_600_123] {
            let moment = Moment::from_unix_ms(ms);
            assert_eq!(moment.to_string().parse::<Moment>().unwrap(), moment);
        }
        assert_eq!("1970-01-02".parse::<Moment>().unwrap().unix_ms(), 86_400_000);
        for text in ["", "yesterday", "1969-12-31", "2026-02-30"] {
            let shown = text.parse::<Moment>().unwrap_err().to_string();
            assert!(shown.starts_with(&format!("'{text}': is no time")), "{shown}");
        }
    }
}
