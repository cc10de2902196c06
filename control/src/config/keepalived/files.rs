//! Where included files come from.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::include::Checks;
use crate::config::load::read_bounded;

/// The files that may be included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// Those of this machine.
    Disk,
    /// None: every `include` finds nothing.
    None,
}

/// The files that a pattern names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Matches {
    pub(super) paths: Vec<PathBuf>,
    /// Alternatives of the pattern that no file matches.
    unmatched: Vec<String>,
}

impl Matches {
    /// The patterns that should have matched.
    pub(super) fn missing(&self, checks: Checks) -> &[String] {
        let all = self.paths.is_empty() || checks.brace_match;
        if all { &self.unmatched } else { &[] }
    }

    /// Whether that no file matches `pattern` makes the configuration unusable.
    pub(super) fn is_error(&self, checks: Checks, pattern: &str) -> bool {
        let has_wildcard = pattern.contains(['*', '?', '[']);
        if has_wildcard {
            checks.wildcard_match
        } else {
            checks.matches || checks.brace_match && pattern.contains('{')
        }
    }
}

impl Files {
    /// Reads a file; bytes that are no UTF-8 are replaced.
    pub(super) fn read(self, path: &Path) -> io::Result<String> {
        match self {
            Self::None => Err(ErrorKind::NotFound.into()),
            Self::Disk if fs::metadata(path)?.is_dir() => Err(ErrorKind::IsADirectory.into()),
            // Whoever writes a pipe may never end.
            Self::Disk if !fs::metadata(path)?.is_file() => {
                Err(io::Error::other("not a regular file"))
            }
            Self::Disk => {
                let bytes = read_bounded(path)?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
        }
    }

    /// `path` without symbolic links, as far as it exists.
    pub(super) fn canonical(self, path: &Path) -> PathBuf {
        let canonical = match self {
            Self::Disk => fs::canonicalize(path).ok(),
            Self::None => None,
        };
        canonical.unwrap_or_else(|| path.to_owned())
    }

    /// The files, not directories, that a pattern of glob(7) with csh's
    /// braces names, relative to a directory.
    pub(super) fn matches(self, directory: &Path, pattern: &str) -> Matches {
        let mut found = Matches::default();
        for alternative in alternatives(pattern) {
            let path = directory.join(&alternative);
            let paths = match self {
                Self::Disk => glob::glob(&path.to_string_lossy()).ok(),
                Self::None => None,
            };
            let before = found.paths.len();
            let files = paths.into_iter().flatten().flatten();
            found.paths.extend(files.filter(|path| !path.is_dir()));
            if found.paths.len() == before {
                found.unmatched.push(alternative);
            }
        }
        found
    }
}

/// A pattern's alternatives in braces, written out: `{a,b{c,d}}x`.
fn alternatives(pattern: &str) -> Vec<String> {
    const MOST: usize = 1000;
    let mut done = Vec::new();
    let mut pending = vec![pattern.to_owned()];
    while let Some(pattern) = pending.pop() {
        match first_braces(&pattern) {
            Some((before, parts, after)) if done.len() + pending.len() < MOST => {
                let written_out = parts
                    .iter()
                    .rev()
                    .map(|part| format!("{before}{part}{after}"));
                pending.extend(written_out);
            }
            Some(_) | None => done.push(pattern),
        }
    }
    done
}

/// What is before, in and after the first braces that close.
fn first_braces(pattern: &str) -> Option<(&str, Vec<&str>, &str)> {
    let open = pattern.find('{')?;
    let mut depth = 0_usize;
    let mut start = open + 1;
    let mut parts = Vec::new();
    for (index, c) in pattern
        .char_indices()
        .skip_while(|(index, _)| *index < open)
    {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => {
                parts.push(&pattern[start..index]);
                return Some((&pattern[..open], parts, &pattern[index + 1..]));
            }
            '}' => depth -= 1,
            ',' if depth == 1 => {
                parts.push(&pattern[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::alternatives;

    #[test]
    fn braces_are_written_out() {
        let cases = [
            ("a.conf", vec!["a.conf"]),
            ("{a,b}.conf", vec!["a.conf", "b.conf"]),
            (
                "{foo/{,cat,dog},bar}",
                vec!["foo/", "foo/cat", "foo/dog", "bar"],
            ),
            ("{a,b", vec!["{a,b"]),
        ];
        for (pattern, expected) in cases {
            assert_eq!(alternatives(pattern), expected, "{pattern}");
        }
    }
}
