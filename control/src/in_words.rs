//! Errors as people read them.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_lose_their_number_and_capital() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(in_words(&refused), "connection refused");
        assert_eq!(in_words(&io::Error::other("Too bad")), "too bad");
        assert_eq!(in_words(&io::Error::other("")), "");
    }
}
