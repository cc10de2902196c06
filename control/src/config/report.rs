//! The list that every step of reading a file puts its findings into.

use std::fmt::Display;
use std::path::Path;

use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::lines::Lines;

/// The findings so far about one file, in the order of discovery.
#[derive(Debug)]
pub(super) struct Report<'t> {
    path: &'t Path,
    lines: Lines<'t>,
    found: Vec<(usize, Diagnostic)>,
    /// Parts of the file could not be read: that something is missing proves
    /// nothing, see [`Report::absent`].
    incomplete: bool,
}

impl<'t> Report<'t> {
    pub(super) fn new(path: &'t Path, text: &'t str) -> Self {
        Self {
            path,
            lines: Lines::new(text),
            found: Vec::new(),
            incomplete: false,
        }
    }

    pub(super) fn lines(&self) -> &Lines<'t> {
        &self.lines
    }

    /// A mistake of TOML's syntax at byte `at`.
    pub(super) fn syntax(&mut self, at: usize, message: impl Into<String>) {
        self.incomplete = true;
        self.add(Severity::Error, at, "syntax", message.into());
    }

    /// An error with the three parts that every one has.
    pub(super) fn error(
        &mut self,
        at: usize,
        place: &str,
        found: impl Display,
        expected: impl Display,
        remedy: impl Display,
    ) {
        let message = format!("found {found}, expected {expected}: {remedy}");
        self.add(Severity::Error, at, place, message);
    }

    /// An error about something that is not there. Silent when lines of the
    /// file could not be read, because it may be on one of them.
    pub(super) fn absent(
        &mut self,
        at: usize,
        place: &str,
        found: impl Display,
        expected: impl Display,
        remedy: impl Display,
    ) {
        if !self.incomplete {
            self.error(at, place, found, expected, remedy);
        }
    }

    /// Something that this version knows and cannot do.
    pub(super) fn unsupported(
        &mut self,
        at: usize,
        place: &str,
        found: impl Display,
        supported: impl Display,
        remedy: impl Display,
    ) {
        let message = format!("found {found}, this version supports {supported}: {remedy}");
        self.add(Severity::Error, at, place, message);
    }

    pub(super) fn warning(&mut self, at: usize, place: &str, message: impl Into<String>) {
        self.add(Severity::Warning, at, place, message.into());
    }

    /// A warning that something is not there; see [`Report::absent`].
    pub(super) fn absent_warning(&mut self, at: usize, place: &str, message: &str) {
        if !self.incomplete {
            self.warning(at, place, message);
        }
    }

    fn add(&mut self, severity: Severity, at: usize, place: &str, message: String) {
        let diagnostic = Diagnostic {
            severity,
            file: self.path.to_owned(),
            position: Some(self.lines.position(at)),
            place: place.to_owned(),
            message,
        };
        self.found.push((at, diagnostic));
    }

    /// The line of a byte, as `line 7`.
    pub(super) fn line(&self, at: usize) -> String {
        format!("line {}", self.lines.position(at).line)
    }

    /// Everything found, in the order of the file.
    pub(super) fn finish(mut self) -> Diagnostics {
        self.found.sort_by_key(|(at, _)| *at);
        Diagnostics::new(self.found.into_iter().map(|(_, d)| d).collect())
    }
}
