//! The text of a mail (RFC 5322), ASCII throughout: what is not is encoded
//! (RFC 2045 §6.7, RFC 2047), so that any mail server takes it.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::Message;

/// Columns of an encoded line, the `=` at its end not counted.
const COLUMNS: usize = 75;

/// Everything that follows `DATA`, with the dot at the end.
pub(super) fn letter(
    message: &Message,
    router_id: &str,
    from: &str,
    to: &[String],
    at: SystemTime,
) -> String {
    let Message { subject, text } = message;
    let subject = header(&format!("[{router_id}] {subject}"));
    // RFC 5322 has no names of time zones any more.
    let date = httpdate::fmt_http_date(at).replace("GMT", "+0000");
    let mut letter = format!(
        "Date: {date}\r\nFrom: {from}\r\nSubject: {subject}\r\nX-Mailer: appliance\r\nTo: {}\r\n",
        to.join(",\r\n ")
    );
    letter.push_str(
        "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
    );
    for line in text.lines() {
        letter.push_str(&quoted_printable(line));
        letter.push_str("\r\n");
    }
    letter.push_str(".\r\n");
    letter
}

/// A header's text: as it is if it can be, else as encoded words.
fn header(text: &str) -> String {
    /// Characters of an encoded word: each has up to four bytes of three digits.
    const CHARACTERS: usize = 5;
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let characters: Vec<char> = text.chars().collect();
    let words = characters.chunks(CHARACTERS).map(|characters| {
        let mut word = String::from("=?utf-8?q?");
        for byte in characters.iter().collect::<String>().bytes() {
            if byte.is_ascii_alphanumeric() {
                word.push(byte.into());
            } else {
                push_encoded(&mut word, byte);
            }
        }
        word + "?="
    });
    words.collect::<Vec<_>>().join("\r\n ")
}

/// One line of a body, perhaps as several.
fn quoted_printable(line: &str) -> String {
    let mut encoded = String::new();
    let mut column = 0;
    let last = line.len().saturating_sub(1);
    for (place, byte) in line.bytes().enumerate() {
        // A space at the end may get lost, and a lone dot is the end of the mail.
        let is_plain = match byte {
            b' ' => place != last,
            b'.' => column != 0,
            byte => byte.is_ascii_graphic() && byte != b'=',
        };
        let width = if is_plain { 1 } else { 3 };
        if column + width > COLUMNS {
            encoded.push_str("=\r\n");
            column = 0;
        }
        if is_plain && (column != 0 || byte != b'.') {
            encoded.push(byte.into());
            column += 1;
        } else {
            push_encoded(&mut encoded, byte);
            column += 3;
        }
    }
    encoded
}

fn push_encoded(text: &mut String, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(text, "={byte:02X}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_letter() {
        let message = Message {
            subject: "VRRP Instance VI_1 - Entering MASTER state".into(),
            text: "a=b\n.\nends ".into(),
        };
        let to = ["a@example.com".to_owned(), "root".to_owned()];
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let expected = "Date: Sun, 06 Nov 1994 08:49:37 +0000\r\n\
            From: lb@example.com\r\n\
            Subject: [LVS] VRRP Instance VI_1 - Entering MASTER state\r\n\
            X-Mailer: appliance\r\n\
            To: a@example.com,\r\n root\r\n\
            Auto-Submitted: auto-generated\r\n\
            MIME-Version: 1.0\r\n\
            Content-Type: text/plain; charset=utf-8\r\n\
            Content-Transfer-Encoding: quoted-printable\r\n\r\n\
            a=3Db\r\n=2E\r\nends=20\r\n.\r\n";
        assert_eq!(letter(&message, "LVS", "lb@example.com", &to, at), expected);
    }

    #[test]
    fn what_is_not_ascii_is_encoded() {
        assert_eq!(header("[ü] x"), "=?utf-8?q?=5B=C3=BC=5D=20x?=");
        assert_eq!(header("abcdeü"), "=?utf-8?q?abcde?=\r\n =?utf-8?q?=C3=BC?=");
        let long = quoted_printable(&"漢.".repeat(40));
        assert!(long.is_ascii());
        let lines: Vec<_> = long.split("\r\n").collect();
        assert!(lines.iter().all(|line| line.len() <= 76), "{long}");
        assert!(lines.iter().all(|line| !line.starts_with('.')), "{long}");
        let joined = long.replace("=\r\n", "").replace("=2E", ".");
        assert_eq!(joined, "=E6=BC=A2.".repeat(40));
    }
}
