//! From statements to the document that `check` walks, as if it had been
//! written in TOML: spans are where keepalived's words stand.
//!
//! What a value may be is not known here but in `check`: a number that is none
//! is handed on as text, for `check` to refuse with what it expects.

mod unmapped;
mod value;
mod virtual_server;

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::super::check::CONNECTION;
use super::super::place::Place;
use super::super::raw::shorten;
use super::super::report::Report;
use super::keywords::{Block, Keyword, Kind, ROOT, Shape};
use super::tree::Statement;

/// What to do with a file that asks for what this version has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Mode {
    /// Refuse it if traffic would take another way without.
    Use,
    /// Leave it out and say so.
    Import,
}

/// The document that the statements of a file are.
pub(super) fn document<'d>(
    statements: &'d [Statement],
    mode: Mode,
    report: &mut Report<'_>,
) -> Spanned<DeTable<'d>> {
    let groups = statements
        .iter()
        .filter(|statement| statement.keyword.text == "virtual_server_group");
    let names = ["track_file", "vrrp_track_file"];
    let files = statements
        .iter()
        .filter(|statement| names.contains(&statement.keyword.text.as_str()));
    let mut mapper = Mapper {
        report,
        mode,
        groups: groups.collect(),
        files: files.collect(),
        timeouts: None,
    };
    let mut root = DeTable::new();
    mapper.block(statements, &ROOT, &Place::default(), &mut root);
    if let Some((at, timeouts)) = mapper.timeouts {
        let mut appliance = DeTable::new();
        put(&mut appliance, "timeouts", at, table(at, timeouts));
        put(&mut root, "appliance", at, table(at, appliance));
    }
    Spanned::new(0..0, root)
}

struct Mapper<'d, 'r, 't> {
    report: &'r mut Report<'t>,
    mode: Mode,
    /// Every `virtual_server_group`.
    groups: Vec<&'d Statement>,
    /// Every `track_file`.
    files: Vec<&'d Statement>,
    /// `lvs_timeouts`, and where it is.
    timeouts: Option<(usize, DeTable<'d>)>,
}

/// A statement with what is known of it.
#[derive(Clone, Copy)]
struct Known<'d, 'p> {
    statement: &'d Statement,
    keyword: &'static Keyword,
    /// Of the block around it.
    outer: &'p Place<'d>,
}

impl<'d> Known<'d, '_> {
    fn at(&self) -> usize {
        self.statement.keyword.at
    }

    /// The keyword's own place.
    fn place(&self) -> Place<'d> {
        self.outer.key(self.keyword.name)
    }
}

impl<'d> Mapper<'d, '_, '_> {
    fn block(
        &mut self,
        statements: &'d [Statement],
        block: &'static Block,
        place: &Place<'d>,
        table: &mut DeTable<'d>,
    ) {
        for statement in statements {
            let Some(keyword) = block.keyword(&statement.keyword.text) else {
                self.unknown(statement, block, place);
                continue;
            };
            let known = Known {
                statement,
                keyword,
                outer: place,
            };
            if block.maps(keyword) {
                self.map(known, table);
            } else {
                self.left_out(known);
            }
        }
    }

    fn map(&mut self, known: Known<'d, '_>, target: &mut DeTable<'d>) {
        let (at, key) = (known.at(), known.keyword.key);
        let statement = known.statement;
        match known.keyword.kind {
            Kind::Section(block) => {
                let Some((statements, place)) = self.inner(known) else {
                    return;
                };
                // Written twice, it is one section to keepalived.
                let mut section = match target.remove(key).map(Spanned::into_inner) {
                    Some(DeValue::Table(section)) => section,
                    Some(_) | None => DeTable::new(),
                };
                self.block(statements, block, &place, &mut section);
                put(target, key, at, table(at, section));
            }
            Kind::Sections(block) | Kind::Hosts(block) => {
                if let Some((statements, place)) = self.inner(known) {
                    let mut section = DeTable::new();
                    self.block(statements, block, &place, &mut section);
                    push(target, key, at, table(at, section));
                }
            }
            Kind::FileChecks(block) => {
                if let Some((statements, place)) = self.inner(known) {
                    let mut section = DeTable::new();
                    self.block(statements, block, &place, &mut section);
                    self.tracked_file(at, &place, &mut section);
                    push(target, key, at, table(at, section));
                }
            }
            Kind::SmtpChecks(block) => {
                if let Some((statements, place)) = self.inner(known) {
                    let mut section = DeTable::new();
                    self.block(statements, block, &place, &mut section);
                    for check in smtp_checks(section) {
                        push(target, key, at, table(at, check));
                    }
                }
            }
            Kind::Named(block) => {
                let Some((statements, _)) = self.inner(known) else {
                    return;
                };
                let mut section = DeTable::new();
                if let Some(name) = self.only_word(known) {
                    let place = Place::default().named(known.keyword.name, name.text.as_str());
                    put(&mut section, "name", name.at, text(name.at, &name.text));
                    self.block(statements, block, &place, &mut section);
                    push(target, key, at, table(at, section));
                }
            }
            Kind::VirtualServer => self.virtual_servers(known, target),
            Kind::RealServer => self.real_server(known, target),
            Kind::Group => {}
            Kind::Lines => {
                for line in self.lines(known) {
                    push(target, key, at, text(line.keyword.at, value::words(line)));
                }
            }
            Kind::WordList => {
                for line in self.lines(known) {
                    for word in std::iter::once(&line.keyword).chain(&line.arguments) {
                        push(target, key, at, text(word.at, &word.text));
                    }
                }
            }
            Kind::Addresses => {
                for line in self.lines(known) {
                    let address = self.address_options(line, &known.place());
                    push(target, key, at, text(line.keyword.at, address));
                }
            }
            Kind::Routing => {
                for line in self.lines(known) {
                    let route = self.routing(line, &known.place());
                    push(target, key, at, text(line.keyword.at, route));
                }
            }
            Kind::Method => self.method(known, target),
            Kind::Timeouts => self.lvs_timeouts(known),
            Kind::Nothing => {}
            Kind::Value(shape) => {
                if statement.block.is_some() {
                    self.report.error(
                        at,
                        known.outer,
                        format_args!("a block after {}", known.keyword.name),
                        "none",
                        "remove the braces",
                    );
                } else if let Some(value) = self.value(known, shape) {
                    self.set(known, target, value);
                }
            }
        }
    }

