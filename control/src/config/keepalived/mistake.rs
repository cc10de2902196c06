//! What is found wrong before there is a [`Report`].

use super::super::report::Report;

/// A mistake in how a file is written, not yet in what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// An offset into the sources.
    pub(super) at: usize,
    kind: Kind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Syntax,
    Include,
    Warning,
}

impl Mistake {
    pub(super) fn syntax(at: usize, message: impl Into<String>) -> Self {
        let (kind, message) = (Kind::Syntax, message.into());
        Self { at, kind, message }
    }

    /// A file that cannot be included, where that is an error.
    pub(super) fn include(at: usize, message: impl Into<String>) -> Self {
        let (kind, message) = (Kind::Include, message.into());
        Self { at, kind, message }
    }

    /// The same where keepalived goes on without the file.
    pub(super) fn missing_include(at: usize, message: impl Into<String>) -> Self {
        let (kind, message) = (Kind::Warning, message.into());
        Self { at, kind, message }
    }

    pub(super) fn report(self, report: &mut Report<'_>) {
        match self.kind {
            Kind::Syntax => report.syntax(self.at, self.message),
            Kind::Include => report.include(self.at, self.message),
            Kind::Warning => report.warning(self.at, "include", self.message),
        }
    }
}
