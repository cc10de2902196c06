//! Byte offsets to lines and columns.

use super::diagnostic::Position;

/// Where each line of a text starts.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Byte offsets, ascending; the first is 0.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(after_newlines).collect(),
        }
    }

    /// The position of a byte; one past the end, or inside a character, is the
    /// position of the nearest character before it.
    pub(super) fn position(&self, offset: usize) -> Position {
        let index = self.index(offset);
        let start = self.starts[index];
        let line = self.text[start..].char_indices();
        let before = line.take_while(|(at, _)| start + at < offset);
        Position {
            line: index + 1,
            column: before.count() + 1,
        }
    }

    /// The number, from 0, of the line that holds a byte.
    pub(super) fn index(&self, offset: usize) -> usize {
        // The first start is 0, so the partition point is at least 1.
        self.starts.partition_point(|start| *start <= offset) - 1
    }

    /// The bytes of a line without its newline; empty past the last line.
    pub(super) fn range(&self, index: usize) -> std::ops::Range<usize> {
        let end_of_text = self.text.len();
        let start = self.starts.get(index).copied().unwrap_or(end_of_text);
        let end = self
            .starts
            .get(index + 1)
            .map_or(end_of_text, |next| next - 1);
        start..end
    }

    pub(super) fn count(&self) -> usize {
        self.starts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        let lines = Lines::new("a\r\nüb\n\nc");
        let at = |offset| {
            let Position { line, column } = lines.position(offset);
            (line, column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(3), (2, 1));
        assert_eq!(at(5), (2, 2), "after the two bytes of ü");
        assert_eq!(at(7), (3, 1), "an empty line");
        assert_eq!(at(8), (4, 1));
        assert_eq!(at(9), (4, 2), "the end of the text");
        assert_eq!(at(900), (4, 2), "past the end");
    }

    #[test]
    fn ranges_exclude_the_newline() {
        let lines = Lines::new("ab\n\nc");
        assert_eq!(lines.range(0), 0..2);
        assert_eq!(lines.range(1), 3..3);
        assert_eq!(lines.range(2), 4..5);
        assert_eq!(lines.range(3), 5..5);
    }
}
