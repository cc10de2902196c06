//! `$NAME=value`, `$NAME`, `${NAME}` and the parameters that are always there.

use std::collections::BTreeMap;
use std::env;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use super::line::{Line, is_blank};

/// Bytes of a line that parameters are put into; what is longer is cut off here
/// and reported by who reads it.
pub(super) const LONGEST_LINE: usize = 1 << 16;

/// What the parameters with a leading underscore depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Predefined<'r> {
    /// Of the file that is being read.
    pub(super) directory: Option<&'r Path>,
    pub(super) config_id: &'r str,
}

/// The name and value of a line `$NAME=value`.
pub(super) fn definition(line: &Line) -> Option<(&str, Line)> {
    let rest = line.text.strip_prefix('$')?;
    let length = name_length(rest);
    let name = rest.get(..length).filter(|name| !name.is_empty())?;
    rest[length..].starts_with('=').then(|| {
        let value = 1 + length + 1;
        (name, line.slice(value..line.text.len()).trimmed())
    })
}

/// The length of the name that a text begins with.
fn name_length(text: &str) -> usize {
    let first_is_digit = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    if first_is_digit {
        0
    } else {
        end.unwrap_or(text.len())
    }
}

/// The lines that a line becomes with its parameters replaced, once; `None`
/// when it names none that is defined.
pub(super) fn substitute(
    line: &Line,
    parameters: &BTreeMap<String, Vec<Line>>,
    predefined: &Predefined<'_>,
) -> Option<Vec<Line>> {
    let text = line.text.as_str();
    let mut done = Vec::new();
    let mut current = Line::default();
    let mut copied = 0;
    let mut changed = false;
    let mut from = 0;
    while let Some(index) = text[from..].find('$').map(|offset| from + offset) {
        from = index + 1;
        let Some((name, arguments, end)) = reference(text, index) else {
            continue;
        };
        let at = line.at(index);
        let value = parameters.get(name);
        let built_in = match value {
            Some(_) => None,
            None => predefined.value(name, arguments),
        };
        if value.is_none() && built_in.is_none() {
            continue;
        }
        current.append(&line.slice(copied..index));
        match value.map(Vec::as_slice) {
            Some([only]) => current.add_value(&only.text, at),
            Some([first, between @ .., last]) => {
                current.append(first);
                done.push(std::mem::take(&mut current));
                done.extend(between.iter().cloned());
                current.append(last);
            }
            Some([]) => {}
            None => current.add_value(&built_in.unwrap_or_default(), at),
        }
        changed = true;
        copied = end;
        from = end;
        if current.text.len() > LONGEST_LINE || done.len() > LONGEST_LINE {
            copied = text.len();
            break;
        }
    }
    if !changed {
        return None;
    }
    current.append(&line.slice(copied..text.len()));
    done.push(current);
    Some(done)
}

/// The name, the arguments and the end of the reference at `index`:
/// `$NAME` before a blank, or `${NAME}` anywhere.
fn reference(text: &str, index: usize) -> Option<(&str, &str, usize)> {
    let rest = &text[index + 1..];
    if let Some(braced) = rest.strip_prefix('{') {
        let close = braced.find('}')?;
        let length = name_length(&braced[..close]);
        let (name, arguments) = braced[..close].split_at(length);
        let fits = arguments.is_empty() || arguments.starts_with(is_blank);
        return (length > 0 && fits).then_some((name, arguments, index + 2 + close + 1));
    }
    let length = name_length(rest);
    let (name, after) = rest.split_at(length);
    let ends = after.is_empty() || after.starts_with(is_blank);
    (length > 0 && ends).then_some((name, "", index + 1 + length))
}

impl Predefined<'_> {
    fn value(&self, name: &str, arguments: &str) -> Option<String> {
        let mut words = arguments.split_whitespace();
        Some(match name {
            "_PWD" => {
                let directory = self.directory?;
                let absolute = std::path::absolute(directory).ok();
                let directory = absolute.as_deref().unwrap_or(directory);
                directory.to_string_lossy().into_owned()
            }
            "_INSTANCE" => self.config_id.to_owned(),
            "_HASH" => "#".to_owned(),
            "_BANG" => "!".to_owned(),
            "_RANDOM" => {
                let mut bound = |default| match words.next() {
                    Some(word) => word.parse::<u64>().ok(),
                    None => Some(default),
                };
                let (least, most) = (bound(0)?, bound(32767)?);
                let count = most.checked_sub(least)?.saturating_add(1);
                let random = RandomState::new().build_hasher().finish();
                (least + random % count).to_string()
            }
            "_ENV" => env::var(words.next()?).ok()?,
            other => env::var(other.strip_prefix("_ENV_")?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> Option<Vec<String>> {
        let value = |lines: &[&str]| {
            let lines = lines.iter().map(|text| Line::written(text, 0));
            lines.collect::<Vec<_>>()
        };
        let parameters = BTreeMap::from([
            ("A".to_owned(), value(&["x y"])),
            ("EMPTY".to_owned(), value(&[""])),
            ("M".to_owned(), value(&["one {", "two", "}"])),
        ]);
        let predefined = Predefined {
            directory: None,
            config_id: "main",
        };
        let lines = substitute(&Line::written(text, 0), &parameters, &predefined)?;
        Some(lines.into_iter().map(|line| line.text).collect())
    }

    #[test]
    fn references_are_replaced_as_keepalived_does() {
        let cases = [
            ("p $A", Some(vec!["p x y"])),
            ("p${A}q", Some(vec!["px yq"])),
            ("$A{", None),
            ("\"$A\"", None),
            ("$Ax ${NO} $", None),
            ("a${EMPTY}b", Some(vec!["ab"])),
            ("a $M b", Some(vec!["a one {", "two", "} b"])),
            ("${_INSTANCE}${_HASH}${_BANG}", Some(vec!["main#!"])),
            ("${_RANDOM 5 5}", Some(vec!["5"])),
            ("${_RANDOM 5 4}", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|lines| lines.iter().map(ToString::to_string).collect());
            assert_eq!(replaced(text), expected, "{text}");
        }
    }

    #[test]
    fn definitions() {
        let read = |text| {
            let line = Line::written(text, 0);
            definition(&line).map(|(name, value)| (name.to_owned(), value.text))
        };
        let pair = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(read("$A=x y "), pair("A", "x y"));
        assert_eq!(read("$_a9="), pair("_a9", ""));
        assert_eq!(read("$A =x"), None);
        assert_eq!(read("$9=x"), None);
        assert_eq!(read("A=x"), None);
    }
}
