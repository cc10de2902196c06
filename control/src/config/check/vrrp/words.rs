//! Values that are a name or an address, and options after it, in keepalived's
//! words: `eth1 weight -20`, `192.0.2.1 min_ttl 254`.

use std::ops::RangeInclusive;

use super::super::super::Tracked;
use super::super::super::raw::Value;
use super::super::super::report::Report;
use crate::vrrp::packet::{Peer, TTL};

/// `NAME [weight NUMBER [reverse]]`; the name of a script may have spaces in it.
pub(super) fn tracked(
    value: &Value<'_>,
    weights: &RangeInclusive<i64>,
    report: &mut Report<'_>,
) -> Option<Tracked> {
    let text = value.text(report)?;
    let Some((name, rest)) = text.rsplit_once(" weight ") else {
        return Some(Tracked {
            name: text.to_owned(),
            weight: None,
            reverse: false,
        });
    };
    let (number, reverse) = match rest.trim().split_once(' ') {
        Some((number, "reverse")) => (number, true),
        Some((number, "noreverse" | "no_reverse")) => (number, false),
        Some(_) | None => (rest.trim(), false),
    };
    let weight = number.parse::<i16>().ok();
    let Some(weight) = weight.filter(|weight| weights.contains(&i64::from(*weight))) else {
        let expected = format!("{} to {} after weight", weights.start(), weights.end());
        value.reject(expected, "correct the number", report);
        return None;
    };
    Some(Tracked {
        name: name.to_owned(),
        weight: Some(weight),
        reverse,
    })
}

/// `ADDRESS [min_ttl NUMBER] [max_ttl NUMBER]`
pub(super) fn peer(value: &Value<'_>, report: &mut Report<'_>) -> Option<Peer> {
    let text = value.text(report)?;
    let mut words = text.split_whitespace();
    let address = words.next().and_then(|word| word.parse().ok());
    let Some(address) = address else {
        let example = r#"write one, such as "192.0.2.2" or "192.0.2.2 min_ttl 254""#;
        value.reject("an IP address", example, report);
        return None;
    };
    let mut peer = Peer {
        address: value.check_host(address, report)?,
        min_ttl: 0,
        max_ttl: TTL,
    };
    while let Some(option) = words.next() {
        let ttl = words.next().and_then(|word| word.parse().ok());
        match (option, ttl) {
            ("min_ttl", Some(ttl)) => peer.min_ttl = ttl,
            ("max_ttl", Some(ttl)) => peer.max_ttl = ttl,
            _ => {
                value.reject(
                    "ADDRESS [min_ttl 0 to 255] [max_ttl 0 to 255]",
                    format_args!("correct or remove {option:?}"),
                    report,
                );
                return None;
            }
        }
    }
    Some(peer)
}
