//! Mistakes of TOML's syntax: all of them, each once.
//!
//! The TOML parser stops, or reports a cascade, after many kinds of mistake.
//! So each round takes its first error only, overwrites the lines that it
//! spoils with spaces, and parses again. Every byte keeps its offset, and what
//! is left when no error remains is a document that `check` can walk.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::check::SPECS;
use super::lines::Lines;
use super::report::Report;

/// Rounds after which the rest of a file is given up.
const MOST_ERRORS: usize = 20;
const END_OF_LINE: &str = "the end of the line";

/// Reports every syntax error of `text` and returns it without the lines that
/// hold them.
pub(super) fn repair(text: &str, report: &mut Report<'_>) -> String {
    let mut repaired = text.to_owned();
    for _ in 0..MOST_ERRORS {
        let (document, errors) = DeTable::parse_recoverable(&repaired);
        let (duplicates, mistakes): (Vec<_>, Vec<_>) =
            errors.iter().partition(|e| e.message() == "duplicate key");
        let mistake = if let Some(first) = mistakes.iter().min_by_key(|e| start(e)) {
            let unclosed = mistakes.iter().any(|e| is_unclosed(e));
            Mistake::find(first, unclosed, document.get_ref(), &repaired)
        } else if let Some(second) = duplicates
            .iter()
            .find_map(|e| Mistake::second_of_list(e, &repaired, report.lines()))
        {
            second
        } else {
            for duplicate in duplicates {
                report_duplicate(duplicate, text, report);
            }
            return repaired;
        };
        report.syntax(mistake.at, mistake.message);
        let spoiled = spoiled_lines(mistake.spoils, report.lines(), &repaired);
        repaired = overwrite(&repaired, spoiled);
    }
    let (_, errors) = DeTable::parse_recoverable(&repaired);
    if let Some(next) = errors.iter().min_by_key(|e| start(e)) {
        report.syntax(
            start(next),
            format!(
                "found more than {MOST_ERRORS} syntax errors, expected TOML: correct those first, the rest was not checked"
            ),
        );
        return String::new();
    }
    repaired
}

/// One syntax error in the user's words.
struct Mistake {
    at: usize,
    message: String,
    spoils: Spoils,
}

/// What a mistake leaves unusable.
enum Spoils {
    /// The lines of these bytes.
    Span(Range<usize>),
    /// Everything from the line of this byte to the next key or header.
    UntilNextItem(usize),
}

impl Mistake {
    /// A section of a list, such as `[virtual_server]`, for the second time: one of them lacks
    /// the brackets of a list. The section is left out, or each of its keys would be there twice.
    fn second_of_list(duplicate: &Error, text: &str, lines: &Lines<'_>) -> Option<Self> {
        let line = lines.range(lines.index(start(duplicate)));
        let at = line.start + text[line.clone()].find('[')?;
        let header = text[at..line.end].split('#').next()?.trim_end();
        let heading = format!("[[{}]]", header.trim_matches(['[', ']']));
        let is_list = SPECS.iter().any(|spec| spec.heading == heading);
        is_list.then(|| Self {
            at,
            message: format!(
                "found {header} for the second time, expected a list of them: write {heading} each time"
            ),
            spoils: Spoils::Span(at..at),
        })
    }

    fn find(error: &Error, unclosed: bool, document: &DeTable<'_>, text: &str) -> Self {
        let at = start(error).min(text.len());
        let enclosing = document.values().find_map(|value| enclosing(value, at));
        let does_not_end = |value: &Range<usize>| {
            let reaches_the_end = value.end >= text.trim_end().len();
            // No key begins with a bracket: this is the next section's header.
            let ran_into_header =
                tail(text, value.start).starts_with('{') && tail(text, at).starts_with('[');
            (unclosed && reaches_the_end) || ran_into_header
        };
        if let Some(value) = enclosing.clone().filter(does_not_end) {
            let found = excerpt(text, value.start..text.len());
            return Self {
                at: value.start,
                message: format!("found {found} that does not end, expected its end: close it"),
                spoils: Spoils::UntilNextItem(value.start),
            };
        }
        let is_word =
            |value: &Range<usize>| !tail(text, value.start).starts_with(['[', '{', '"', '\'']);
        let span = match enclosing.clone().filter(is_word) {
            Some(word) => word,
            None => at..error.span().map_or(at, |span| span.end.min(text.len())),
        };
        Self {
            at: span.start,
            message: explain(error.message(), text, span),
            spoils: Spoils::Span(enclosing.unwrap_or(at..at)),
        }
    }
}

