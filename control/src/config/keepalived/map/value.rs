//! Statements without a block: words to values.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::super::check::SPECS;
use super::super::super::place::Place;
use super::super::super::raw::shorten;
use super::super::keywords::Shape;
use super::super::tree::Statement;
use super::super::words::{Word, unescape};
use super::{Known, Mapper, put, table, text};

/// keepalived's `persistence_timeout` when it has no number, in seconds.
pub(super) const PERSISTENCE: &str = "360";

/// Options of an address that are kept, and have an argument.
const KEPT_OPTIONS: [&str; 3] = ["dev", "label", "scope"];
/// Options that change nothing of how traffic reaches the address: with an
/// argument, and without.
const LOST_WITH_ARGUMENT: [&str; 4] = ["brd", "broadcast", "preferred_lft", "track_group"];
const LOST: [&str; 6] = [
    "-nodad",
    "autojoin",
    "home",
    "mngtmpaddr",
    "noprefixroute",
    "use_vmac",
];

/// All words of a line.
pub(super) fn words(statement: &Statement) -> String {
    let words = std::iter::once(&statement.keyword).chain(&statement.arguments);
    joined(words)
}

fn joined<'w>(words: impl Iterator<Item = &'w Word>) -> String {
    let words: Vec<_> = words.map(|word| word.text.as_str()).collect();
    words.join(" ")
}

/// A number as TOML writes it; anything else is text, for `check` to refuse.
pub(super) fn number(word: &Word) -> DeValue<'_> {
    let (sign, digits) = match word.text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.text.strip_prefix('+').unwrap_or(&word.text)),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // TOML has no leading zeros.
    let written = if sign {
        word.text.as_str()
    } else {
        let bare = digits.trim_start_matches('0');
        if bare.is_empty() { "0" } else { bare }
    };
    let parsed = is_number.then(|| DeValue::parse(written).ok()).flatten();
    match parsed.map(Spanned::into_inner) {
        Some(value) if value.is_integer() => value,
        Some(_) | None => DeValue::String(word.text.as_str().into()),
    }
}

