//! A command line as keepalived.conf writes it, taken apart into words.
//!
//! Words are separated by white space. `"…"` and `'…'` keep it, also in the
//! middle of a word; a backslash takes the next character as it is, except
//! within `'…'`. There are no variables and no globs: nothing here is a shell.

/// Why a command line cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a {0} that is not closed")]
    Quote(char),
    #[error("a backslash at the end")]
    Backslash,
    #[error("no command")]
    Empty,
}

/// The words of a command line.
///
/// # Errors
/// An open quote, a backslash before nothing, or no word at all.
pub fn split(line: &str) -> Result<Vec<String>, Error> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None | Some('"'), '\\') => {
                let escaped = characters.next().ok_or(Error::Backslash)?;
                word.get_or_insert_default().push(escaped);
            }
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == character => quote = None,
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (_, _) => word.get_or_insert_default().push(character),
        }
    }
    if let Some(open) = quote {
        return Err(Error::Quote(open));
    }
    words.extend(word);
    if words.is_empty() {
        return Err(Error::Empty);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes() {
        let cases: [(&str, &[&str]); 7] = [
            ("/bin/true", &["/bin/true"]),
            ("  a\t b  ", &["a", "b"]),
            (r#""a b" c"#, &["a b", "c"]),
            (r#"a" b "c"#, &["a b c"]),
            (r"'a\ b'  c\ d", &[r"a\ b", "c d"]),
            (r#"a "" ''"#, &["a", "", ""]),
            (r#""say \"no\"""#, &[r#"say "no""#]),
        ];
        for (line, expected) in cases {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_taken_apart() {
        assert_eq!(split("a \"b"), Err(Error::Quote('"')));
        assert_eq!(split("a 'b"), Err(Error::Quote('\'')));
        assert_eq!(split("a\\"), Err(Error::Backslash));
        assert_eq!(split(" \t"), Err(Error::Empty));
    }
}
