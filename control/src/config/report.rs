//! The list that every step of reading a file puts its findings into.

use std::cell::OnceCell;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::lines::Lines;

/// A file that a configuration consists of. Offsets count through all files of
/// a configuration, in the order in which they are read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// The offset of the file's first byte.
    pub(super) base: usize,
}

/// One file and where its lines start.
#[derive(Debug)]
struct Part<'t> {
    path: &'t Path,
    base: usize,
    text: &'t str,
    /// Made for the first message: most files have none.
    lines: OnceCell<Lines<'t>>,
}

impl<'t> Part<'t> {
    fn new(path: &'t Path, base: usize, text: &'t str) -> Self {
        Self {
            path,
            base,
            text,
            lines: OnceCell::new(),
        }
    }

    fn lines(&self) -> &Lines<'t> {
        self.lines.get_or_init(|| Lines::new(self.text))
    }
}

/// The syntax that remedies are worded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Toml,
    Keepalived,
}

/// The findings so far about one configuration, in the order of discovery.
#[derive(Debug)]
pub(super) struct Report<'t> {
    dialect: Dialect,
    /// At least one, ascending by base.
    parts: Vec<Part<'t>>,
    found: Vec<(usize, Diagnostic)>,
    /// Parts of the file could not be read: that something is missing proves
    /// nothing, see [`Report::absent`].
    incomplete: bool,
}

impl<'t> Report<'t> {
    pub(super) fn new(path: &'t Path, text: &'t str) -> Self {
        Self::of_parts(Dialect::Toml, vec![Part::new(path, 0, text)])
    }

    /// About a keepalived.conf and the files it includes; at least one.
    pub(super) fn of_sources(sources: &'t [Source]) -> Self {
        let parts = sources
            .iter()
            .map(|source| Part::new(&source.path, source.base, &source.text));
        Self::of_parts(Dialect::Keepalived, parts.collect())
    }

    fn of_parts(dialect: Dialect, parts: Vec<Part<'t>>) -> Self {
        Self {
            dialect,
            parts,
            found: Vec::new(),
            incomplete: false,
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The lines of the first file, the only one of a configuration in TOML.
    pub(super) fn lines(&self) -> &Lines<'t> {
        self.parts[0].lines()
    }

    /// The text from a byte on.
    pub(super) fn text_at(&self, at: usize) -> &'t str {
        let (_, part, offset) = self.part(at);
        part.text.get(offset..).unwrap_or_default()
    }

    /// The file of an offset, and the offset in it.
    fn part(&self, at: usize) -> (usize, &Part<'t>, usize) {
        let index = self.parts.partition_point(|part| part.base <= at);
        let index = index.saturating_sub(1);
        let part = &self.parts[index];
        (index, part, at - part.base)
    }

    /// A mistake of the file's syntax at byte `at`.
    pub(super) fn syntax(&mut self, at: usize, message: impl Into<String>) {
        self.incomplete = true;
        self.add(Severity::Error, at, "syntax", message.into());
    }

    /// A file that should be read and cannot: what is in it is missing.
    pub(super) fn include(&mut self, at: usize, message: impl Into<String>) {
        self.incomplete = true;
        self.add(Severity::Error, at, "include", message.into());
    }

    /// An error with the three parts that every one has.
    pub(super) fn error(
        &mut self,
        at: usize,
        place: impl Display,
        found: impl Display,
        expected: impl Display,
        remedy: impl Display,
    ) {
        let message = format!("found {found}, expected {expected}: {remedy}");
        self.add(Severity::Error, at, place, message);
    }

    /// A part of something that is not there, or was not recognised.
    pub(super) fn orphan(
        &mut self,
        at: usize,
        place: impl Display,
        found: impl Display,
        expected: impl Display,
        remedy: impl Display,
    ) {
        self.error(at, place, found, expected, remedy);
        self.incomplete = true;
    }

    /// An error about something that is not there. Silent when lines of the
    /// file could not be read, because it may be on one of them.
    pub(super) fn absent(
        &mut self,
        at: usize,
        place: impl Display,
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
        place: impl Display,
        found: impl Display,
        supported: impl Display,
        remedy: impl Display,
    ) {
        let message = format!("found {found}, this version supports {supported}: {remedy}");
        self.add(Severity::Error, at, place, message);
    }

    /// A keyword that is left out, or does something else here: `--strict`
    /// makes `import` fail because of it.
    pub(super) fn unmapped(&mut self, at: usize, place: impl Display, message: impl Into<String>) {
        self.add(Severity::Unmapped, at, place, message.into());
    }

    pub(super) fn warning(&mut self, at: usize, place: impl Display, message: impl Into<String>) {
        self.add(Severity::Warning, at, place, message.into());
    }

    /// A warning that something is not there; see [`Report::absent`].
    pub(super) fn absent_warning(&mut self, at: usize, place: impl Display, message: &str) {
        if !self.incomplete {
            self.warning(at, place, message);
        }
    }

    fn add(&mut self, severity: Severity, at: usize, place: impl Display, message: String) {
        let (_, part, offset) = self.part(at);
        let diagnostic = Diagnostic {
            severity,
            file: part.path.to_owned(),
            position: Some(part.lines().position(offset)),
            place: place.to_string(),
            message,
        };
        self.found.push((at, diagnostic));
    }

    /// The line of a byte, as `line 7`, or `line 7 of FILE` for an included one.
    pub(super) fn line(&self, at: usize) -> String {
        let (index, part, offset) = self.part(at);
        let line = part.lines().position(offset).line;
        match index {
            0 => format!("line {line}"),
            _ => format!("line {line} of {}", part.path.display()),
        }
    }

    /// Everything found, in the order of the file, and each finding once.
    pub(super) fn finish(mut self) -> Diagnostics {
        self.found.sort_by_key(|(at, _)| *at);
        self.found.dedup();
        Diagnostics::new(self.found.into_iter().map(|(_, d)| d).collect())
    }
}
