//! From files to lines: includes, conditional lines, parameters, sequences.
//!
//! What comes out is what keepalived would read had nobody used any of these.
//! Invariant: it ends, whatever the files say, because files, depth and
//! length of what is expanded are bounded.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::super::report::Source;
use super::files::Files;
use super::include::{Checks, Directive};
use super::line::{Line, is_blank};
use super::mistake::Mistake;
use super::parameters::{LONGEST_LINE, Predefined, definition, substitute};
use super::sequence;

/// Of parameters that stand for parameters.
const DEEPEST: u16 = 50;
/// Bytes that parameters and sequences may expand to, and what a line counts
/// for beside its own.
const MOST_BYTES: usize = 16 << 20;
const LINE_BYTES: usize = 64;
const MOST_FILES: usize = 1000;

/// What is still to be read, the next last.
#[derive(Debug)]
enum Pending {
    /// A line as it stands in a file, by its offset.
    Written(Range<usize>),
    /// A line that parameters were put into, and how deep.
    Expanded(Line, u16),
    /// A step of a sequence sets its parameter.
    Define(String, Vec<Line>),
    /// A file that the line at this offset includes.
    File(PathBuf, Checks, usize),
    EndOfFile,
}

/// A file that is being read.
#[derive(Debug)]
struct Open {
    /// Without symbolic links, to recognise a file that includes itself.
    canonical: PathBuf,
    directory: PathBuf,
    checks: Checks,
}

/// Reads the lines of a configuration.
#[derive(Debug)]
pub(super) struct Reader<'f> {
    files: &'f Files,
    config_id: &'f str,
    pub(super) sources: Vec<Source>,
    pub(super) mistakes: Vec<Mistake>,
    open: Vec<Open>,
    pending: Vec<Pending>,
    parameters: BTreeMap<String, Vec<Line>>,
    expanded: usize,
}

impl<'f> Reader<'f> {
    /// Reads `text`, which is what `path` holds.
    pub(super) fn new(path: &Path, text: String, files: &'f Files, config_id: &'f str) -> Self {
        let mut reader = Self {
            files,
            config_id,
            sources: Vec::new(),
            mistakes: Vec::new(),
            open: Vec::new(),
            pending: Vec::new(),
            parameters: BTreeMap::new(),
            expanded: 0,
        };
        reader.enter(path, text, Checks::default());
        reader
    }

    fn enter(&mut self, path: &Path, text: String, checks: Checks) {
        let last = self.sources.last();
        // One byte between files, so that the end of one is not the start of the next.
        let base = last.map_or(0, |source| source.base + source.text.len() + 1);
        self.pending.push(Pending::EndOfFile);
        let mut end = text.len();
        for line in text.split('\n').rev() {
            let start = end - line.len();
            self.pending
                .push(Pending::Written(base + start..base + end));
            end = start.saturating_sub(1);
        }
        self.open.push(Open {
            canonical: self.files.canonical(path),
            directory: path.parent().map(Path::to_owned).unwrap_or_default(),
            checks,
        });
        self.sources.push(Source {
            path: path.to_owned(),
            text,
            base,
        });
    }

    /// The next line that is not empty, with everything put in its place.
    pub(super) fn next_line(&mut self) -> Option<Line> {
        loop {
            let (line, depth) = match self.pending.pop()? {
                Pending::EndOfFile => {
                    self.open.pop();
                    continue;
                }
                Pending::Define(name, value) => {
                    self.parameters.insert(name, value);
                    continue;
                }
                Pending::File(path, checks, at) => {
                    self.enter_included(&path, checks, at);
                    continue;
                }
                Pending::Written(at) => {
                    let line = self.written(at);
                    if let Some(directive) = Directive::read(&line) {
                        self.include(&directive);
                        continue;
                    }
                    (line, 0)
                }
                Pending::Expanded(line, depth) => (line.trimmed(), depth),
            };
            if let Some(line) = self.process(line, depth) {
                return Some(line);
            }
        }
    }

    /// A line of one of the files.
    fn written(&self, at: Range<usize>) -> Line {
        let next = self
            .sources
            .partition_point(|source| source.base <= at.start);
        let source = next.checked_sub(1).map(|last| &self.sources[last]);
        let text = source.and_then(|source| {
            let (start, end) = (at.start - source.base, at.end - source.base);
            source.text.get(start..end)
        });
        Line::bare(text.unwrap_or_default(), at.start)
    }

    fn process(&mut self, line: Line, depth: u16) -> Option<Line> {
        let line = if line.text.starts_with('@') {
            self.conditional(&line)?
        } else {
            line
        };
        if line.text.is_empty() {
            return None;
        }
        if let Some((name, value)) = definition(&line) {
            let name = name.to_owned();
            let value = self.value(value);
            self.parameters.insert(name, value);
            return None;
        }
        if line.text.starts_with("~SEQ") || line.text.starts_with("~LST") {
            self.sequence(&line, depth);
            return None;
        }
        let Some(lines) = substitute(&line, &self.parameters, &self.predefined()) else {
            if let Some(options) = line.text.strip_prefix("include_check")
                && let Some(file) = self.open.last_mut()
            {
                file.checks = file.checks.changed_by(options);
            }
            return Some(line);
        };
        self.expand(lines.into_iter(), depth, line.at(0));
        None
    }

