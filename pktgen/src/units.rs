//! How rates, sizes and durations are written on the command line.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::frame::Layout;

/// Frames per second to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as the machine can.
    Max,
    /// Frames per second, 1 to 100 million.
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let (digits, factor) = match text.strip_suffix(['k', 'K']) {
            Some(digits) => (digits, 1e3),
            None => text
                .strip_suffix(['m', 'M'])
                .map_or((text, 1.0), |digits| (digits, 1e6)),
        };
        digits
            .parse::<f64>()
            .ok()
            .map(|value| value * factor)
            .filter(|value| (1.0..=100e6).contains(value))
            .map(Self::PerSecond)
            .ok_or_else(|| {
                "write packets per second, 1 to 100M, such as 500000, 500k or 1.5M, or max"
                    .to_owned()
            })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::PerSecond(rate) => write!(f, "{rate}"),
        }
    }
}

/// The lengths of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// All of this length in bytes, without the frame check sequence.
    Fixed(usize),
    /// Simple IMIX: of 12 frames 7 of 60, 4 of 590 and 1 of 1514 bytes (IP packets of 40, 576 and
    /// 1500 bytes in the usual definition).
    Imix,
}

impl Size {
    /// The lengths in the order in which they are sent, in turn.
    ///
    /// In a mix the shortest frames are long enough for the stamp: frames are recycled, and what a
    /// longer one left in a shorter one would be in neither header nor stamp.
    #[must_use]
    pub fn lengths(self, layout: &Layout) -> Vec<usize> {
        match self {
            Self::Fixed(length) => vec![length],
            Self::Imix => {
                let short = layout.shortest_stamped();
                let (middle, long) = (590, 1514);
                vec![
                    short, middle, short, short, middle, short, long, short, middle, short, short,
                    middle,
                ]
            }
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "imix" {
            return Ok(Self::Imix);
        }
        text.parse().map(Self::Fixed).map_err(|_| {
            "write the length in bytes without FCS (60 is the shortest), or imix".to_owned()
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => write!(f, "{length}"),
            Self::Imix => f.write_str("imix"),
        }
    }
}

/// Reads a number of flows: `7`, `10k`, `1M`.
///
/// # Errors
/// A sentence that says how to write it.
pub fn count(text: &str) -> Result<u32, String> {
    let number = large_count(text)?;
    u32::try_from(number)
        .map_err(|_| "write a number below 2^32, such as 500, 10k or 1M".to_owned())
}

/// The same of what may be many, such as packets.
///
/// # Errors
/// A sentence that says how to write it.
pub fn large_count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => text
            .strip_suffix(['m', 'M'])
            .map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let number = digits.parse::<u64>().ok();
    let number = number.and_then(|number| number.checked_mul(factor));
    let number = number.filter(|number| *number > 0);
    number.ok_or_else(|| "write a number from 1 to 2^64 - 1, such as 500, 10k or 1M".to_owned())
}

/// Reads a part of a hundred: `0`, `0.1`, `2`.
///
/// # Errors
/// A sentence that says how to write it.
pub fn percent(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok();
    let number = number.filter(|number| (0.0..100.0).contains(number));
    number.ok_or_else(|| "write a number from 0 to less than 100, such as 0.1".to_owned())
}

/// Reads `10`, `2.5s`, `250ms` or `3m`; a bare number is seconds.
///
/// # Errors
/// A sentence that says how to write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (digits, factor) = if let Some(digits) = text.strip_suffix("ms") {
        (digits, 1e-3)
    } else if let Some(digits) = text.strip_suffix('s') {
        (digits, 1.0)
    } else if let Some(digits) = text.strip_suffix('m') {
        (digits, 60.0)
    } else {
        (text, 1.0)
    };
    digits
        .parse::<f64>()
        .ok()
        .map(|value| value * factor)
        .filter(|seconds| (0.001..=7.0 * 86_400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "write seconds, or a number with ms, s or m, from 1ms to a week".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("1.5M".parse(), Ok(Rate::PerSecond(1.5e6)));
        assert_eq!("500k".parse(), Ok(Rate::PerSecond(5e5)));
        assert_eq!("7".parse(), Ok(Rate::PerSecond(7.0)));
        for text in ["", "0", "-1", "nan", "inf", "1e12", "fast", "k"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2.5s"), Ok(Duration::from_millis(2500)));
        assert_eq!(duration("3m"), Ok(Duration::from_secs(180)));
        for text in ["", "0", "-1s", "1h", "nan", "1e99"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts() {
        assert_eq!(count("7"), Ok(7));
        assert_eq!(count("10k"), Ok(10_000));
        assert_eq!(count("1M"), Ok(1_000_000));
        for text in ["", "0", "k", "-1", "1.5k", "5000M"] {
            assert!(count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percents() {
        assert_eq!(percent("0"), Ok(0.0));
        assert_eq!(percent("0.1"), Ok(0.1));
        assert_eq!(percent("99.9"), Ok(99.9));
        for text in ["", "nan", "inf", "-1", "100", "200", "2%"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn imix_is_seven_four_one() {
        let layout = Layout {
            source_mac: Default::default(),
            destination_mac: Default::default(),
            destination: "192.0.2.1:80".parse().unwrap(),
            protocol: dataplane::service::Protocol::Udp,
        };
        let lengths = Size::Imix.lengths(&layout);
        let count = |wanted| lengths.iter().filter(|&&length| length == wanted).count();
        assert_eq!((count(60), count(590), count(1514)), (7, 4, 1));
    }
}
