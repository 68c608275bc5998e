//! How the values of options are read.

use std::os::unix::ffi::OsStrExt as _;
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser};
use layerstone::{Moment, TreePath};

/// A number, or no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit(pub(crate) Option<u64>);

pub(crate) fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    bytes(text).map(|bytes| Limit(Some(bytes))).map_err(|message| format!("{message}, or 'none'"))
}

/// Parses a number of bytes, perhaps with a unit: `kB`, `MB`, `GB` and `TB` are powers of 1000; `KiB`, `MiB`, `GiB` and
/// `TiB`, or the first letter alone, powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| {
        "expected a number of bytes, such as 4096, 10MB (powers of 1000) or 64MiB (of 1024)".into()
    })
}

fn parse_bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let (prefix, base) = match unit.strip_suffix('b') {
        None => (unit.as_str(), 1024),
        Some(prefix) => prefix.strip_suffix('i').map_or((prefix, 1000), |binary| (binary, 1024)),
    };
    let power = ["", "k", "m", "g", "t"].iter().position(|known| *known == prefix)?;
    if unit == "ib" {
        return None;
    }
    let unit = u64::pow(base, u32::try_from(power).ok()?);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    // What is below a byte is dropped; more digits than 18 say nothing more.
    let fraction = fraction.get(..18).unwrap_or(fraction);
    let digits = u32::try_from(fraction.len()).ok()?;
    let part = fraction.parse::<u128>().ok()? * u128::from(unit) / 10_u128.pow(digits);
    whole.checked_add(u64::try_from(part).ok()?)
}

/// Parses a whole number of things.
pub(crate) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "a whole number is expected, such as 100".into())
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.0..1e9).contains(seconds))
        .ok_or_else(|| "a number of seconds is expected, such as 30 or 0.5".into())
}

/// The same for a time in which something is to be done: none at all is too short for anything.
pub(crate) fn some_seconds(text: &str) -> Result<f64, String> {
    let seconds = seconds(text)?;
    if seconds == 0.0 {
        return Err("more than 0 seconds are needed; leave the option out for no limit".into());
    }
    Ok(seconds)
}

/// A path inside an image: bytes, as it may hold what no text does.
pub(crate) fn tree_path() -> impl TypedValueParser<Value = TreePath> {
    OsStringValueParser::new().try_map(|text| TreePath::parse(text.as_bytes()))
}

/// Parses the bytes of a path in hexadecimal.
pub(crate) fn path_bytes(text: &str) -> Result<TreePath, String> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    let bytes = bytes.ok_or_else(|| "expected bytes of two hexadecimal digits each".to_owned())?;
    TreePath::parse(&bytes).map_err(|error| error.to_string())
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
    if let Some(age) = text.strip_prefix('-').filter(|age| moment(age).is_ok()) {
        return Err(format!("an age has no '-' before it; leave that out: {age}"));
    }
    text.parse::<Moment>()
        .map_err(|_| "a moment such as 2026-01-31 or 2026-01-31T12:00:00Z, or an age such as 90s 30m 12h 1d 2w, is expected".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_no_negative_number() {
        assert!(moment("1d").is_ok() && moment("2026-01-31").is_ok());
        assert!(moment("-1d").unwrap_err().ends_with("leave that out: 1d"));
        assert!(moment("-1y").unwrap_err().starts_with("a moment such as"));
    }

    #[test]
    fn bytes_have_units_of_1000_and_of_1024() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("12B", 12),
            ("10MB", 10_000_000),
            ("10 MB", 10_000_000),
            ("1kB", 1000),
            ("1K", 1024),
            ("64MiB", 64 << 20),
            ("64mib", 64 << 20),
            ("1G", 1 << 30),
            ("1.5G", 3 << 29),
            ("0.0005kB", 0),
            ("16777215T", 16_777_215 << 40),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        let wrong = ["", "MB", "-1", "1e3", "1.", ".5G", "1..2", "1XB", "1iB", "1MiBs", "16777216T", "1_000"];
        for text in wrong {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(limit("5x").is_err() && limit("none").unwrap().0.is_none());
    }
}
