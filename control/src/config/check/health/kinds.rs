//! What each kind of check has of its own, but those of HTTP.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::super::raw::{Spec, Table, Value};
use super::super::super::report::Report;
use super::super::super::{
    CheckKind, DnsCheck, FileCheck, MiscCheck, RecordType, UdpCheck, UdpReply,
};
use super::super::scripts;
use super::{CONNECTION_AND_PARAMETERS, Inherited, PARAMETERS};
use crate::scripts::Script;

pub(in super::super) static TCP_CHECK: Spec = Spec {
    heading: "TCP_CHECK",
    keys: &[],
    shared: &CONNECTION_AND_PARAMETERS,
    unsupported: &[],
};

pub(in super::super) static UDP_CHECK: Spec = Spec {
    heading: "UDP_CHECK",
    keys: &[
        "payload",
        "require_reply",
        "min_reply_length",
        "max_reply_length",
    ],
    shared: &CONNECTION_AND_PARAMETERS,
    unsupported: &[],
};

pub(in super::super) static DNS_CHECK: Spec = Spec {
    heading: "DNS_CHECK",
    keys: &["type", "name"],
    shared: &CONNECTION_AND_PARAMETERS,
    unsupported: &[],
};

pub(in super::super) static SMTP_CHECK: Spec = Spec {
    heading: "SMTP_CHECK",
    keys: &["helo_name"],
    shared: &CONNECTION_AND_PARAMETERS,
    unsupported: &["host"],
};

pub(in super::super) static PING_CHECK: Spec = Spec {
    heading: "PING_CHECK",
    keys: &[],
    shared: &CONNECTION_AND_PARAMETERS,
    unsupported: &[],
};

pub(in super::super) static MISC_CHECK: Spec = Spec {
    heading: "MISC_CHECK",
    keys: &["misc_path", "misc_timeout", "misc_dynamic", "user"],
    shared: PARAMETERS.keys,
    unsupported: &[],
};

pub(in super::super) static FILE_CHECK: Spec = Spec {
    heading: "FILE_CHECK",
    keys: &["file", "weight", "reverse"],
    shared: &[],
    unsupported: &["track_file", "dynamic"],
};

/// Bytes in a UDP datagram over IPv4.
const LENGTH: RangeInclusive<i64> = 0..=65507;
const MISC_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(86400);
const FILE_WEIGHT: RangeInclusive<i64> = -2_147_483_647..=2_147_483_647;

pub(super) fn udp(table: &Table<'_>, _: &Inherited, report: &mut Report<'_>) -> Option<CheckKind> {
    let payload = table.get("payload");
    let payload = payload.and_then(|value| hex(&value, false, report));
    let limits = ["min_reply_length", "max_reply_length"].map(|key| table.get(key));
    let lengths = limits.each_ref().map(|value| {
        let length = value.as_ref()?.integer::<u16>(&LENGTH, report);
        Some(length.unwrap_or(0))
    });
    let required = table.get("require_reply");
    let content = match &required {
        Some(value) if value.raw.as_bool().is_some() => {
            value.boolean(report).and_then(|yes| yes.then(Vec::new))
        }
        Some(value) => hex(value, true, report),
        None => None,
    };
    if content.is_none() {
        for value in limits.into_iter().flatten() {
            value.reject(
                "it beside require_reply only",
                "add require_reply = true, or remove it",
                report,
            );
        }
    }
    let (min_length, max_length) = (lengths[0].unwrap_or(0), lengths[1].unwrap_or(255));
    if let (Some(value), true) = (table.get("max_reply_length"), min_length > max_length) {
        value.reject(
            format_args!("min_reply_length, {min_length}, or more"),
            "raise it",
            report,
        );
    }
    Some(CheckKind::UdpCheck(UdpCheck {
        payload: payload.map(|bytes| bytes.into_iter().map(|(byte, _)| byte).collect()),
        reply: content.map(|content| UdpReply {
            content,
            min_length,
            max_length,
        }),
    }))
}

