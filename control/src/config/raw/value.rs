//! One value: typed reads, each of which reports what does not fit.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::super::duration;
use super::super::place::Place;
use super::super::report::Report;
use super::{Entry, nearest, shorten};

/// A value, the name that messages give it and where it is.
#[derive(Clone, Debug)]
pub(in super::super) struct Value<'d> {
    pub(in super::super) place: Place<'d>,
    pub(in super::super) at: usize,
    pub(in super::super) raw: &'d DeValue<'d>,
    /// As of [`Entry`].
    base: usize,
}

impl<'d> Value<'d> {
    pub(super) fn new(place: Place<'d>, value: &'d Spanned<DeValue<'d>>, base: usize) -> Self {
        Self {
            place,
            at: base + value.span().start,
            raw: value.get_ref(),
            base,
        }
    }

    /// The value as a table, if it is one.
    pub(in super::super) fn entry(&self) -> Option<Entry<'d>> {
        Some(Entry {
            entries: self.raw.as_table()?,
            at: self.at,
            base: self.base,
        })
    }

    /// Says that the value is not what it should be.
    pub(in super::super) fn reject(
        &self,
        expected: impl Display,
        remedy: impl Display,
        report: &mut Report<'_>,
    ) {
        report.error(self.at, &self.place, self.describe(), expected, remedy);
    }

    /// For a message when the document is gone.
    pub(in super::super) fn remembered(&self) -> Remembered {
        Remembered {
            at: self.at,
            place: self.place.to_string(),
            found: self.describe(),
        }
    }

    /// The value as a message shows it.
    fn describe(&self) -> String {
        match self.raw {
            DeValue::String(text) => format!("{:?}", shorten(text)),
            DeValue::Integer(number) => shorten(&number.to_string()),
            DeValue::Float(number) => shorten(number.as_str()),
            DeValue::Boolean(yes) => yes.to_string(),
            DeValue::Datetime(_) => "a date or time".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }

    /// A text that is not empty and has no control characters.
    pub(in super::super) fn text(&self, report: &mut Report<'_>) -> Option<&'d str> {
        self.text_with(|_| false, report)
    }

    /// The same of a command, or of a word of one, in which there may be tabs and line breaks.
    pub(in super::super) fn command_text(&self, report: &mut Report<'_>) -> Option<&'d str> {
        self.text_with(|c| matches!(c, '\t' | '\n'), report)
    }

    fn text_with(
        &self,
        is_fine: impl Fn(char) -> bool,
        report: &mut Report<'_>,
    ) -> Option<&'d str> {
        let Some(text) = self.raw.as_str() else {
            self.reject("text", "write it in quotes", report);
            return None;
        };
        if text.is_empty() || text.chars().any(|c| c.is_control() && !is_fine(c)) {
            self.reject("a line of text", "write one", report);
            return None;
        }
        Some(text)
    }

    pub(in super::super) fn boolean(&self, report: &mut Report<'_>) -> Option<bool> {
        let value = self.raw.as_bool();
        if value.is_none() {
            self.reject("true or false", "write one of them without quotes", report);
        }
        value
    }

    /// A whole number. `T` holds every number of `range`.
    pub(in super::super) fn integer<T: TryFrom<i64>>(
        &self,
        range: &RangeInclusive<i64>,
        report: &mut Report<'_>,
    ) -> Option<T> {
        let expected = format_args!("{} to {}", range.start(), range.end());
        self.integer_of(range, expected, report)
    }

    /// The same with the expectation in other words.
    pub(in super::super) fn integer_of<T: TryFrom<i64>>(
        &self,
        range: &RangeInclusive<i64>,
        expected: impl Display,
        report: &mut Report<'_>,
    ) -> Option<T> {
        let DeValue::Integer(integer) = self.raw else {
            let remedy = if self.raw.as_str().is_some_and(|s| s.parse::<i64>().is_ok()) {
                "remove the quotes"
            } else {
                "write a whole number"
            };
            self.reject(expected, remedy, report);
            return None;
        };
        // Beyond 64 bits only the sign matters for what the user is told.
        let number = i64::from_str_radix(integer.as_str(), integer.radix());
        let is_low = match number {
            Ok(number) if range.contains(&number) => return T::try_from(number).ok(),
            Ok(number) => number < *range.start(),
            Err(_) => integer.as_str().starts_with('-'),
        };
        self.reject(
            expected,
            if is_low { "raise it" } else { "lower it" },
            report,
        );
        None
    }

    /// A number of seconds, or text with a unit.
    pub(in super::super) fn time(
        &self,
        range: &RangeInclusive<Duration>,
        report: &mut Report<'_>,
    ) -> Option<Duration> {
        let time = match self.raw {
            DeValue::String(text) => duration::from_text(text),
            DeValue::Integer(number) if number.radix() == 10 => number
                .as_str()
                .parse()
                .ok()
                .and_then(duration::from_seconds),
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .ok()
                .and_then(duration::from_seconds),
            DeValue::Integer(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        let remedy = match time {
            Some(time) if range.contains(&time) => return Some(time),
            Some(time) if time < *range.start() => "raise it",
            Some(_) => "lower it",
            None => {
                r#"write seconds, such as 0.5, or text with a unit (us ms s m h d), such as "250ms""#
            }
        };
        let [least, most] = [range.start(), range.end()].map(|limit| duration::to_text(*limit));
        self.reject(format_args!("{least} to {most}"), remedy, report);
        None
    }

    /// One word of a few. `later` are words that are known and not supported.
    pub(in super::super) fn choice<T: Copy>(
        &self,
        known: &[(&str, T)],
        later: &[&str],
        report: &mut Report<'_>,
    ) -> Option<T> {
        let text = self.text(report)?;
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let names = || known.iter().map(|(name, _)| *name);
        if later.contains(&text) {
            let supported = match known {
                [(only, _)] => format!("{only:?} only"),
                _ => format!("only {}", alternatives(names(), "and")),
            };
            report.unsupported(
                self.at,
                &self.place,
                self.describe(),
                supported,
                "choose one that is supported",
            );
            return None;
        }
        let remedy = match nearest(text, names()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "choose one of them".to_owned(),
        };
        self.reject(alternatives(names(), "or"), remedy, report);
        None
    }

    /// An address of one host.
    pub(in super::super) fn host(&self, report: &mut Report<'_>) -> Option<IpAddr> {
        let text = self.text(report)?;
        match text.parse() {
            Ok(address) => self.check_host(address, report),
            Err(_) => {
                self.reject(
                    "an IP address",
                    r#"write one, such as "192.168.1.10" or "2001:db8::10""#,
                    report,
                );
                None
            }
        }
    }

    /// `address` if it can be that of one host on a network.
    pub(in super::super) fn check_host(
        &self,
        address: IpAddr,
        report: &mut Report<'_>,
    ) -> Option<IpAddr> {
        let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        if address.is_unspecified() || address.is_multicast() || is_broadcast {
            self.reject("the address of one host", "use a unicast address", report);
            return None;
        }
        if address != address.to_canonical() {
            self.reject(
                "an IPv4 address in its own notation",
                format_args!("write {}", address.to_canonical()),
                report,
            );
            return None;
        }
        Some(address)
    }

    /// `address` if packets can be sent to it by its number alone. As IPVS, which refuses
    /// a link-local one: it does not say on which link.
    pub(in super::super) fn check_not_link_local(
        &self,
        address: IpAddr,
        report: &mut Report<'_>,
    ) -> Option<IpAddr> {
        if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            self.reject(
                "an address that is not link-local",
                "use the host's global or unique local address",
                report,
            );
            return None;
        }
        Some(address)
    }

    /// The elements of a list that is not empty.
    pub(in super::super) fn list(&self, report: &mut Report<'_>) -> Option<Vec<Self>> {
        let Some(array) = self.raw.as_array() else {
            self.reject("a list", "write it in [brackets]", report);
            return None;
        };
        if array.is_empty() {
            report.error(
                self.at,
                &self.place,
                "an empty list",
                "at least one element",
                "add one, or remove the key",
            );
            return None;
        }
        let element = |v| Self::new(self.place.clone(), v, self.base);
        Some(array.iter().map(element).collect())
    }

    /// The tables of one table or of a list of them; anything else is reported,
    /// with an `example` of what could be there.
    pub(in super::super) fn entries(
        &self,
        example: &str,
        report: &mut Report<'_>,
    ) -> Vec<Entry<'d>> {
        if let Some(entry) = self.entry() {
            return vec![entry];
        }
        if !self.raw.is_array() {
            let remedy = format!("write {example}");
            self.reject("a table, or a list of them", remedy, report);
            return Vec::new();
        }
        let mut tables = Vec::new();
        for value in self.list(report).unwrap_or_default() {
            match value.entry() {
                Some(entry) => tables.push(entry),
                None => value.reject("a table", "write { key = value, … }", report),
            }
        }
        tables
    }
}

/// What a message about a value says of it.
#[derive(Debug)]
pub(in super::super) struct Remembered {
    at: usize,
    place: String,
    found: String,
}

impl Remembered {
    /// As of [`Value::reject`].
    pub(in super::super) fn reject(
        &self,
        expected: impl Display,
        remedy: impl Display,
        report: &mut Report<'_>,
    ) {
        report.error(self.at, &self.place, &self.found, expected, remedy);
    }
}

/// `"a", "b" or "c"`.
fn alternatives<'n>(names: impl Iterator<Item = &'n str>, word: &str) -> String {
    let quoted: Vec<_> = names.map(|name| format!("{name:?}")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} {word} {last}", most.join(", ")),
    }
}