    fn predefined(&self) -> Predefined<'_> {
        Predefined {
            directory: self.open.last().map(|file| file.directory.as_path()),
            config_id: self.config_id,
        }
    }

    /// What follows `@ID` when this is ID, or `@^ID` when it is not.
    fn conditional(&self, line: &Line) -> Option<Line> {
        let end = line.text.find(is_blank).unwrap_or(line.text.len());
        let id = &line.text[1..end];
        let applies = match id.strip_prefix('^') {
            Some(other) => other != self.config_id,
            None => id == self.config_id,
        };
        applies.then(|| line.slice(end..line.text.len()).trimmed())
    }

    /// The value of a definition: the rest of its line, or the lines after it
    /// while the one before ends in a backslash.
    fn value(&mut self, first: Line) -> Vec<Line> {
        let continued = |line: &Line| {
            let bare = line.text.strip_suffix('\\')?;
            Some(line.slice(0..bare.len()).trimmed())
        };
        let Some(first) = continued(&first) else {
            return vec![first];
        };
        let mut value = Vec::new();
        if !first.text.is_empty() {
            value.push(first);
        }
        while matches!(
            self.pending.last(),
            Some(Pending::Written(_) | Pending::Expanded(..))
        ) {
            let line = match self.pending.pop() {
                Some(Pending::Written(at)) => self.written(at),
                Some(Pending::Expanded(line, _)) => line.trimmed(),
                Some(Pending::Define(..) | Pending::File(..) | Pending::EndOfFile) | None => break,
            };
            match continued(&line) {
                Some(line) => value.push(line),
                None => {
                    value.push(line);
                    break;
                }
            }
        }
        value
    }

    /// Puts lines in front of what is pending.
    fn expand(&mut self, lines: impl DoubleEndedIterator<Item = Line>, depth: u16, at: usize) {
        if depth >= DEEPEST {
            self.mistakes.push(Mistake::syntax(
                at,
                format!("found parameters that stand for parameters more than {DEEPEST} deep, expected an end: is one defined by itself?"),
            ));
            self.pending.clear();
            return;
        }
        for line in lines.rev() {
            self.expanded += line.text.len() + LINE_BYTES;
            if self.expanded > MOST_BYTES || line.text.len() > LONGEST_LINE {
                self.mistakes.push(Mistake::syntax(
                    at,
                    format!("found parameters or sequences that stand for a line of more than {LONGEST_LINE} bytes, or for {} MiB in all, expected less: split it", MOST_BYTES >> 20),
                ));
                self.pending.clear();
                return;
            }
            self.pending.push(Pending::Expanded(line, depth + 1));
        }
    }

    fn sequence(&mut self, line: &Line, depth: u16) {
        let head = line
            .text
            .find(')')
            .map_or(line.text.len(), |close| close + 1);
        let mut specification = line.slice(0..head);
        for _ in 0..DEEPEST {
            let lines = substitute(&specification, &self.parameters, &self.predefined());
            match lines.as_deref() {
                Some([only]) if only.text.len() <= LONGEST_LINE => {
                    specification = only.clone();
                }
                Some(_) | None => break,
            }
        }
        let rest = line.slice(head..line.text.len());
        let steps = match sequence::steps(&specification.text) {
            Ok(steps) => steps,
            Err(expected) => {
                let found = super::super::raw::shorten(&specification.text);
                self.mistakes.push(Mistake::syntax(
                    line.at(0),
                    format!("found `{found}`, expected {expected}: correct it"),
                ));
                return;
            }
        };
        for step in steps.into_iter().rev() {
            let before = self.pending.len();
            self.expand(std::iter::once(rest.clone()), depth, line.at(0));
            if self.pending.len() <= before {
                return;
            }
            for (name, value) in step {
                let mut text = Line::default();
                text.add_value(&value, line.at(0));
                self.pending.push(Pending::Define(name, vec![text]));
            }
        }
    }

    fn include(&mut self, directive: &Directive) {
        let at = directive.at;
        let Some(current) = self.open.last() else {
            return;
        };
        let checks = current.checks.with(directive.checks);
        let found = self.files.matches(&current.directory, &directive.pattern);
        for missing in found.missing(checks) {
            let message = format!(
                "found no file {missing:?}, expected one that can be read: correct the name, or remove the line"
            );
            self.mistakes
                .push(if found.is_error(checks, &directive.pattern) {
                    Mistake::include(at, message)
                } else {
                    Mistake::missing_include(at, message)
                });
        }
        let files = found.paths.into_iter().rev();
        self.pending
            .extend(files.map(|path| Pending::File(path, checks, at)));
    }

    fn enter_included(&mut self, path: &Path, checks: Checks, at: usize) {
        let shown = path.display();
        let canonical = self.files.canonical(path);
        if self.open.iter().any(|open| open.canonical == canonical) {
            self.mistakes.push(Mistake::include(
                at,
                format!("found {shown}, which is being read already, expected a file that does not include itself: remove the line"),
            ));
            return;
        }
        if self.sources.len() == MOST_FILES {
            self.mistakes.push(Mistake::include(
                at,
                format!("found more than {MOST_FILES} files, expected fewer: include less"),
            ));
            self.pending.clear();
            return;
        }
        match self.files.read(path) {
            Ok(text) => self.enter(path, text, checks),
            Err(error) => self.mistakes.push(Mistake::include(
                at,
                format!("cannot read {shown} ({error}): correct it, or remove the line"),
            )),
        }
    }
}