fn explain(message: &str, text: &str, span: Range<usize>) -> String {
    let (what, expected) = message
        .split_once(", expected ")
        .unwrap_or((message, "valid TOML"));
    if what == "key with no value" {
        return "found a key without a value, expected key = value: add both, or remove the line"
            .into();
    }
    if what == "string values must be quoted" && span.is_empty() {
        return "found no value, expected one: write it, or remove the line".into();
    }
    let found = excerpt(text, span);
    let is_bare_word = what == "string values must be quoted"
        || ["integer", "float", "boolean", "date", "time"]
            .iter()
            .any(|kind| what.starts_with("invalid") && what.contains(kind));
    if is_bare_word {
        return format!("found {found}, expected a value: put text in quotes");
    }
    if what.starts_with("invalid") && what.ends_with("string") && found == END_OF_LINE {
        return format!("found {found} inside a text, expected closing quotes: add them");
    }
    if what.starts_with("unclosed") {
        return format!("found {found} ({what}), expected {expected}: close it");
    }
    if expected == "nothing" {
        return format!("found {found} ({what}), expected valid TOML: correct it");
    }
    format!("found {found} ({what}), expected {expected}: correct it")
}

fn report_duplicate(error: &Error, text: &str, report: &mut Report<'_>) {
    let at = start(error).min(text.len());
    let end = error.span().map_or(at, |span| span.end.min(text.len()));
    let key = excerpt(text, at..end);
    report.error(
        at,
        "",
        format_args!("{key} for the second time"),
        "each key once",
        "remove one of them",
    );
}

fn start(error: &Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

fn is_unclosed(error: &Error) -> bool {
    let message = error.message();
    message.starts_with("unclosed array,")
        || message.starts_with("unclosed inline table")
        || message.contains("multi-line")
}

/// The text of `span` on one line and in quotes, to its first few characters.
fn excerpt(text: &str, span: Range<usize>) -> String {
    const MOST: usize = 24;
    let found = text.get(span.clone()).unwrap_or_default();
    let found = found.lines().next().unwrap_or_default().trim_end();
    if found.is_empty() {
        return match tail(text, span.start).chars().next() {
            None => "the end of the file".into(),
            Some('\r' | '\n') => END_OF_LINE.into(),
            Some(c) => format!("{c:?}"),
        };
    }
    match found.char_indices().nth(MOST) {
        Some((cut, _)) => format!("`{}…`", printable(&found[..cut])),
        None => format!("`{}`", printable(found)),
    }
}

/// The text from a byte on; empty when there is none, or no character begins.
fn tail(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// The outermost header, array, inline table or string around a byte.
fn enclosing(value: &Spanned<DeValue<'_>>, at: usize) -> Option<Range<usize>> {
    let span = value.span();
    if span.start <= at && at <= span.end {
        return Some(span);
    }
    if let DeValue::Table(table) = value.get_ref() {
        table.values().find_map(|v| enclosing(v, at))
    } else if let DeValue::Array(array) = value.get_ref() {
        array.iter().find_map(|v| enclosing(v, at))
    } else {
        None
    }
}

/// The whole lines that a mistake leaves unusable, as bytes.
fn spoiled_lines(spoils: Spoils, lines: &Lines<'_>, text: &str) -> Range<usize> {
    let line = |index: usize| text[lines.range(index)].trim();
    let until = |first: usize, is_next: &dyn Fn(&str) -> bool| {
        let next = (first + 1..lines.count()).find(|index| is_next(line(*index)));
        next.unwrap_or_else(|| lines.count()) - 1
    };
    let (first, last) = match spoils {
        Spoils::UntilNextItem(at) => {
            let first = lines.index(at);
            (first, until(first, &starts_an_item))
        }
        Spoils::Span(span) if line(lines.index(span.start)).starts_with('[') => {
            // What follows a spoiled header would end up in the section before.
            let first = lines.index(span.start);
            let depth = header_depth(line(first));
            let is_next = |l: &str| l.starts_with('[') && header_depth(l) <= depth;
            (first, until(first, &is_next))
        }
        Spoils::Span(span) => (lines.index(span.start), lines.index(span.end)),
    };
    lines.range(first).start..lines.range(last).end
}

/// `text` with spaces in place of every byte of `range` that ends no line.
fn overwrite(text: &str, range: Range<usize>) -> String {
    let blank = |b: u8| if b == b'\n' { '\n' } else { ' ' };
    let mut result = String::with_capacity(text.len());
    result.push_str(&text[..range.start]);
    result.extend(text[range.clone()].bytes().map(blank));
    result.push_str(&text[range.end..]);
    result
}

/// How deep a header nests: 0 for `[[virtual_server]]`.
fn header_depth(line: &str) -> usize {
    line.matches('.').count()
}

/// A header, or `key =`.
fn starts_an_item(line: &str) -> bool {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let after_key = line.trim_start_matches(is_bare).trim_start();
    line.starts_with('[') || (after_key.len() < line.len() && after_key.starts_with('='))
}