impl<'d> Mapper<'d, '_, '_> {
    /// The value of a statement without a block; `None` when it was reported.
    pub(super) fn value(
        &mut self,
        known: Known<'d, '_>,
        shape: Shape,
    ) -> Option<Spanned<DeValue<'d>>> {
        let arguments = known.statement.arguments.as_slice();
        let value = match shape {
            Shape::Flag => return self.flag(known),
            Shape::FlagOrWords if arguments.is_empty() => return self.flag(known),
            Shape::Persistence if arguments.is_empty() => {
                let at = known.at();
                let value = DeValue::parse(PERSISTENCE).ok()?.into_inner();
                return Some(Spanned::new(at..at, value));
            }
            Shape::Words | Shape::FlagOrWords => {
                let first = self.first_word(known)?;
                return Some(text(first.at, joined(arguments.iter())));
            }
            Shape::Command => {
                let first = self.first_word(known)?;
                // A `process` has arguments.
                let runs = known.keyword.name != "process";
                if let Some(second) = arguments.get(1).filter(|_| runs) {
                    let message = "keepalived runs it without the arguments: put the command and its arguments in double quotes";
                    self.report.warning(second.at, known.place(), message);
                }
                return Some(text(first.at, command(arguments)));
            }
            Shape::Script => return self.script(known),
            Shape::Address => return self.address(known),
            Shape::Weight if arguments.get(1).is_some_and(|word| word.text == "reverse") => {
                DeValue::String(joined(arguments[..2].iter()).into())
            }
            Shape::Number | Shape::Weight | Shape::Persistence => number(self.only_word(known)?),
            Shape::Time => return self.time(known),
            Shape::Upper => DeValue::String(self.only_word(known)?.text.to_uppercase().into()),
            Shape::Escaped => DeValue::String(unescape(&self.only_word(known)?.text).into()),
            Shape::Text => DeValue::String(self.only_word(known)?.text.as_str().into()),
        };
        let at = arguments.first().map_or_else(|| known.at(), |word| word.at);
        Some(Spanned::new(at..at, value))
    }

    /// The first argument, which has to be there.
    pub(super) fn first_word(&mut self, known: Known<'d, '_>) -> Option<&'d Word> {
        let first = known.statement.arguments.first();
        if first.is_none() {
            self.report.error(
                known.at(),
                known.outer,
                format_args!("{} without a value", known.keyword.name),
                "one",
                "add it after the keyword",
            );
        }
        first
    }

    /// The argument; keepalived takes no notice of more of them.
    pub(super) fn only_word(&mut self, known: Known<'d, '_>) -> Option<&'d Word> {
        let word = self.first_word(known)?;
        if let Some(second) = known.statement.arguments.get(1) {
            let (place, part) = (known.place(), format!("{:?}", shorten(&second.text)));
            if second.text == "reverse" {
                self.part_refused(second.at, &place, &part, "weights are not reversed");
            } else {
                let why = "keepalived takes one value, too";
                self.part_left_out(second.at, &place, &part, why);
            }
        }
        Some(word)
    }

    fn flag(&mut self, known: Known<'d, '_>) -> Option<Spanned<DeValue<'d>>> {
        let at = known.at();
        let Some(word) = known.statement.arguments.first() else {
            return Some(Spanned::new(at..at, DeValue::Boolean(true)));
        };
        let value = match word.text.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" => true,
            "off" | "false" | "no" => false,
            _ => {
                self.report.error(
                    word.at,
                    known.place(),
                    format_args!("{:?}", shorten(&word.text)),
                    "nothing, or one of on, off, true, false, yes, no",
                    "choose one of them",
                );
                return None;
            }
        };
        Some(Spanned::new(word.at..word.at, DeValue::Boolean(value)))
    }

    /// Seconds: keepalived knows no units, so TOML's are refused.
    fn time(&mut self, known: Known<'d, '_>) -> Option<Spanned<DeValue<'d>>> {
        let word = self.only_word(known)?;
        let at = word.at;
        let digits = word.text.strip_prefix('+').unwrap_or(&word.text);
        let is_time = digits.bytes().any(|byte| byte.is_ascii_digit())
            && digits
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
            && digits.matches('.').count() <= 1;
        if !is_time {
            self.report.error(
                at,
                known.place(),
                format_args!("{:?}", shorten(&word.text)),
                "seconds, with a fraction or without",
                "write them so: 3 or 0.25",
            );
            return None;
        }
        if !digits.contains('.') {
            return Some(Spanned::new(at..at, number(word)));
        }
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let or_zero = |digits| {
            Some(digits)
                .filter(|digits: &&str| !digits.is_empty())
                .unwrap_or("0")
        };
        let written = format!("{}.{}s", or_zero(whole), or_zero(fraction));
        Some(text(at, written))
    }

    /// `COMMAND [USER [GROUP]]`
    fn script(&mut self, known: Known<'d, '_>) -> Option<Spanned<DeValue<'d>>> {
        let command = self.first_word(known)?;
        let at = command.at;
        let user = &known.statement.arguments[1..];
        let Some(first) = user.first() else {
            return Some(text(at, unescape(&command.text)));
        };
        if SPECS.iter().all(|spec| spec.heading != "script") {
            let why = "the script runs as the appliance's user";
            self.part_left_out(first.at, &known.place(), "the user", why);
            return Some(text(at, unescape(&command.text)));
        }
        if let Some(more) = user.get(2) {
            self.report.error(
                more.at,
                known.place(),
                format_args!("{:?}", shorten(&more.text)),
                "a command, a user and a group",
                "put the command and its arguments in double quotes",
            );
            return None;
        }
        let mut both = DeTable::new();
        put(&mut both, "script", at, text(at, unescape(&command.text)));
        let user = text(first.at, joined(user.iter()));
        put(&mut both, "user", first.at, user);
        Some(table(at, both))
    }

    /// `tcp SECONDS tcpfin SECONDS udp SECONDS`
    pub(super) fn lvs_timeouts(&mut self, known: Known<'d, '_>) {
        let at = known.at();
        let arguments = known.statement.arguments.as_slice();
        let (_, timeouts) = self.timeouts.get_or_insert_with(|| (at, DeTable::new()));
        for pair in arguments.chunks(2) {
            let key = ["tcp", "tcpfin", "udp"]
                .into_iter()
                .find(|key| pair.first().is_some_and(|word| word.text == *key));
            let (Some(key), Some(seconds)) = (key, pair.get(1)) else {
                let wrong = pair.first().map_or(at, |word| word.at);
                let found = pair.first().map_or("", |word| word.text.as_str());
                self.report.error(
                    wrong,
                    known.place(),
                    format_args!("{:?}", shorten(found)),
                    "tcp, tcpfin or udp, each with its seconds",
                    "write them so: tcp 900 tcpfin 120 udp 300",
                );
                return;
            };
            let value = Spanned::new(seconds.at..seconds.at, number(seconds));
            put(timeouts, key, seconds.at, value);
        }
        if arguments.is_empty() {
            self.first_word(known);
        }
    }

    /// A route or rule without what says who owns it: it is added again when the kernel forgets it.
    pub(super) fn routing(&mut self, line: &Statement, place: &Place<'_>) -> String {
        let mut kept = Vec::new();
        let mut words = std::iter::once(&line.keyword).chain(&line.arguments);
        while let Some(word) = words.next() {
            match word.text.as_str() {
                "protocol" => {
                    words.next();
                    let why = "what the appliance adds is marked as its own";
                    self.part_left_out(word.at, place, "protocol", why);
                }
                "track_group" => {
                    words.next();
                    let why = "static routes are not set, so none is tracked";
                    self.part_left_out(word.at, place, "track_group", why);
                }
                other => kept.push(other),
            }
        }
        kept.join(" ")
    }

    /// An address of an instance without the options that are not known here.
    pub(super) fn address_options(&mut self, line: &Statement, place: &Place<'_>) -> String {
        let mut kept = vec![line.keyword.text.as_str()];
        let mut arguments = line.arguments.iter();
        while let Some(option) = arguments.next() {
            let name = option.text.as_str();
            if KEPT_OPTIONS.contains(&name) {
                kept.push(name);
                kept.extend(arguments.next().map(|word| word.text.as_str()));
            } else if name == "no_track" {
                kept.push(name);
            } else if LOST.contains(&name) || LOST_WITH_ARGUMENT.contains(&name) {
                if LOST_WITH_ARGUMENT.contains(&name) {
                    arguments.next();
                }
                let why = "the address is placed without it";
                self.part_left_out(option.at, place, &format!("the option {name}"), why);
            } else if name == "peer" {
                arguments.next();
                let why = "the route to the peer would be missing: write it in virtual_routes";
                self.part_refused(option.at, place, "the option peer", why);
            } else {
                kept.push(name);
            }
        }
        kept.join(" ")
    }
}

/// A command as one text, in keepalived's quoting: what is one word to the file has its escapes resolved there, before it
/// is taken apart into the command's own words, where they are resolved once more.
fn command(words: &[Word]) -> String {
    let [only] = words else {
        let quoted = words.iter().map(|word| {
            if word.text.is_empty() || word.text.contains(char::is_whitespace) {
                format!("\"{}\"", word.text)
            } else {
                word.text.clone()
            }
        });
        return quoted.collect::<Vec<_>>().join(" ");
    };
    unescape(&only.text)
}
