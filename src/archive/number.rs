//! Numbers as archives write them: octal or base-256 in header fields, decimal in PAX records.

use super::Refusal;
use crate::tree::entry::Timestamp;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// The number in a header field: octal digits, padded by spaces in front and ended by a space, a NUL or the
/// field; or, with the top bit set, base 256 in two's complement. A blank field is zero.
pub(super) fn field(bytes: &[u8], what: &str) -> Result<i128, Refusal> {
    let refuse = || Refusal::invalid(format!("its {what} field is not a number"));
    if let Some((first, rest)) = bytes.split_first()
        && first & 0x80 != 0
    {
        // The bit after the mark is the sign. Twelve bytes at most, so nothing overflows.
        let high = i128::from((first << 1).cast_signed() >> 1);
        return Ok(rest.iter().fold(high, |value, byte| (value << 8) | i128::from(*byte)));
    }
    let text = bytes.trim_ascii_start();
    let digits = text.iter().take_while(|byte| matches!(byte, b'0'..=b'7')).count();
    let (digits, rest) = text.split_at_checked(digits).ok_or_else(refuse)?;
    let ended = match rest.first() {
        None | Some(b' ' | 0) if !digits.is_empty() => true,
        _ => digits.is_empty() && rest.iter().all(|byte| matches!(byte, b' ' | 0)),
    };
    if !ended {
        return Err(refuse());
    }
    Ok(digits.iter().fold(0, |value, digit| (value << 3) | i128::from(digit & 7)))
}

/// Puts a number into a header field: octal digits and a NUL, or base 256 where they don't fit, as [`field`] reads both.
/// Returns whether octal digits were enough.
pub(super) fn put_field(bytes: &mut [u8], value: i64) -> bool {
    let digits = bytes.len() - 1;
    if value >= 0
        && let text = format!("{value:0digits$o}")
        && text.len() == digits
    {
        bytes.iter_mut().zip(text.bytes()).for_each(|(place, digit)| *place = digit);
        return true;
    }
    bytes.fill(if value < 0 { 0xff } else { 0 });
    if let Some((_, end)) = bytes.split_last_chunk_mut::<8>() {
        *end = value.to_be_bytes();
    }
    if let Some(first) = bytes.first_mut() {
        *first |= 0x80;
    }
    false
}

/// Returns the seconds in a field for a time. Rust's `tar` crate writes those before 1970 as 64 bits behind the mark and
/// three zeros, which says a time 585 billion years from now: where such bits begin with `ff`, they are negative.
pub(super) fn seconds(bytes: &[u8]) -> Result<i128, Refusal> {
    let value = field(bytes, "mtime")?;
    Ok(if (0xff << 56..1 << 64).contains(&value) { value - (1 << 64) } else { value })
}

/// The number that no user and no group has: to the kernel it means that an owner stays as it is.
pub(super) const NO_ID: u32 = u32::MAX;

/// A user's or group's number in decimal digits.
pub(super) fn id(text: &[u8]) -> Option<u32> {
    u32::try_from(decimal(text)?).ok().filter(|id| *id != NO_ID)
}

/// A number in decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| byte & 0x0f)?;
        value.checked_mul(10)?.checked_add(digit.into())
    })
}

/// A moment in seconds since 1970 with an optional minus and fraction, rounded down to the nanosecond. It ends where its
/// digits do, whatever follows, as GNU tar and bsdtar read it.
pub(super) fn time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let (whole, rest) = split_digits(text);
    let whole = decimal(whole)?;
    let (fraction, _) = split_digits(rest.strip_prefix(b".").unwrap_or_default());
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |value, digit| value * 10 + i128::from(digit & 0x0f));
    let mut total = i128::from(whole) * NANOS_PER_SECOND + nanos;
    if negative {
        let beyond = fraction.iter().skip(9).any(|digit| *digit != b'0');
        total = -total - i128::from(beyond);
    }
    Some(Timestamp {
        seconds: i64::try_from(total.div_euclid(NANOS_PER_SECOND)).ok()?,
        nanos: u32::try_from(total.rem_euclid(NANOS_PER_SECOND)).ok()?,
    })
}

/// The digits at the front of a text, and what follows them.
fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at_checked(digits).unwrap_or((text, &[]))
}