/// Bytes in hexadecimal with their masks. As in keepalived, blanks separate
/// and a digit alone is a byte: `Ab12f 3` is AB 12 0F 03. With `wild`, an `x` is any digit.
fn hex(value: &Value<'_>, wild: bool, report: &mut Report<'_>) -> Option<Vec<(u8, u8)>> {
    let text = value.text(report)?;
    let digit = |character: char| match character {
        'x' | 'X' if wild => Some((0, 0)),
        _ => {
            let digit = character.to_digit(16)?;
            Some((u8::try_from(digit).ok()?, 0xf))
        }
    };
    let byte = |pair: &[char]| {
        let mut digits = pair.iter().map(|&character| digit(character));
        let (first, second) = (digits.next()??, digits.next());
        Some(match second {
            None => (first.0, first.1 | 0xf0),
            Some(low) => {
                let low = low?;
                (first.0 << 4 | low.0, first.1 << 4 | low.1)
            }
        })
    };
    let words = text.split_whitespace().flat_map(|word| {
        let characters: Vec<char> = word.chars().collect();
        let bytes: Vec<_> = characters.chunks(2).map(byte).collect();
        bytes
    });
    let bytes: Option<Vec<_>> = words.collect();
    if bytes.is_none() {
        let expected = if wild {
            "bytes in hexadecimal, x for any digit"
        } else {
            "bytes in hexadecimal"
        };
        value.reject(expected, r#"write them so: "0a 1b 2c""#, report);
    }
    bytes
}

pub(super) fn dns(table: &Table<'_>, _: &Inherited, report: &mut Report<'_>) -> Option<CheckKind> {
    let record_type = table.get("type");
    let record_type = record_type.and_then(|v| v.choice(&RecordType::NAMES, &[], report));
    let name = table.get("name");
    let name = name.and_then(|value| domain_name(&value, report));
    Some(CheckKind::DnsCheck(DnsCheck {
        record_type: record_type.unwrap_or(RecordType::Soa),
        name: name.unwrap_or_else(|| ".".into()),
    }))
}

/// A name that fits into a query (RFC 1035 §2.3.4).
fn domain_name(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    const LONGEST_NAME: usize = 253;
    const LONGEST_LABEL: usize = 63;
    let text = value.text(report)?;
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = |label: &str| (1..=LONGEST_LABEL).contains(&label.len());
    let is_name = name.len() <= LONGEST_NAME
        && name.bytes().all(|byte| byte.is_ascii_graphic())
        && name.split('.').all(fits);
    if text != "." && !is_name {
        value.reject(
            "a domain name in ASCII, labels of 1 to 63 bytes",
            r#"write one, such as "example.org", or "." for the root"#,
            report,
        );
        return None;
    }
    Some(text.to_owned())
}

pub(super) fn smtp(table: &Table<'_>, _: &Inherited, report: &mut Report<'_>) -> Option<CheckKind> {
    let helo_name = table.get("helo_name");
    Some(CheckKind::SmtpCheck {
        helo_name: helo_name.and_then(|v| super::http::host_name(&v, report)),
    })
}

pub(super) fn misc(
    table: &Table<'_>,
    parameters: &Inherited,
    report: &mut Report<'_>,
) -> Option<CheckKind> {
    let path = table.require("misc_path", r#"misc_path = "/path/of/program""#, report);
    let words = path.and_then(|value| scripts::command(&value, report));
    let user = table.get("user");
    let user = user.and_then(|value| scripts::script_user(&value, report));
    let timeout = table.get("misc_timeout");
    let timeout = timeout.and_then(|value| value.time(&MISC_TIMEOUT, report));
    let dynamic = table.get("misc_dynamic");
    let dynamic = dynamic.and_then(|value| value.boolean(report));
    Some(CheckKind::MiscCheck(MiscCheck {
        script: Script {
            words: words?,
            user,
        },
        timeout: timeout.unwrap_or_else(|| parameters.delay_loop()),
        dynamic: dynamic.unwrap_or(false),
    }))
}

pub(super) fn file(table: &Table<'_>, _: &Inherited, report: &mut Report<'_>) -> Option<CheckKind> {
    let file = table.require("file", r#"file = "/path/of/file""#, report);
    let file = file.and_then(|value| {
        let text = value.text(report)?;
        if !text.starts_with('/') {
            value.reject("an absolute path", "write one", report);
        }
        Some(text.to_owned())
    });
    let weight = table.get("weight");
    let weight = weight.and_then(|value| value.integer(&FILE_WEIGHT, report));
    let reverse = table.get("reverse");
    let reverse = reverse.and_then(|value| value.boolean(report));
    Some(CheckKind::FileCheck(FileCheck {
        file: file?,
        weight: weight.unwrap_or(1),
        reverse: reverse.unwrap_or(false),
    }))
}
