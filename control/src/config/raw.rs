//! The document as written: tables and values that know where they stand, and
//! complain about themselves.
//!
//! A value that is wrong is reported where it is read, and read as `None`:
//! callers go on with a default, so that one mistake hides no other. Nothing
//! that was built from such a default is ever used, because a report with an
//! error in it yields no configuration.

mod value;

pub(super) use value::{Remembered, Value};

use std::cmp::Reverse;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::SPECS;
use super::place::Place;
use super::report::{Dialect, Report};

/// The keys of one kind of section.
#[derive(Debug)]
pub(super) struct Spec {
    /// As the documentation heads it: `[[virtual_server]]`.
    pub(super) heading: &'static str,
    pub(super) keys: &'static [&'static str],
    /// More keys, which several sections have.
    pub(super) shared: &'static [&'static str],
    /// Keys that the interface or keepalived has and this version has not.
    pub(super) unsupported: &'static [&'static str],
}

impl Spec {
    pub(super) fn knows(&self, key: &str) -> bool {
        self.keys.contains(&key) || self.shared.contains(&key)
    }
}

/// A table of the document with the name that messages give it.
#[derive(Debug)]
pub(super) struct Table<'d> {
    pub(super) place: Place<'d>,
    pub(super) at: usize,
    spec: &'static Spec,
    entries: &'d DeTable<'d>,
    base: usize,
    /// Tables under a key that was likely meant to be another: they are read
    /// as that one's, so that a wrong name hides nothing that is in them.
    misnamed: Vec<(&'static str, &'d Spanned<DeValue<'d>>)>,
}

impl<'d> Table<'d> {
    /// Reports every key that `spec` does not have.
    pub(super) fn new(
        entry: Entry<'d>,
        place: Place<'d>,
        spec: &'static Spec,
        report: &mut Report<'_>,
    ) -> Self {
        let Entry { entries, at, base } = entry;
        let mut misnamed = Vec::new();
        for (key, value) in entries {
            let name: &str = key.get_ref();
            if spec.knows(name) {
                continue;
            }
            let meant = report_unknown(name, base + key.span().start, &place, spec, report);
            if let Some(meant) = meant
                && is_of_tables(value.get_ref())
            {
                misnamed.push((meant, value));
            }
        }
        Self {
            place,
            at,
            spec,
            entries,
            base,
            misnamed,
        }
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'d>> {
        debug_assert!(self.spec.knows(key), "{key} of {}", self.spec.heading);
        let value = self.entries.get(key);
        let value = value.or_else(|| self.misnamed(key).next())?;
        Some(Value::new(self.place.key(key), value, self.base))
    }

    fn misnamed(&self, key: &str) -> impl Iterator<Item = &'d Spanned<DeValue<'d>>> {
        let meant = self.misnamed.iter().filter(move |(meant, _)| *meant == key);
        meant.map(|(_, value)| *value)
    }

    /// The value of a key that not every kind of section has.
    pub(super) fn get_if_known(&self, key: &'static str) -> Option<Value<'d>> {
        // Most keys are not written: that is found out sooner than whether they could be.
        let is_known = self.entries.contains_key(key) && self.spec.knows(key);
        is_known.then(|| self.get(key)).flatten()
    }

    /// The value of a key with several names, of which a section has one.
    pub(super) fn get_alias(
        &self,
        names: &[&'static str],
        report: &mut Report<'_>,
    ) -> Option<Value<'d>> {
        let mut written = names
            .iter()
            .filter_map(|name| Some((name, self.get(name)?)));
        let (first_name, first) = written.next()?;
        for (name, value) in written {
            report.error(
                value.at,
                &self.place,
                format_args!("{name} beside {first_name}"),
                "one of them, they mean the same",
                "remove one",
            );
        }
        Some(first)
    }

    /// The value of a key that has to be there; `example` is a line to add.
    pub(super) fn require(
        &self,
        key: &'static str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<Value<'d>> {
        let value = self.get(key);
        if value.is_none() {
            self.report_absent(key, example, report);
        }
        value
    }

    /// Says that `key` has to be there.
    pub(super) fn report_absent(&self, key: &str, example: &str, report: &mut Report<'_>) {
        let example = match report.dialect() {
            Dialect::Toml => example.to_owned(),
            Dialect::Keepalived => in_keepalived(key, example),
        };
        report.absent(
            self.at,
            &self.place,
            format_args!("no {key}"),
            "one",
            format_args!("add {example}"),
        );
    }

    /// The tables of an array of tables such as `[[interface]]`; none when the
    /// key is not there.
    pub(super) fn sections(&self, key: &'static str, report: &mut Report<'_>) -> Vec<Entry<'d>> {
        let written = self.entries.get(key).into_iter();
        let mut sections = Vec::new();
        for value in written.chain(self.misnamed(key)) {
            let value = Value::new(self.place.key(key), value, self.base);
            match value.entry() {
                Some(entry) => {
                    self.report_one_table(key, value.at, report);
                    sections.push(entry);
                }
                None => sections.extend(value.entries("[{ … }]", report)),
            }
        }
        sections
    }

    /// Says that one table stands where a list of them should.
    fn report_one_table(&self, key: &str, at: usize, report: &mut Report<'_>) {
        let heading = match self.spec.heading.trim_matches(['[', ']']) {
            outer if outer.len() < self.spec.heading.len() => format!("[[{outer}.{key}]]"),
            _ => format!("[[{key}]]"),
        };
        if report.text_at(at).starts_with(['[', '{']) {
            report.error(
                at,
                &self.place,
                format_args!("one table as {key}"),
                "a list of them",
                format_args!("write {heading} as its header, or [{{ … }}]"),
            );
        } else {
            let found = format!("no {heading} that this belongs to");
            report.orphan(at, &self.place, found, "one", "write it above");
        }
    }
}

/// True for a table and for a list of tables.
fn is_of_tables(value: &DeValue<'_>) -> bool {
    match value.as_array() {
        Some(elements) => elements.iter().any(|element| element.get_ref().is_table()),
        None => value.is_table(),
    }
}

/// A line of TOML as keepalived.conf has it: `lb_kind DR`.
fn in_keepalived(key: &str, example: &str) -> String {
    match example.split_once(" = ") {
        Some((_, list)) if list.starts_with(['[', '{']) => format!("{key} {{ … }}"),
        Some((key, value)) => format!("{key} {}", value.replace('"', "")),
        None => example.to_owned(),
    }
}

/// A table before its keys are checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'d> {
    pub(super) entries: &'d DeTable<'d>,
    pub(super) at: usize,
    /// Where the document begins that it is from: spans count from there.
    pub(super) base: usize,
}