/// A moment as [`time`] reads it. A fraction has nine digits: some programs take what is behind the point for
/// nanoseconds, however few digits it has.
pub(super) fn time_text(time: Timestamp) -> String {
    let total = i128::from(time.seconds) * NANOS_PER_SECOND + i128::from(time.nanos);
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    let (whole, nanos) = (total / NANOS_PER_SECOND.unsigned_abs(), total % NANOS_PER_SECOND.unsigned_abs());
    if nanos == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{nanos:09}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64, nanos: u32) -> Timestamp {
        Timestamp { seconds, nanos }
    }

    #[test]
    fn fields_in_every_dialect() {
        let good: [(&[u8], i128); 12] = [
            (b"0000755\0", 0o755),
            (b"  755 \0 ", 0o755),
            (b"00000755", 0o755),
            (b"755 junk", 0o755),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"777777777777", 0o777_777_777_777),
            (b"\x80\0\0\0\0\0\0\x05", 5),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX.into()),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\x05", (1 << 64) + 5),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", (1 << 94) - 1),
        ];
        for (bytes, value) in good {
            assert_eq!(field(bytes, "x"), Ok(value), "{bytes:?}");
        }
        for bytes in [&b"-000001\0"[..], b"0000789\0", b"0x1\0\0\0\0\0", b"\x001234567", b"+1\0\0\0\0\0\0"] {
            assert!(field(bytes, "x").is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn times_before_1970_in_every_dialect() {
        for (bytes, value) in [
            // GNU tar's, and the `tar` crate's.
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfc\x18", -1000),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xfc\x18", -1000),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"\x80\0\0\0\xff\0\0\0\0\0\0\0", -(1 << 56)),
            (b"\x80\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff", (1 << 64) - (1 << 56) - 1),
            (b"\x80\0\0\x01\xff\xff\xff\xff\xff\xff\xfc\x18", (1 << 65) - 1000),
            (b"00000001750\0", 1000),
        ] {
            assert_eq!(seconds(bytes), Ok(value), "{bytes:?}");
        }
    }

    #[test]
    fn decimals_are_strict() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"18446744073709551616", b"-1", b"+1", b" 1", b"1 ", b"0x1", b"1\0"] {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn times_round_down() {
        assert_eq!(time(b"1.5"), Some(at(1, 500_000_000)));
        assert_eq!(time(b"-1.5"), Some(at(-2, 500_000_000)));
        assert_eq!(time(b"-0.0000000001"), Some(at(-1, 999_999_999)));
        assert_eq!(time(b"0.9999999999"), Some(at(0, 999_999_999)));
        assert_eq!(time(b"9223372036854775807.9"), Some(at(i64::MAX, 900_000_000)));
        assert_eq!(time(b"-9223372036854775808"), Some(at(i64::MIN, 0)));
        // What both GNU tar and bsdtar take, and what at least one of them refuses.
        for text in [&b"5."[..], b"5 ", b"5\0", b"5x", b"5,5", b"5.x", b"5e9"] {
            assert_eq!(time(text), Some(at(5, 0)), "{text:?}");
        }
        assert_eq!(time(b"1.5.5"), Some(at(1, 500_000_000)));
        assert_eq!(time(b"-0"), Some(at(0, 0)));
        for bad in [
            &b""[..],
            b"-",
            b".5",
            b"-.5",
            b"+5",
            b" 5",
            b"x",
            b"--1",
            b"9223372036854775808",
            b"-9223372036854775808.1",
        ] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn fractions_have_nine_digits() {
        for (moment, text) in [
            (at(1_000_000_000, 250_000_000), "1000000000.250000000"),
            (at(5, 25), "5.000000025"),
            (at(-5, 250_000_000), "-4.750000000"),
            (at(-1, 999_999_999), "-0.000000001"),
            (at(-5, 0), "-5"),
            (at(0, 0), "0"),
        ] {
            assert_eq!(time_text(moment), text);
        }
    }

    proptest! {
        #[test]
        fn fields_come_back(value: i64, small in 0_i64..0o777_7777_7777) {
            for (value, is_octal) in [(value, (0..=0o777_7777_7777).contains(&value)), (small, true)] {
                let mut bytes = [0; 12];
                prop_assert_eq!(put_field(&mut bytes, value), is_octal);
                prop_assert_eq!(field(&bytes, "x"), Ok(value.into()));
            }
        }

        #[test]
        fn short_fields_come_back(value: u32) {
            let mut bytes = [0; 8];
            prop_assert_eq!(put_field(&mut bytes, value.into()), value <= 0o777_7777);
            prop_assert_eq!(field(&bytes, "x"), Ok(value.into()));
        }

        #[test]
        fn times_come_back(seconds: i64, nanos in 0..1_000_000_000_u32) {
            let moment = Timestamp { seconds, nanos };
            prop_assert_eq!(time(time_text(moment).as_bytes()), Some(moment));
        }
    }
}
