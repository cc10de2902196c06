//! Errors and numbers as people read them.

use std::io;

/// An I/O error as part of a sentence: `connection refused`, not
/// `Connection refused (os error 111)`.
pub(crate) fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(characters).collect()
}

/// `3 real servers`, `1 real server`.
pub(crate) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// Exact below ten thousand, then three digits and a decimal unit: `9999`,
/// `10.0k`, `1.65G`.
pub(crate) fn scaled(number: u64) -> String {
    let mut value = number as f64;
    if number >= 10_000 {
        for unit in ["k", "M", "G", "T", "P", "E"] {
            value /= 1000.0;
            let decimals = match value {
                ..9.995 => 2,
                ..99.95 => 1,
                ..999.5 => 0,
                _ => continue,
            };
            return format!("{value:.decimals$}{unit}");
        }
    }
    number.to_string()
}

/// The two largest units: `8s`, `12m05s`, `3h12m`, `2d03h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(count(0, "real server"), "0 real servers");
        assert_eq!(count(1, "real server"), "1 real server");
        assert_eq!(count(2, "real server"), "2 real servers");
    }

    #[test]
    fn errors_lose_their_number_and_capital() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(in_words(&refused), "connection refused");
        assert_eq!(in_words(&io::Error::other("Too bad")), "too bad");
        assert_eq!(in_words(&io::Error::other("")), "");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (11_533, "3h12m"),
            (86_400 * 2 + 3600 * 3, "2d03h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn scaled_numbers_have_three_digits() {
        for (number, text) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (99_949, "99.9k"),
            (99_951, "100k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (1_650_000_000, "1.65G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(scaled(number), text);
        }
    }
}
