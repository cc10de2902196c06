//! An HTTP/1 answer, taken apart as it comes in (RFC 9112).
//!
//! Only what a check needs: the status, and the body without its framing. No
//! I/O: bytes are fed, pieces of the body go to a [`Sink`].

use std::mem::MaybeUninit;

use httparse::{InvalidChunkSize, ParserConfig, Response, Status};

/// Bytes of an answer's header; a longer one fails the check.
const LARGEST_HEADER: usize = 16 << 10;

/// Header fields of an answer; more fail the check.
const MOST_FIELDS: usize = 1000;

/// Bytes of the line before a chunk, with its extensions.
const LARGEST_CHUNK_LINE: usize = 1 << 10;

/// Where the body goes, in pieces.
pub(super) trait Sink {
    fn take(&mut self, bytes: &[u8]);
}

/// Why it is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error(
        "the answer's header is longer than {LARGEST_HEADER} bytes or has more than {MOST_FIELDS} fields"
    )]
    TooLong,
    #[error("the answer is not HTTP")]
    NotHttp,
    #[error("the answer's body has a broken chunk")]
    Chunk,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Head,
    /// So many bytes of the body.
    Body(u64),
    /// A body that ends with the connection.
    Rest,
    /// The line that begins a chunk.
    ChunkLine,
    /// So many bytes of a chunk, with the end of its line.
    Chunk(u64),
    Nothing,
}

/// An answer of which a part is there.
#[derive(Debug)]
pub(super) struct Answer {
    next: Next,
    status: Option<u16>,
    /// Came in and is not used up.
    pending: Vec<u8>,
}

impl Answer {
    pub(super) fn new() -> Self {
        Self {
            next: Next::Head,
            status: None,
            pending: Vec::new(),
        }
    }

    /// The status, once the header is there.
    pub(super) fn status(&self) -> Option<u16> {
        self.status
    }

    /// Takes what came in. True when nothing more belongs to the answer.
    ///
    /// # Errors
    /// It is no HTTP answer.
    pub(super) fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<bool, Malformed> {
        let mut pending = std::mem::take(&mut self.pending);
        // Nearly always all of it comes at once, and nothing is kept.
        let mut rest = if pending.is_empty() {
            bytes
        } else {
            pending.extend_from_slice(bytes);
            &pending
        };
        while let Some(used) = self.step(rest, sink)? {
            rest = &rest[used..];
        }
        self.pending = rest.to_vec();
        Ok(self.next == Next::Nothing)
    }

    /// Uses up some of `bytes`; `None` when it needs more, or no more.
    fn step(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<Option<usize>, Malformed> {
        match self.next {
            Next::Head => self.head(bytes),
            Next::ChunkLine => self.chunk_line(bytes),
            Next::Nothing => Ok(None),
            Next::Rest | Next::Body(_) | Next::Chunk(_) if bytes.is_empty() => Ok(None),
            Next::Rest => {
                sink.take(bytes);
                Ok(Some(bytes.len()))
            }
            Next::Body(left) => {
                let piece = up_to(left, bytes);
                sink.take(piece);
                self.next = body(left - piece.len() as u64);
                Ok(Some(piece.len()))
            }
            Next::Chunk(left) => {
                const LINE_END: u64 = 2;
                sink.take(up_to(left.saturating_sub(LINE_END), bytes));
                let used = up_to(left, bytes).len();
                self.next = match left - used as u64 {
                    0 => Next::ChunkLine,
                    left => Next::Chunk(left),
                };
                Ok(Some(used))
            }
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut response = Response::new(&mut []);
        let parsed =
            lenient().parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
        let length = match parsed {
            Ok(Status::Complete(length)) if length <= LARGEST_HEADER => length,
            Ok(Status::Partial) if bytes.len() <= LARGEST_HEADER => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLong),
            Err(_) => return Err(Malformed::NotHttp),
        };
        let status = response.code.ok_or(Malformed::NotHttp)?;
        // Interim answers; after 101 it is not HTTP any more.
        if (100..200).contains(&status) && status != 101 {
            return Ok(Some(length));
        }
        self.status = Some(status);
        self.next = match status {
            101 | 204 | 304 => Next::Nothing,
            _ => framing(response.headers)?,
        };
        Ok(Some(length))
    }

    fn chunk_line(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        match httparse::parse_chunk_size(bytes) {
            // What may follow the last one is of no interest.
            Ok(Status::Complete((used, 0))) => {
                self.next = Next::Nothing;
                Ok(Some(used))
            }
            Ok(Status::Complete((used, size))) => {
                self.next = Next::Chunk(size.checked_add(2).ok_or(Malformed::Chunk)?);
                Ok(Some(used))
            }
            Ok(Status::Partial) if bytes.len() <= LARGEST_CHUNK_LINE => Ok(None),
            Ok(Status::Partial) | Err(InvalidChunkSize) => Err(Malformed::Chunk),
        }
    }
}

/// Takes folded fields as one (RFC 9112 §5.2) and leaves out those that are none: clients are served
/// nevertheless, and the check looks at the status and the body only.
fn lenient() -> ParserConfig {
    let mut config = ParserConfig::default();
    config
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    config
}

/// How the body's end is known (RFC 9112 §6.3).
fn framing(fields: &[httparse::Header<'_>]) -> Result<Next, Malformed> {
    let values = |name: &'static str| {
        let named = fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| str::from_utf8(field.value).unwrap_or_default())
    };
    if let Some(codings) = values("transfer-encoding").next_back() {
        let last = codings.rsplit(',').next().unwrap_or_default();
        return Ok(if last.trim().eq_ignore_ascii_case("chunked") {
            Next::ChunkLine
        } else {
            Next::Rest
        });
    }
    let mut lengths = values("content-length")
        .flat_map(|value| value.split(','))
        .map(str::trim);
    let Some(length) = lengths.next() else {
        return Ok(Next::Rest);
    };
    if lengths.any(|other| other != length) || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::NotHttp);
    }
    length.parse().map(body).map_err(|_| Malformed::NotHttp)
}