    /// Puts a value in its place, and says when there was one already: of scripts and FIFOs the first one
    /// counts.
    fn set(&mut self, known: Known<'d, '_>, target: &mut DeTable<'d>, value: Spanned<DeValue<'d>>) {
        let Keyword {
            name, key, kind, ..
        } = *known.keyword;
        if let Some(before) = target.get(key) {
            let line = self.report.line(before.span().start);
            let keeps = matches!(kind, Kind::Value(Shape::Script)) || name.ends_with("notify_fifo");
            let which = if keeps { "first" } else { "last" };
            self.report.warning(
                known.at(),
                known.place(),
                format!("it is on {line} already: as in keepalived, the {which} one counts"),
            );
            if keeps {
                return;
            }
        }
        put(target, key, known.at(), value);
    }

    /// The file of the `track_file` that a check names in its place, and its weight unless the check has one.
    fn tracked_file(&mut self, at: usize, place: &Place<'d>, check: &mut DeTable<'d>) {
        let name = check.remove("file");
        let at = name.as_ref().map_or(at, |name| name.span().start);
        let name = name.as_ref().and_then(|name| name.get_ref().as_str());
        // One of the check's own, so that nothing is said twice where there is none.
        put(check, "file", at, text(at, "/"));
        let named = |block: &&&Statement| {
            let first = block.arguments.first();
            first.is_some_and(|word| Some(word.text.as_str()) == name)
        };
        let Some(block) = self.files.iter().find(named) else {
            let found = name.map_or_else(
                || "no track_file".to_owned(),
                |name| format!("{:?}", shorten(name)),
            );
            self.report.error(
                at,
                place.key("track_file"),
                found,
                "the name of a track_file",
                "write that of a track_file block, and add the block if there is none",
            );
            return;
        };
        for line in block.block.as_deref().unwrap_or_default() {
            let Some(word) = line.arguments.first() else {
                continue;
            };
            if line.keyword.text == "file" {
                put(check, "file", at, text(at, word.text.as_str()));
            } else if line.keyword.text == "weight" && check.get("weight").is_none() {
                if let Some(reverse) = line.arguments.get(1).filter(|w| w.text == "reverse") {
                    let value = Spanned::new(reverse.at..reverse.at, DeValue::Boolean(true));
                    put(check, "reverse", reverse.at, value);
                }
                let weight = Spanned::new(word.at..word.at, value::number(word));
                put(check, "weight", word.at, weight);
            }
        }
    }

    /// The lines of the block that has to follow.
    fn lines(&mut self, known: Known<'d, '_>) -> &'d [Statement] {
        self.inner(known).map_or(&[], |(lines, _)| lines)
    }

    /// The statements of the block that has to follow, and their place.
    fn inner(&mut self, known: Known<'d, '_>) -> Option<(&'d [Statement], Place<'d>)> {
        let place = known.place();
        match known.statement.block.as_deref() {
            Some(statements) => Some((statements, place)),
            None => {
                self.report.error(
                    known.at(),
                    known.outer,
                    format_args!("{} without a block", known.keyword.name),
                    "one",
                    "add { … }",
                );
                None
            }
        }
    }
}

/// The check that an `SMTP_CHECK` is, and one more for each `host`. As keepalived
/// has it, a host goes by what the block says, except for where it connects to:
/// where that is not in the host it is the real server.
fn smtp_checks(mut section: DeTable<'_>) -> Vec<DeTable<'_>> {
    let hosts = section.remove("host").map(Spanned::into_inner);
    let Some(DeValue::Array(hosts)) = hosts else {
        return vec![section];
    };
    let mut checks = vec![section.clone()];
    for host in hosts {
        let DeValue::Table(host) = host.into_inner() else {
            continue;
        };
        let mut check = section.clone();
        for key in CONNECTION.keys {
            check.remove(*key);
        }
        for (key, value) in host {
            // The key of what is replaced would keep its span.
            check.remove(&key);
            check.insert(key, value);
        }
        checks.push(check);
    }
    checks
}

/// Adds a key, or replaces its value.
fn put<'d>(target: &mut DeTable<'d>, key: &'static str, at: usize, value: Spanned<DeValue<'d>>) {
    // The key of what is replaced would keep its span.
    target.remove(key);
    target.insert(Spanned::new(at..at, key.into()), value);
}

/// Adds an element to the list that a key has.
fn push<'d>(target: &mut DeTable<'d>, key: &'static str, at: usize, value: Spanned<DeValue<'d>>) {
    if let Some(DeValue::Array(list)) = target.get_mut(key).map(Spanned::get_mut) {
        list.push(value);
        return;
    }
    let mut list = DeArray::new();
    list.push(value);
    put(target, key, at, Spanned::new(at..at, DeValue::Array(list)));
}

fn text<'d>(at: usize, text: impl Into<Cow<'d, str>>) -> Spanned<DeValue<'d>> {
    Spanned::new(at..at, DeValue::String(text.into()))
}

fn table(at: usize, table: DeTable<'_>) -> Spanned<DeValue<'_>> {
    Spanned::new(at..at, DeValue::Table(table))
}
