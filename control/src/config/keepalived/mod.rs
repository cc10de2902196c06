//! keepalived.conf(5), the other syntax of a configuration.
//!
//! `expand` turns files into lines: comments, includes, conditional lines,
//! parameters, sequences. `tree` makes statements and blocks of the lines'
//! words. `map` makes of them the document that TOML would have been, with the
//! positions of keepalived's words, and `check` does the rest: ranges, defaults
//! and messages are the same in both syntaxes. `keywords` is the table that
//! `map` goes by, one line a keyword.
//!
//! Where keepalived would log a mistake and go on with a default, this refuses
//! the file: docs/keepalived.md lists the differences.

mod expand;
mod files;
mod include;
mod keywords;
mod line;
mod map;
mod mistake;
mod parameters;
mod sequence;
#[cfg(test)]
mod tests;
mod tree;
mod words;

use std::fs;
use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;

use super::check::{self, Checked};
use super::diagnostic::Diagnostics;
use super::raw::Entry;
use super::report::Report;
use expand::Reader;
use files::Files;
pub(super) use map::Mode;
use tree::Builder;

/// Checks the text of a keepalived.conf and the files it includes; `path` names
/// it, and tells where relative names begin.
///
/// # Errors
///
/// Every problem, warnings included, in the order of the files.
pub(super) fn parse(
    text: String,
    path: &Path,
    config_id: Option<&str>,
    mode: Mode,
) -> Result<Checked, Diagnostics> {
    parse_with(Files::Disk, text, path, config_id, mode)
}

/// The same without including anything: for texts that come from nowhere.
pub(super) fn parse_alone(text: &str, path: &Path) -> Result<Checked, Diagnostics> {
    parse_with(Files::None, text.to_owned(), path, Some("main"), Mode::Use)
}

fn parse_with(
    files: Files,
    text: String,
    path: &Path,
    config_id: Option<&str>,
    mode: Mode,
) -> Result<Checked, Diagnostics> {
    let name = match config_id {
        Some(id) => id.to_owned(),
        None => host_name(),
    };
    let mut reader = Reader::new(path, text, &files, &name);
    let mut builder = Builder::default();
    let mut mistakes = Vec::new();
    while let Some(line) = reader.next_line() {
        builder.line(&line, &mut mistakes);
    }
    let statements = builder.finish(&mut mistakes);
    mistakes.append(&mut reader.mistakes);
    let sources = reader.sources;
    let mut report = Report::of_sources(&sources);
    for mistake in mistakes {
        mistake.report(&mut report);
    }
    let document: Spanned<DeTable<'_>> = map::document(&statements, mode, &mut report);
    check::checked(Entry::of_document(&document), report)
}

/// The first part of the host's name, which conditional lines are compared
/// with; empty when the system does not tell.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let first = name.trim().split('.').next();
    first.unwrap_or_default().to_owned()
}
