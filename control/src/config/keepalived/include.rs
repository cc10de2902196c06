//! `include FILENAME`, its variants and `include_check`.

use super::line::{Line, is_blank};

/// Which missing files are errors, as keepalived's `include_check` names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checks {
    /// `match`: a name without wildcard has to match.
    pub(super) matches: bool,
    /// A pattern with a wildcard, too.
    pub(super) wildcard_match: bool,
    /// Every alternative in braces, too.
    pub(super) brace_match: bool,
}

impl Checks {
    const ALL: Self = Self {
        matches: true,
        wildcard_match: true,
        brace_match: true,
    };

    /// Both.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            matches: self.matches || other.matches,
            wildcard_match: self.wildcard_match || other.wildcard_match,
            brace_match: self.brace_match || other.brace_match,
        }
    }

    /// After the words of an `include_check` line: `+match -wildcard_match`.
    /// Words that it does not know are for the table of keywords to find.
    pub(super) fn changed_by(self, options: &str) -> Self {
        let mut checks = if options.contains(['+', '-']) {
            self
        } else {
            Self::default()
        };
        let mut any = false;
        for word in options.split_whitespace() {
            any = true;
            let (on, name) = match word.strip_prefix('-') {
                Some(name) => (false, name),
                None => (true, word.trim_start_matches('+')),
            };
            match name {
                "match" => checks.matches = on,
                "wildcard_match" => checks.wildcard_match = on,
                "brace_match" => checks.brace_match = on,
                _ => {}
            }
        }
        if any { checks } else { Self::ALL }
    }
}

/// One line that includes files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// Where the pattern is.
    pub(super) at: usize,
    pub(super) pattern: String,
    pub(super) checks: Checks,
}

impl Directive {
    /// The directive that a line without comment is, if it is one.
    pub(super) fn read(line: &Line) -> Option<Self> {
        let (keyword, rest) = line.text.split_once(is_blank)?;
        let mut checks = Checks::default();
        match keyword {
            // A file that cannot be read is an error here in any case.
            "include" | "includer" => {}
            "includem" => checks.matches = true,
            "includew" => checks.wildcard_match = true,
            "includeb" => checks.brace_match = true,
            "includea" => checks = Checks::ALL,
            _ => return None,
        }
        let pattern = rest.trim_matches(is_blank);
        let start = line.text.len() - rest.trim_start_matches(is_blank).len();
        Some(Self {
            at: line.at(start),
            pattern: pattern.trim_matches('"').to_owned(),
            checks,
        })
    }
}
