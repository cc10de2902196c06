//! Text and tables as HTML.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// A text in HTML, outside and inside of quotes.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// `1 234 567`, with spaces that do not break.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() * 2);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// What stands in a cell of a table.
#[derive(Debug)]
pub(super) enum Cell<'t> {
    Text(Cow<'t, str>),
    /// A number as it is.
    Number(u64),
    /// A number that grows, and its rate beside it; the text is not that of any other in the page.
    Total(String, u64),
    /// A word, shown in the colour of a class.
    Mark(&'static str, Cow<'t, str>),
}

/// A cell of text.
pub(super) fn text<'t>(text: impl Into<Cow<'t, str>>) -> Cell<'t> {
    Cell::Text(text.into())
}

/// Begins a table, with a heading above it; a title that begins with `#` is one of numbers.
pub(super) fn begin(out: &mut String, heading: &str, titles: &[&str]) {
    out.push_str("<section>\n<h2>");
    out.push_str(heading);
    out.push_str("</h2>\n<table>\n<thead><tr>");
    for title in titles {
        match title.strip_prefix('#') {
            Some(title) => out.push_str(&format!("<th class=\"n\">{title}</th>")),
            None => out.push_str(&format!("<th>{title}</th>")),
        }
    }
    out.push_str("</tr></thead>\n<tbody>\n");
}

/// One row, of a class.
pub(super) fn row(out: &mut String, class: &str, cells: &[Cell<'_>]) -> fmt::Result {
    write!(out, "<tr class=\"{class}\">")?;
    for cell in cells {
        match cell {
            Cell::Text(text) => write!(out, "<td>{}</td>", escape(text))?,
            Cell::Number(value) => write!(out, "<td class=\"n\">{}</td>", number(*value))?,
            Cell::Total(key, value) => write!(
                out,
                "<td class=\"n\"><i class=\"rate\" data-key=\"{}\" data-total=\"{value}\"></i> {}</td>",
                escape(key),
                number(*value)
            )?,
            Cell::Mark(class, text) => write!(
                out,
                "<td><span class=\"{class}\">{}</span></td>",
                escape(text)
            )?,
        }
    }
    out.push_str("</tr>\n");
    Ok(())
}

/// Ends a table.
pub(super) fn end(out: &mut String) {
    out.push_str("</tbody>\n</table>\n</section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_text() {
        assert_eq!(escape("a"), "a");
        assert_eq!(
            escape("<script>\"a\" & 'b'"),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;"
        );
        let mut out = String::new();
        row(
            &mut out,
            "",
            &[Cell::Total("\"k".to_owned(), 1234), text("<")],
        )
        .unwrap();
        assert_eq!(
            out,
            "<tr class=\"\"><td class=\"n\"><i class=\"rate\" data-key=\"&quot;k\" \
             data-total=\"1234\"></i> 1\u{202f}234</td><td>&lt;</td></tr>\n"
        );
    }

    #[test]
    fn numbers_in_groups() {
        let numbers = [0, 999, 1000, 1_234_567].map(number);
        assert_eq!(
            numbers,
            ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
    }
}
