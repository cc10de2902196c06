//! Times as the configuration writes them: seconds, or text with a unit.

use std::time::Duration;

/// The units of a time and their length in microseconds, the resolution of
/// every time here (and of keepalived's timers).
const UNITS: [(&str, f64); 6] = [
    ("us", 1.0),
    ("ms", 1e3),
    ("s", 1e6),
    ("m", 60e6),
    ("h", 3600e6),
    ("d", 86400e6),
];

/// A number of seconds, rounded to microseconds; `None` when it is negative,
/// not finite or beyond what a [`Duration`] holds.
pub(super) fn from_seconds(seconds: f64) -> Option<Duration> {
    from_micros(seconds * 1e6)
}

/// A number of seconds, or a number and a unit: what a command line has.
pub(crate) fn duration_from_text(text: &str) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(seconds) => from_seconds(seconds),
        Err(_) => from_text(text),
    }
}

/// A number and a unit, such as `250ms`, `1.5 s` or `1h`.
pub(super) fn from_text(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let (_, micros) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    from_micros(number.parse::<f64>().ok()? * micros)
}

fn from_micros(micros: f64) -> Option<Duration> {
    /// 10 000 years: far beyond any limit, and exact in an `f64`'s integers.
    const MOST: f64 = 3.2e17;
    if !(0.0..=MOST).contains(&micros) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded, and between 0 and MOST"
    )]
    let micros = micros.round() as u64;
    Some(Duration::from_micros(micros))
}

/// The time as a whole number of the largest unit that allows it; what
/// [`from_text`] reads back to the same time, when it is in whole microseconds.
pub(super) fn to_text(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros == 0 {
        return "0s".to_owned();
    }
    const WHOLE: [(&str, u128); 5] = [
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
    ];
    let largest = WHOLE.iter().find(|(_, unit)| micros.is_multiple_of(*unit));
    let (name, unit) = largest.unwrap_or(&("us", 1));
    format!("{}{name}", micros / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        let cases = [
            ("250ms", Some(Duration::from_millis(250))),
            ("1.5 s", Some(Duration::from_millis(1500))),
            ("2s", Some(Duration::from_secs(2))),
            (" 1m ", Some(Duration::from_secs(60))),
            ("1h", Some(Duration::from_secs(3600))),
            ("1d", Some(Duration::from_secs(86400))),
            ("7us", Some(Duration::from_micros(7))),
            ("0s", Some(Duration::ZERO)),
            ("5", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1.2.3s", None),
            ("1e3s", None),
            ("3 fortnights", None),
            ("99999999999999999999999999d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(from_text(text), expected, "{text:?}");
        }
    }

    #[test]
    fn seconds() {
        assert_eq!(from_seconds(0.25), Some(Duration::from_millis(250)));
        assert_eq!(from_seconds(-1.0), None);
        assert_eq!(from_seconds(f64::NAN), None);
        assert_eq!(from_seconds(f64::INFINITY), None);
    }

    #[test]
    fn largest_whole_unit() {
        assert_eq!(to_text(Duration::ZERO), "0s");
        assert_eq!(to_text(Duration::from_secs(7 * 86400)), "7d");
        assert_eq!(to_text(Duration::from_secs(5400)), "90m");
        assert_eq!(to_text(Duration::from_secs(255)), "255s");
        assert_eq!(to_text(Duration::from_millis(1250)), "1250ms");
        assert_eq!(to_text(Duration::from_micros(1)), "1us");
    }
}
