//! How the values of options are read.

use std::os::unix::ffi::OsStrExt as _;

use clap::builder::{OsStringValueParser, TypedValueParser};
use layerstone::{Moment, TreePath};

/// A number, or no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit(pub(crate) Option<u64>);

pub(crate) fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        number => number
            .parse()
            .map(|bytes| Limit(Some(bytes)))
            .map_err(|_| "a number of bytes or 'none' is expected".into()),
    }
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.0..1e9).contains(seconds))
        .ok_or_else(|| "a number of seconds is expected".into())
}

/// A path inside an image: bytes, as it may hold what no text does.
pub(crate) fn tree_path() -> impl TypedValueParser<Value = TreePath> {
    OsStringValueParser::new().try_map(|text| TreePath::parse(text.as_bytes()))
}

/// A moment, or how long ago one was.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    let age_ms = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let unit_ms = match unit {
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(unit_ms)
    };
    if let Some(age_ms) = age_ms() {
        return Ok(Moment::from_unix_ms(Moment::now().unix_ms().saturating_sub(age_ms)));
    }
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let date = text.parse::<jiff::civil::Date>().ok()?;
        date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    });
    let ms = timestamp.and_then(|timestamp| u64::try_from(timestamp.as_millisecond()).ok());
    ms.map(Moment::from_unix_ms)
        .ok_or_else(|| "a moment such as 2026-01-31 or 2026-01-31T12:00:00Z, or an age such as 90s 30m 12h 1d 2w, is expected".into())
}
