//! A line of words, taken one by one.

use std::fmt;
use std::str::{FromStr, SplitWhitespace};

use dataplane::bpf::{BadPrefix, Prefix};

use super::{Expected, TABLES};

pub(super) struct Words<'t> {
    words: SplitWhitespace<'t>,
}

impl<'t> Words<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self {
            words: text.split_whitespace(),
        }
    }

    pub(super) fn next(&mut self) -> Option<&'t str> {
        self.words.next()
    }

    /// The word after `option`, as `what`.
    pub(super) fn after<T: FromStr>(&mut self, option: &str, what: &str) -> Result<T, Expected> {
        let word = self.next().and_then(|word| word.parse().ok());
        word.ok_or_else(|| Expected(format!("{what} after {option}")))
    }

    /// A table after `option`: a number, or the name of one that every host has.
    pub(super) fn table(&mut self, option: &str) -> Result<u32, Expected> {
        let word = self.next().unwrap_or_default();
        let named = TABLES.iter().find(|(name, _)| *name == word);
        let number = named.map(|(_, number)| *number);
        let number = number.or_else(|| word.parse().ok().filter(|number| *number != 0));
        number.ok_or_else(|| {
            Expected(format!(
                "the number of a table, or main, default or local, after {option}"
            ))
        })
    }

    /// The name of an interface after `option`.
    pub(super) fn interface(&mut self, option: &str) -> Result<String, Expected> {
        let fits = |name: &&str| name.len() <= 15 && !name.contains('/');
        let name = self.next().filter(fits).map(str::to_owned);
        name.ok_or_else(|| Expected(format!("the name of an interface after {option}")))
    }

    pub(super) fn prefix(word: &str) -> Result<Prefix, Expected> {
        word.parse().map_err(|error| match error {
            BadPrefix::HostBits(prefix) => {
                Expected(format!("{prefix}, without bits beyond the prefix length"))
            }
            BadPrefix::Syntax | BadPrefix::TooLong { .. } | BadPrefix::Mapped => Expected(
                "an address with or without a prefix length, such as 10.1.0.0/16".to_owned(),
            ),
        })
    }
}

/// ` WORD VALUE`, if there is a value.
pub(super) fn option<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    word: &str,
    value: Option<T>,
) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {word} {value}"),
        None => Ok(()),
    }
}