fn body(left: u64) -> Next {
    match left {
        0 => Next::Nothing,
        left => Next::Body(left),
    }
}

/// The first bytes, at most so many.
fn up_to(count: u64, bytes: &[u8]) -> &[u8] {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    &bytes[..count.min(bytes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sink for Vec<u8> {
        fn take(&mut self, bytes: &[u8]) {
            self.extend(bytes);
        }
    }

    /// What an answer that comes in pieces of so many bytes is: its status, its body, and whether
    /// its end was seen.
    fn read(answer: &str, piece: usize) -> Result<(Option<u16>, String, bool), Malformed> {
        let (mut parsed, mut text, mut ended) = (Answer::new(), Vec::new(), false);
        for bytes in answer.as_bytes().chunks(piece) {
            ended = parsed.feed(bytes, &mut text)?;
            if ended {
                break;
            }
        }
        Ok((parsed.status(), String::from_utf8(text).unwrap(), ended))
    }

    #[test]
    fn however_it_comes_in_pieces() {
        let cases = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell and more",
                "well",
                200,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 4, 4\r\n\r\nwell",
                "well",
                200,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\nwell",
                "well",
                200,
                false,
            ),
            (
                "HTTP/1.0 404 Gone\r\n\r\nuntil closed",
                "until closed",
                404,
                false,
            ),
            ("HTTP/1.1 204 None\r\n\r\n", "", 204, true),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                "",
                200,
                true,
            ),
            (
                "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 1\r\n\r\n!",
                "!",
                503,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 3\r\n\r\n\
              4;a=b\r\nwell\r\nA\r\n, is it?\r\n\r\n0\r\nTrailer: x\r\n\r\n",
                "well, is it?\r\n",
                200,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nzipped",
                "zipped",
                200,
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nX-Long: a,\r\n  b\r\nContent-Length:\r\n\t4\r\n\r\nwell!",
                "well",
                200,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nServer : x\r\nX Powered: y\r\n: z\r\nX: a\u{1}b\r\nno colon\r\n\
              Content-Length : 4\r\n\r\nwell!",
                "well",
                200,
                true,
            ),
        ];
        for (answer, body, status, ended) in cases {
            for piece in [1, 2, 3, 7, answer.len()] {
                let expected = Ok((Some(status), body.to_owned(), ended));
                assert_eq!(read(answer, piece), expected, "{answer:?} by {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_answer() {
        let cases = [
            ("220 mail.example.org ESMTP\r\n", Malformed::NotHttp),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                Malformed::NotHttp,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                Malformed::NotHttp,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
                Malformed::NotHttp,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n",
                Malformed::Chunk,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
                Malformed::Chunk,
            ),
        ];
        for (answer, why) in cases {
            for piece in [1, answer.len()] {
                assert_eq!(read(answer, piece), Err(why), "{answer:?} by {piece}");
            }
        }
        let all = format!(
            "HTTP/1.1 204 None\r\n{}\r\n",
            "X: y\r\n".repeat(MOST_FIELDS)
        );
        let none = Ok((Some(204), String::new(), true));
        assert_eq!(read(&all, all.len()), none);
        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "X: y\r\n".repeat(MOST_FIELDS + 1)
        );
        assert_eq!(read(&many, many.len()), Err(Malformed::TooLong));
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(LARGEST_HEADER));
        assert_eq!(read(&long, 1000), Err(Malformed::TooLong));
    }
}
