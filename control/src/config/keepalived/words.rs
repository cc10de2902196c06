//! A line's words and braces.

use super::line::{Line, is_blank};
use super::mistake::Mistake;

/// A word and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Without quotes; escapes are as written, see [`unescape`].
    pub(super) text: String,
    pub(super) at: usize,
}

impl Word {
    /// No word, where one should be.
    pub(super) fn at(at: usize) -> Self {
        Self {
            text: String::new(),
            at,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(Word),
    /// `{`, with its offset.
    Open(usize),
    /// `}`
    Close(usize),
}

/// The tokens of a line. Braces are tokens of their own wherever they stand
/// outside of double quotes, as in keepalived.
pub(super) fn tokens(line: &Line, mistakes: &mut Vec<Mistake>) -> Vec<Token> {
    let text = line.text.as_str();
    let mut tokens = Vec::new();
    let mut word: Option<(usize, String)> = None;
    let mut rest = text.char_indices().peekable();
    while let Some((index, c)) = rest.next() {
        match c {
            '"' => {
                let (_, word) = word.get_or_insert((index, String::new()));
                if !quoted(&mut rest, word) {
                    mistakes.push(Mistake::syntax(
                        line.at(index),
                        "found the end of the line inside a text, expected closing quotes: add them",
                    ));
                }
            }
            '$' if text[index..].starts_with("${") => {
                let close = text[index..].find('}').map(|length| index + length);
                let end = close.unwrap_or(text.len());
                let name = &text[index..close.map_or(end, |close| close + 1)];
                mistakes.push(Mistake::syntax(
                    line.at(index),
                    format!("found {name:?}, expected a parameter that is defined above: define it, as in $NAME=value, or correct the name"),
                ));
                while rest.next_if(|(at, _)| *at <= end).is_some() {}
                word.get_or_insert((index, String::new())).1.push('?');
            }
            '{' | '}' => {
                tokens.extend(finish(&mut word, line));
                tokens.push(match c {
                    '{' => Token::Open(line.at(index)),
                    _ => Token::Close(line.at(index)),
                });
            }
            c if is_blank(c) => tokens.extend(finish(&mut word, line)),
            c if is_invisible(c) => {
                let code = u32::from(c);
                mistakes.push(Mistake::syntax(
                    line.at(index),
                    format!("found the character U+{code:04X} ({}), which keepalived takes for a part of the word: write a plain space, or remove it", name_of(c)),
                ));
                tokens.extend(finish(&mut word, line));
                while rest.next_if(|(_, next)| *next == c).is_some() {}
            }
            c => {
                let plain = text[index + c.len_utf8()..].find(|c| !is_plain(c));
                let end = plain.map_or(text.len(), |length| index + c.len_utf8() + length);
                let (_, word) = word.get_or_insert((index, String::new()));
                word.push_str(&text[index..end]);
                while rest.next_if(|(at, _)| *at < end).is_some() {}
            }
        }
    }
    tokens.extend(finish(&mut word, line));
    tokens
}

/// Reads to the closing quote; false when there is none.
fn quoted(rest: &mut impl Iterator<Item = (usize, char)>, word: &mut String) -> bool {
    while let Some((_, c)) = rest.next() {
        if c == '"' {
            return true;
        }
        word.push(c);
        if c == '\\'
            && let Some((_, escaped)) = rest.next()
        {
            word.push(escaped);
        }
    }
    false
}

fn finish(word: &mut Option<(usize, String)>, line: &Line) -> Option<Token> {
    let (index, text) = word.take()?;
    let at = line.at(index);
    Some(Token::Word(Word { text, at }))
}

/// Characters that are part of a word wherever they stand.
fn is_plain(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '"' | '$' | '{' | '}')
}

/// Characters that look like a blank, or like nothing, and are not.
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

fn name_of(c: char) -> &'static str {
    match c {
        '\u{3000}' => "a full-width space",
        '\u{a0}' | '\u{202f}' => "a no-break space",
        '\u{feff}' => "a byte order mark",
        c if c.is_control() => "a control character",
        c if c.is_whitespace() => "a space of another width",
        _ => "invisible",
    }
}

/// A text with keepalived's escapes resolved: `\a \b \E \f \n \r \t \v`, up to
/// three octal digits, `\x` with hexadecimal digits, `\cC`; any other escaped
/// character stands for itself.
pub(super) fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let escaped = if c == '\\' { rest.next() } else { None };
        let Some(escaped) = escaped else {
            result.push(c);
            continue;
        };
        let mut number = |first: u32, base: u32, most: usize| {
            let mut value = first;
            for _ in 0..most {
                let Some(digit) = rest.peek().and_then(|c| c.to_digit(base)) else {
                    break;
                };
                value = value.wrapping_mul(base).wrapping_add(digit);
                rest.next();
            }
            u8::try_from(value & 0xff).map_or('?', char::from)
        };
        result.push(match escaped {
            'a' => '\x07',
            'b' => '\x08',
            'E' => '\x1b',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '0'..='7' => number(u32::from(escaped) - u32::from('0'), 8, 2),
            'x' => number(0, 16, usize::MAX),
            'c' => match rest.next() {
                Some(control) => u8::try_from(u32::from(control) & 0x1f).map_or('?', char::from),
                None => 'c',
            },
            other => other,
        });
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> (Vec<String>, Vec<String>) {
        let mut mistakes = Vec::new();
        let tokens = tokens(&Line::written(text, 0), &mut mistakes);
        let tokens = tokens.into_iter().map(|token| match token {
            Token::Word(word) => format!("{}@{}", word.text, word.at),
            Token::Open(at) => format!("{{@{at}"),
            Token::Close(at) => format!("}}@{at}"),
        });
        let mistakes = mistakes.iter().map(|m| format!("{}", m.at));
        (tokens.collect(), mistakes.collect())
    }

    #[test]
    fn words_quotes_and_braces() {
        let cases = [
            ("a b", vec!["a@0", "b@2"]),
            ("VI_1{", vec!["VI_1@0", "{@4"]),
            ("a}b c", vec!["a@0", "}@1", "b@2", "c@4"]),
            (r#"abcd" efg h jkl "mnop"#, vec!["abcd efg h jkl mnop@0"]),
            (r#"a "x { y" b"#, vec!["a@0", "x { y@2", "b@10"]),
            ("o'brien 'a b'", vec!["o'brien@0", "'a@8", "b'@11"]),
            (r#""""#, vec!["@0"]),
        ];
        for (text, expected) in cases {
            let (tokens, mistakes) = shown(text);
            assert_eq!(tokens, expected, "{text}");
            assert!(mistakes.is_empty(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_reported_once() {
        let cases = [
            ("a \"b", vec!["a@0", "b@2"], "2"),
            ("a\u{3000}b", vec!["a@0", "b@4"], "1"),
            ("\u{feff}a", vec!["a@3"], "0"),
            ("x${NO}y z", vec!["x?y@0", "z@8"], "1"),
        ];
        for (text, expected, mistake) in cases {
            assert_eq!(
                shown(text),
                (
                    expected.iter().map(ToString::to_string).collect(),
                    vec![mistake.to_owned()]
                )
            );
        }
    }

    #[test]
    fn escapes() {
        let cases = [
            (r"a\tb", "a\tb"),
            (r#"\\ \" \q"#, r#"\ " q"#),
            (r"\101\x42\cA", "AB\x01"),
            (r"end\", r"end\"),
        ];
        for (text, expected) in cases {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }
}
