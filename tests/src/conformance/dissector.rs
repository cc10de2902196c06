//! What tshark thinks of everything that the cases send: no wrong checksum, no malformed packet.
//!
//! The harness's own judges (`invariants`, `rewriting`) share authors with what they judge; tshark
//! does not. It also puts fragments together again and looks inside IPIP and GRE. It knows no GUE:
//! there it sees a UDP datagram.
//!
//! One capture of all cases and one process, because tshark takes longer to start than to read it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::{Case, Frame, read_capture, write_capture};

/// The cases that send what is wrong because what came in was, and why that is right.
const WRONG_ON_PURPOSE: [(&str, &str); 4] = [
    (
        "bad-transport-checksum",
        "DR does not touch the checksums of TCP and UDP",
    ),
    ("nat-wrong-checksums", "NAT does not hide damage"),
    ("sctp-nat-wrong-checksum", "NAT does not hide damage"),
    ("sctp-bad-header", "chunks are the real server's to judge"),
];

/// An error of ICMP quotes the beginning of a packet, whose TCP or UDP checksum tshark cannot know.
const COMPLAINTS: &str = "_ws.malformed \
    || ip.checksum.status == Bad || icmp.checksum.status == Bad || icmpv6.checksum.status == Bad \
    || (_ws.expert.severity == error && !icmp && !icmpv6)";

const OPTIONS: [&str; 14] = [
    "-o",
    "ip.check_checksum:TRUE",
    "-o",
    "tcp.check_checksum:TRUE",
    "-o",
    "udp.check_checksum:TRUE",
    "-o",
    "sctp.checksum:crc-32c",
    // What is in the payload is not ours.
    "-d",
    "tcp.port==1-65535,data",
    "-d",
    "udp.port==1-65535,data",
    // The cases know nothing of each other's sequence numbers.
    "-o",
    "tcp.analyze_sequence_numbers:FALSE",
];

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dissected {
    /// This many packets are as they should be, or wrong on purpose.
    Right(usize),
    /// This machine has no tshark.
    Skipped,
}

/// Has tshark look at the recorded `out.pcap` of all `cases`.
///
/// # Errors
/// A line for each packet that is wrong and should not be, and for each case that is said to be wrong
/// on purpose and is not.
pub fn dissect(cases: &[Case]) -> anyhow::Result<Dissected> {
    let mut frames = Vec::new();
    let mut origins = Vec::new();
    for case in cases {
        let sent = read_capture(&case.recorded("out.pcap")?)?;
        origins.extend((1..=sent.len()).map(|number| (case.name.as_str(), number)));
        frames.extend(sent);
    }
    let Some(complaints) = complaints(&frames)? else {
        return Ok(Dissected::Skipped);
    };
    let mut unexpected = String::new();
    let mut found = BTreeMap::new();
    for (frame, complaint) in complaints {
        let (case, number) = origins[frame];
        found.insert(case, number);
        if !WRONG_ON_PURPOSE.iter().any(|(name, _)| *name == case) {
            unexpected += &format!("\n{case}/out.pcap: packet {number}: {complaint}");
        }
    }
    for (name, reason) in WRONG_ON_PURPOSE {
        if cases.iter().any(|case| case.name == name) && !found.contains_key(name) {
            unexpected += &format!(
                "\n{name}: said to send wrong packets ({reason}), and does not: \
                 take it out of WRONG_ON_PURPOSE"
            );
        }
    }
    ensure!(unexpected.is_empty(), "tshark found:{unexpected}");
    Ok(Dissected::Right(frames.len()))
}

/// The frames that tshark complains of, by their index, and what it says. `None` without tshark.
fn complaints(frames: &[Frame]) -> anyhow::Result<Option<Vec<(usize, String)>>> {
    let directory = tempfile::tempdir()?;
    let capture = directory.path().join("frames.pcap");
    fs::write(&capture, write_capture(frames)?)?;
    let ran = Command::new("tshark")
        .args(["-n", "-r"])
        .arg(&capture)
        .args(OPTIONS)
        .args(["-Y", COMPLAINTS, "-T", "fields"])
        .args(["-e", "frame.number", "-e", "frame.protocols"])
        .args(["-e", "_ws.expert.message"])
        .output();
    let ran = match ran {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        ran => ran.context("tshark")?,
    };
    if !ran.status.success() {
        bail!(
            "tshark: {}: {}",
            ran.status,
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    let mut found = Vec::new();
    for line in String::from_utf8(ran.stdout)?.lines() {
        let (number, complaint) = line.split_once('\t').context("tshark printed no fields")?;
        let number: usize = number.parse().context("tshark printed no frame number")?;
        ensure!(
            (1..=frames.len()).contains(&number),
            "tshark counted {number} frames"
        );
        found.push((number - 1, complaint.replace('\t', ": ")));
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::script;

    /// An INIT of SCTP (RFC 9260 §3.3.2) with this checksum.
    fn sctp(checksum: &str) -> String {
        let init = "010000140000000100010000000a000a00000001";
        format!("0 10.0.0.7 > 10.0.0.1 proto 132 data 9c41005000000000{checksum}{init}\n")
    }

    #[test]
    fn damage_of_every_kind_is_seen_and_nothing_else() {
        let right = "0 10.0.0.7:4000 > 10.0.0.1:80 tcp S\n\
             0 [fd00::7]:4000 > [fd00::1]:80 udp len 100\n\
             0 10.0.0.7 > 10.0.0.1 icmp echo\n\
             0 fd00::7 > fd00::1 icmp echo\n\
             0 10.0.0.7 > 10.0.0.1 icmp frag-needed mtu 1400 quote 548 \
             about 10.0.0.1:80 > 10.0.0.7:4000 tcp A len 1400\n\
             0 10.0.0.7:4000 > 10.0.0.1:80 udp id 7 len 64 frag 0..40\n\
             0 10.0.0.7:4000 > 10.0.0.1:80 udp id 7 len 64 frag 40..\n"
            .to_owned()
            + &sctp("5bb7cb7e");
        // Of fragments, the last one shows it.
        let damaged = "0 10.0.0.7:4000 > 10.0.0.1:80 udp id 9 len 64 frag 0..40 bad-checksum\n\
             0 10.0.0.7:4000 > 10.0.0.1:80 udp id 9 len 64 frag 40.. bad-checksum\n\
             0 10.0.0.7:4000 > 10.0.0.1:80 tcp S bad-checksum\n\
             0 10.0.0.7:4000 > 10.0.0.1:80 tcp S bad-ip-checksum\n\
             0 [fd00::7]:4000 > [fd00::1]:80 udp len 100 bad-checksum\n\
             0 10.0.0.7 > 10.0.0.1 icmp echo bad-checksum\n\
             0 fd00::7 > fd00::1 icmp echo bad-checksum\n\
             0 10.0.0.7:4000 > 10.0.0.1:80 tcp S truncate 50\n"
            .to_owned()
            + &sctp("00000001");
        let expected = right.lines().count() + 1..right.lines().count() + damaged.lines().count();

        let script = script::parse(&(right + &damaged), Path::new("in.txt")).unwrap();
        let frames = super::super::frames(&script).unwrap();
        let Some(complaints) = complaints(&frames).unwrap() else {
            skip::skipped("tshark is not installed");
            return;
        };
        let found = complaints.iter().map(|(frame, _)| *frame);
        assert!(found.eq(expected.clone()), "{expected:?}: {complaints:#?}");
    }
}
