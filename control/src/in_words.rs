//! Errors and numbers as people read them.

use std::io;

/// An I/O error as part of a sentence: `connection refused`, not
/// `Connection refused (os error 111)`.
pub(crate) fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(characters).collect()
}

/// `3 real servers`, `1 real server`.
pub(crate) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(count(0, "real server"), "0 real servers");
        assert_eq!(count(1, "real server"), "1 real server");
        assert_eq!(count(2, "real server"), "2 real servers");
    }

    #[test]
    fn errors_lose_their_number_and_capital() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(in_words(&refused), "connection refused");
        assert_eq!(in_words(&io::Error::other("Too bad")), "too bad");
        assert_eq!(in_words(&io::Error::other("")), "");
    }
}
