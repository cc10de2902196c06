//! `PING_CHECK`: an ICMP or ICMPv6 echo request is answered (RFC 792, RFC 4443).
//!
//! A raw socket for each try, connected, so that the kernel hands it packets
//! of that host alone. keepalived opens `ping_group_range` for unprivileged
//! ones; raw sockets leave the host's settings alone.

use std::io;

use socket2::{Protocol, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::source::{self, ConnectError};
use super::{Finding, Outcome, random, what};
use crate::config::Check;
use crate::in_words::in_words;

/// Type, code, checksum, identifier, sequence number; 8 random bytes follow,
/// by which the answer is known.
const HEADER: usize = 8;
const MESSAGE: usize = HEADER + 8;

/// Runs a `PING_CHECK` once.
pub async fn check(check: &Check) -> Outcome {
    let socket = match connect(check) {
        Ok(socket) => socket,
        Err(error) => return error.into_outcome(&what(check)),
    };
    let is_v4 = check.target.is_ipv4();
    let request = request(is_v4);
    if let Err(error) = socket.send(&request).await {
        return ConnectError::of(error).into_outcome(&what(check));
    }
    match timeout(check.connect_timeout, answered(&socket, is_v4, &request)).await {
        Ok(Ok(())) => Outcome::Passed(Finding::Answered),
        Ok(Err(error)) => Outcome::Failed(format!("{}: {}", what(check), in_words(&error))),
        Err(_elapsed) => Outcome::Failed(format!(
            "{}: no answer: timed out after {:?}",
            what(check),
            check.connect_timeout
        )),
    }
}

fn connect(check: &Check) -> Result<UdpSocket, ConnectError> {
    let protocol = if check.target.is_ipv4() {
        Protocol::ICMPV4
    } else {
        Protocol::ICMPV6
    };
    let mut unported = check.clone();
    // A port means nothing here, and IPv6 refuses one.
    unported.target.set_port(0);
    unported.source.bind_port = None;
    let socket = source::socket(&unported, Type::RAW, Some(protocol))?;
    socket
        .connect(&unported.target.into())
        .map_err(ConnectError::of)?;
    // tokio has no raw sockets; of a connected one send and recv are the same.
    UdpSocket::from_std(socket.into()).map_err(ConnectError::local("epoll"))
}

/// The type of a request or an answer.
fn kind(is_v4: bool, is_answer: bool) -> u8 {
    match (is_v4, is_answer) {
        (true, false) => 8,
        (true, true) => 0,
        (false, false) => 128,
        (false, true) => 129,
    }
}

fn request(is_v4: bool) -> [u8; MESSAGE] {
    let mut message = [0; MESSAGE];
    message[0] = kind(is_v4, false);
    for chunk in message[4..].chunks_exact_mut(4) {
        chunk.copy_from_slice(&random().to_ne_bytes());
    }
    if is_v4 {
        // Of ICMPv6 the kernel computes it: it covers the source address.
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// RFC 1071.
fn checksum(message: &[u8; MESSAGE]) -> u16 {
    let words = message.chunks_exact(2);
    let sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

/// Waits for the answer to `request`; other packets of the host pass by.
async fn answered(socket: &UdpSocket, is_v4: bool, request: &[u8; MESSAGE]) -> io::Result<()> {
    /// IPv4's header with all options (RFC 791); IPv6's is not handed out.
    const LONGEST_IP_HEADER: usize = 60;
    let mut packet = [0; LONGEST_IP_HEADER + MESSAGE];
    loop {
        let length = socket.recv(&mut packet).await?;
        let ip_header = if is_v4 {
            usize::from(packet[0] & 0xf) * 4
        } else {
            0
        };
        let Some(message) = packet[..length].get(ip_header..) else {
            continue;
        };
        if message.first() == Some(&kind(is_v4, true)) && message.get(4..) == Some(&request[4..]) {
            return Ok(());
        }
    }
}
