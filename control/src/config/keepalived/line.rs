//! A line on its way from the file to the parser, which knows for each
//! character where it was written.

use std::ops::Range;

/// A line's text and where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Ascending by `start`; the first starts at 0 unless there is none.
    origins: Vec<Origin>,
}

/// Where the text from `start` to the next origin was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    start: usize,
    /// An offset into the sources.
    at: usize,
    /// All of this part stands at `at`: it is the value of a parameter that
    /// was named there.
    is_point: bool,
}

impl Line {
    /// A line of a file that begins at `at`, without a comment and the blanks around it. A file has a hundred thousand of
    /// them: nothing is copied before it is known what is left.
    pub(super) fn bare(text: &str, at: usize) -> Self {
        let text = before_comment(text).trim_end_matches(is_blank);
        let bare = text.trim_start_matches(is_blank);
        Self::written(bare, at + text.len() - bare.len())
    }

    /// Text as it was written at `at`.
    pub(super) fn written(text: &str, at: usize) -> Self {
        let mut line = Self::default();
        line.add(text, at, false);
        line
    }

    /// Where the byte `index` was written.
    pub(super) fn at(&self, index: usize) -> usize {
        let next = self.origins.partition_point(|o| o.start <= index);
        let Some(origin) = next.checked_sub(1).map(|last| self.origins[last]) else {
            return 0;
        };
        if origin.is_point {
            origin.at
        } else {
            origin.at + (index - origin.start)
        }
    }

    /// Adds text that a parameter named at `at` stands for.
    pub(super) fn add_value(&mut self, text: &str, at: usize) {
        self.add(text, at, true);
    }

    fn add(&mut self, text: &str, at: usize, is_point: bool) {
        let start = self.text.len();
        self.origins.push(Origin {
            start,
            at,
            is_point,
        });
        self.text.push_str(text);
    }

    /// Adds another line's text with its origins.
    pub(super) fn append(&mut self, other: &Self) {
        let start = self.text.len();
        self.text.push_str(&other.text);
        let moved = other.origins.iter().map(|origin| Origin {
            start: origin.start + start,
            ..*origin
        });
        self.origins.extend(moved);
    }

    /// A part of the line. `range` begins and ends between characters.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        let first = Origin {
            start: 0,
            at: self.at(range.start),
            is_point: self.is_point(range.start),
        };
        let from = self.origins.partition_point(|o| o.start <= range.start);
        let to = self.origins.partition_point(|o| o.start < range.end);
        let inside = self.origins.get(from..to).unwrap_or_default().iter();
        let inside = inside.map(|o| Origin {
            start: o.start - range.start,
            ..*o
        });
        Self {
            text: self.text[range.clone()].to_owned(),
            origins: std::iter::once(first).chain(inside).collect(),
        }
    }

    fn is_point(&self, index: usize) -> bool {
        let next = self.origins.partition_point(|o| o.start <= index);
        next.checked_sub(1)
            .is_some_and(|last| self.origins[last].is_point)
    }

    /// Without the blanks around it.
    pub(super) fn trimmed(&self) -> Self {
        let end = self.text.trim_end_matches(is_blank).len();
        let start = self.text[..end].len() - self.text[..end].trim_start_matches(is_blank).len();
        self.slice(start..end)
    }
}

/// What is before a comment: `#` or `!` outside of double quotes, to the end.
fn before_comment(text: &str) -> &str {
    let mut in_quotes = false;
    let mut bytes = text.bytes().enumerate();
    while let Some((index, byte)) = bytes.next() {
        match byte {
            b'"' => in_quotes = !in_quotes,
            // The first byte of a character is enough: none of the others is one of these.
            b'\\' if in_quotes => {
                bytes.next();
            }
            b'#' | b'!' if !in_quotes => return &text[..index],
            _ => {}
        }
    }
    text
}

/// What separates words in keepalived: `isspace(3)` in the C locale.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_knows_where_it_was_written() {
        let mut line = Line::written("priority ", 100);
        line.add_value("150", 109);
        line.append(&Line::written(" rest", 120));
        assert_eq!(line.text, "priority 150 rest");
        assert_eq!(line.at(0), 100);
        assert_eq!(line.at(8), 108);
        assert_eq!(line.at(9), 109);
        assert_eq!(line.at(11), 109, "inside the value");
        assert_eq!(line.at(13), 121);
        let part = line.slice(10..17);
        assert_eq!(part.text, "50 rest");
        assert_eq!(part.at(0), 109);
        assert_eq!(part.at(1), 109);
        assert_eq!(part.at(3), 121);
    }

    #[test]
    fn comments_and_blanks() {
        let bare = |text| Line::bare(text, 0).text;
        assert_eq!(bare("a b # c ! d"), "a b");
        assert_eq!(bare("\t a!b"), "a");
        assert_eq!(bare(r#"a "b # c" # d"#), r#"a "b # c""#);
        assert_eq!(bare(r#""b \" # c" ! d"#), r#""b \" # c""#);
        assert_eq!(bare("a\r"), "a");
        assert_eq!(bare("# all"), "");
        assert_eq!(Line::bare("\t a b #", 10).at(2), 14);
    }
}
