//! `UDP_CHECK`: a datagram is not refused, or is answered as it should be.
//!
//! Without `require_reply` silence for `connect_timeout` is success: only an
//! ICMP error says that nobody is there.

use tokio::time::timeout;

use super::source::{ConnectError, datagrams};
use super::vip::Through;
use super::{Finding, Outcome, random, what};
use crate::config::{Check, UdpCheck, UdpReply};
use crate::in_words::in_words;

/// Runs a `UDP_CHECK` once.
pub(super) async fn check(
    check: &Check,
    parameters: &UdpCheck,
    through: Option<&Through>,
) -> Outcome {
    let mut server = match datagrams(check, through).await {
        Ok(server) => server,
        Err(error) => return error.into_outcome(&what(check)),
    };
    let noise: Vec<u8>;
    let payload = match &parameters.payload {
        Some(payload) => payload,
        None => {
            noise = (0..4).flat_map(|_| random().to_ne_bytes()).collect();
            &noise
        }
    };
    if let Err(error) = server.send(payload).await {
        return ConnectError::of(error).into_outcome(&what(check));
    }
    let limit = parameters
        .reply
        .as_ref()
        .map_or(0, |reply| reply.max_length);
    // One byte more shows that an answer is too long.
    let mut answer = vec![0; usize::from(limit) + 1];
    match (
        timeout(check.connect_timeout, server.receive(&mut answer)).await,
        &parameters.reply,
    ) {
        (Ok(Err(error)), _) => Outcome::Failed(format!("{}: {}", what(check), in_words(&error))),
        (Err(_silent), None) => Outcome::Passed(Finding::NotRefused),
        (Ok(Ok(_)), None) => Outcome::Passed(Finding::Answered),
        (Err(_silent), Some(_)) => Outcome::Failed(format!(
            "{}: no answer: timed out after {:?}",
            what(check),
            check.connect_timeout
        )),
        (Ok(Ok(length)), Some(wanted)) => match judge(&answer[..length], wanted) {
            Ok(()) => Outcome::Passed(Finding::Answered),
            Err(why) => Outcome::Failed(format!("{}: {why}", what(check))),
        },
    }
}

fn judge(answer: &[u8], wanted: &UdpReply) -> Result<(), String> {
    let length = answer.len();
    if length > usize::from(wanted.max_length) {
        let most = wanted.max_length;
        return Err(format!("an answer of more than {most} bytes"));
    }
    if length < usize::from(wanted.min_length) {
        let least = wanted.min_length;
        return Err(format!(
            "an answer of {length} bytes, expected {least} or more"
        ));
    }
    let mut pairs = answer.iter().zip(&wanted.content);
    match pairs.position(|(found, (value, mask))| found & mask != value & mask) {
        Some(offset) => Err(format!(
            "the answer has {:#04x} at byte {offset}, expected {:#04x}",
            answer[offset], wanted.content[offset].0
        )),
        None => Ok(()),
    }
}