impl<'d> Entry<'d> {
    pub(super) fn of_document(document: &'d Spanned<DeTable<'d>>) -> Self {
        Self {
            entries: document.get_ref(),
            at: 0,
            base: 0,
        }
    }

    /// `section NAME`, where NAME is the text of `key`, or `section #3` when
    /// there is none.
    pub(super) fn label(&self, section: &'static str, key: &str, index: usize) -> Place<'d> {
        self.label_in(&Place::default(), section, key, index)
    }

    /// The same for a section inside another.
    pub(super) fn label_in(
        &self,
        outer: &Place<'d>,
        section: &'static str,
        key: &str,
        index: usize,
    ) -> Place<'d> {
        const MOST: usize = 60;
        let name = self.entries.get(key).and_then(|v| v.get_ref().as_str());
        match name {
            Some(name) if !name.is_empty() && name.len() <= MOST => outer.named(section, name),
            Some(_) | None => outer.numbered(section, index),
        }
    }
}

/// Reports a key that `spec` does not have, and returns the one that was likely meant.
fn report_unknown(
    name: &str,
    at: usize,
    place: &Place<'_>,
    spec: &'static Spec,
    report: &mut Report<'_>,
) -> Option<&'static str> {
    if spec.unsupported.contains(&name) {
        report.unsupported(
            at,
            place,
            format_args!("the key {name}"),
            format_args!("no {name} yet"),
            "remove it",
        );
        return None;
    }
    let found = format!("the unknown key {:?}", shorten(name));
    let expected = format!("a key of {}", spec.heading);
    let known = spec.keys.iter().chain(spec.shared);
    let meant = nearest(name, known.copied());
    let remedy = if let Some(near) = meant {
        format!("did you mean {near}?")
    } else if let Some(owner) = owner(name, spec) {
        format!("move it, it belongs in {}", owner.heading)
    } else {
        "remove it".to_owned()
    };
    report.error(at, place, found, expected, remedy);
    meant
}

/// The section that has a key; of several the one nearest to `spec`.
fn owner(key: &str, spec: &Spec) -> Option<&'static Spec> {
    let owners = SPECS.iter().copied().filter(|s| s.knows(key));
    owners.max_by_key(|s| common_prefix(s.heading, spec.heading))
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

/// The candidate that a user most likely meant: one that `written` says and
/// something before it (`tcp_established`), else the nearest one by edit
/// distance, if it is near.
pub(super) fn nearest<'c>(
    written: &str,
    candidates: impl Iterator<Item = &'c str>,
) -> Option<&'c str> {
    /// Of a key's length, what may be wrong for it to be recognised.
    const TOLERANCE: f64 = 0.4;
    if written.chars().count() > 60 {
        return None;
    }
    let lower = written.to_lowercase();
    let rank = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        let before = lower.strip_suffix(&candidate);
        let distance = match before.is_some_and(|before| before.ends_with('_')) {
            true => 0,
            false => strsim::osa_distance(&lower, &candidate),
        };
        (distance, Reverse(common_prefix(&lower, &candidate)))
    };
    let ((distance, _), best) = candidates.map(|c| (rank(c), c)).min()?;
    let length = best.len().max(lower.len());
    #[expect(clippy::cast_precision_loss, reason = "lengths of at most 240")]
    let is_near = distance as f64 <= (length as f64 * TOLERANCE).max(1.0) && distance < best.len();
    is_near.then_some(best)
}

/// At most 40 characters of a text.
pub(super) fn shorten(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn nearest_key() {
        let keys = [
            "weight",
            "address",
            "TCP_CHECK",
            "HTTP_GET",
            "connect_ip",
            "connect_timeout",
            "sctp_established",
            "established",
        ];
        let cases = [
            ("wieght", Some("weight")),
            ("adress", Some("address")),
            ("tcp_check", Some("TCP_CHECK")),
            ("TCP-CHECK", Some("TCP_CHECK")),
            ("HTTPGET", Some("HTTP_GET")),
            ("connect_time", Some("connect_timeout")),
            ("tcp_established", Some("established")),
            ("sctp_establishd", Some("sctp_established")),
            ("x", None),
            ("persistence", None),
        ];
        for (written, expected) in cases {
            assert_eq!(nearest(written, keys.into_iter()), expected, "{written}");
        }
    }
}
