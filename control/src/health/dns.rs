//! `DNS_CHECK`: a name server answers a query without an error (RFC 1035, UDP).
//!
//! Only the answer's header is read: its id, that it is a response, and its
//! code. Whether it is true is not this check's business.

use std::io;

use tokio::time::timeout;

use super::source::{ConnectError, Datagrams, datagrams};
use super::vip::Through;
use super::{Finding, Outcome, random, what};
use crate::config::{Check, DnsCheck};
use crate::in_words::in_words;

/// Bytes of a message's header, RFC 1035 §4.1.1.
const HEADER: usize = 12;

/// Runs a `DNS_CHECK` once.
pub(super) async fn check(
    check: &Check,
    parameters: &DnsCheck,
    through: Option<&Through>,
) -> Outcome {
    let mut server = match datagrams(check, through).await {
        Ok(server) => server,
        Err(error) => return error.into_outcome(&what(check)),
    };
    let [high, low, ..] = random().to_ne_bytes();
    let id = u16::from_be_bytes([high, low]);
    if let Err(error) = server.send(&query(id, parameters)).await {
        return ConnectError::of(error).into_outcome(&what(check));
    }
    match timeout(check.connect_timeout, answer(&mut server, id)).await {
        Ok(Ok(0)) => Outcome::Passed(Finding::Answered),
        Ok(Ok(code)) => Outcome::Failed(format!("{}: {}", what(check), code_in_words(code))),
        Ok(Err(error)) => Outcome::Failed(format!("{}: {}", what(check), in_words(&error))),
        Err(_elapsed) => Outcome::Failed(format!(
            "{}: no answer: timed out after {:?}",
            what(check),
            check.connect_timeout
        )),
    }
}

/// A query for one record with recursion desired.
fn query(id: u16, parameters: &DnsCheck) -> Vec<u8> {
    const RECURSION_DESIRED: u8 = 1;
    const CLASS_IN: u8 = 1;
    let [high, low] = id.to_be_bytes();
    let mut message = vec![high, low, RECURSION_DESIRED, 0];
    // One question, nothing else.
    message.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    for label in parameters.name.split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap_or(0));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, parameters.record_type as u8, 0, CLASS_IN]);
    message
}

/// The response code of the answer to query `id`. What is no answer to it is
/// passed over: it may belong to an earlier try.
async fn answer(server: &mut Datagrams, id: u16) -> io::Result<u8> {
    const RESPONSE: u8 = 0x80;
    const CODE: u8 = 0x0f;
    let mut message = [0; HEADER];
    loop {
        let length = server.receive(&mut message).await?;
        if length == HEADER && message[..2] == id.to_be_bytes() && message[2] & RESPONSE != 0 {
            return Ok(message[3] & CODE);
        }
    }
}

/// RFC 1035 §4.1.1.
fn code_in_words(code: u8) -> String {
    let name = match code {
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => return format!("answered with code {code}"),
    };
    format!("answered with {name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RecordType;

    #[test]
    fn a_query_as_rfc_1035_draws_it() {
        let parameters = |record_type, name: &str| DnsCheck {
            record_type,
            name: name.into(),
        };
        let header = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00";
        let asked = query(0x1234, &parameters(RecordType::Aaaa, "www.example.org"));
        let question = b"\x03www\x07example\x03org\x00\x00\x1c\x00\x01";
        assert_eq!(asked, [header.as_slice(), question].concat());
        let asked = query(0x1234, &parameters(RecordType::Soa, "."));
        assert_eq!(asked, [header.as_slice(), b"\x00\x00\x06\x00\x01"].concat());
    }
}
