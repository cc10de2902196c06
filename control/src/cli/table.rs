//! Aligned columns for people.

use std::io::{self, Write};

/// Where a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table that is written in one or more blocks. Columns are as wide as
/// their widest cell so far: a later block may be wider, never narrower.
#[derive(Debug)]
pub(super) struct Table<const COLUMNS: usize> {
    titles: Option<[&'static str; COLUMNS]>,
    align: [Align; COLUMNS],
    widths: [usize; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table with these titles in its first line.
    #[must_use]
    pub(super) fn new(columns: [(&'static str, Align); COLUMNS]) -> Self {
        Self {
            titles: Some(columns.map(|(title, _)| title)),
            align: columns.map(|(_, align)| align),
            widths: columns.map(|(title, _)| title.chars().count()),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Control characters, which may come from a server that is
    /// checked, are shown escaped: the terminal does not obey them.
    pub(super) fn push(&mut self, cells: [String; COLUMNS]) {
        let cells = cells.map(|cell| match cell.contains(char::is_control) {
            true => cell.escape_debug().to_string(),
            false => cell,
        });
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = cell.chars().count().max(*width);
        }
        self.rows.push(cells);
    }

    /// Rows that are not written yet.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when no row waits to be written.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the titles, the first time, and the rows added since the last.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub(super) fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(titles) = self.titles.take() {
            self.line(out, titles)?;
        }
        for row in std::mem::take(&mut self.rows) {
            self.line(out, row.each_ref().map(String::as_str))?;
        }
        Ok(())
    }

    fn line(&self, out: &mut dyn Write, cells: [&str; COLUMNS]) -> io::Result<()> {
        let mut line = String::new();
        for ((cell, &width), align) in cells.iter().zip(&self.widths).zip(self.align) {
            line += &match align {
                Align::Left => format!("{cell:<width$}  "),
                Align::Right => format!("{cell:>width$}  "),
            };
        }
        writeln!(out, "{}", line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<2> {
        Table::new([("Name", Align::Left), ("Count", Align::Right)])
    }

    fn written(table: &mut Table<2>) -> String {
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = table();
        table.push(["a".into(), "1".into()]);
        table.push(["longer".into(), "1234567".into()]);
        assert_eq!(
            written(&mut table),
            "Name      Count\na             1\nlonger  1234567\n"
        );
    }

    #[test]
    fn later_blocks_keep_the_widths_and_have_no_titles() {
        let mut table = table();
        table.push(["longer".into(), "1".into()]);
        written(&mut table);
        assert!(table.is_empty());
        table.push(["a".into(), "2".into()]);
        assert_eq!(written(&mut table), "a           2\n");
    }

    #[test]
    fn terminal_does_not_obey_cells() {
        let mut table = table();
        table.push(["\u{1b}[2J\n".into(), "é".into()]);
        let text = written(&mut table);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
