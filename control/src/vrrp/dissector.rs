//! What tshark thinks of everything that is sent for VRRP: it shares no author with `packet`, `ah` and
//! the frames of announcements.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use dataplane::service::MacAddress;
use dataplane::wire::checksum::Sum;
use dataplane::wire::{arp, ndisc};

use super::ah;
use super::packet::{Advert, Authentication, GROUP_V4, GROUP_V6, PROTOCOL, TTL, Version};

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// What is wrong with a packet, or worth a remark.
const COMPLAINTS: &str = "_ws.malformed || _ws.expert.severity >= warning || ip.checksum.status == Bad \
    || vrrp.checksum.status == Bad || icmpv6.checksum.status == Bad";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ethernet(destination: [u8; 6], kind: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = destination.to_vec();
    frame.extend(MAC.0);
    frame.extend(kind.to_be_bytes());
    frame.extend(packet);
    frame
}

/// As the kernel does it with the message of a raw socket.
fn multicast(message: &[u8], source: IpAddr) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    match source {
        IpAddr::V4(source) => {
            let [high, low] = (length + 20).to_be_bytes();
            let mut packet = vec![0x45, 0xc0, high, low, 0, 0, 0, 0, TTL, PROTOCOL, 0, 0];
            packet.extend(source.octets());
            packet.extend(GROUP_V4.octets());
            packet.extend(message);
            finished(packet)
        }
        IpAddr::V6(source) => {
            let [high, low] = length.to_be_bytes();
            let mut packet = vec![0x6c, 0, 0, 0, high, low, PROTOCOL, TTL];
            packet.extend(source.octets());
            packet.extend(GROUP_V6.octets());
            packet.extend(message);
            ethernet([0x33, 0x33, 0, 0, 0, 0x12], 0x86dd, &packet)
        }
    }
}

/// An IPv4 packet with the checksum that the kernel fills in.
fn finished(mut packet: Vec<u8>) -> Vec<u8> {
    let checksum = Sum::ZERO.bytes(&packet[..20]).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    ethernet([1, 0, 0x5e, 0, 0, 0x12], 0x0800, &packet)
}

fn advert(version: Version, priority: u8, authentication: Authentication) -> Advert {
    Advert {
        version,
        virtual_router_id: 51,
        priority,
        advert_int: Duration::from_secs(1),
        authentication,
        addresses: Vec::new(),
    }
}

/// Each with the fields that tshark should find: protocols, priority, interval, authentication, addresses.
fn frames() -> Vec<(Vec<u8>, &'static str)> {
    let group = |source: IpAddr| match source {
        IpAddr::V4(_) => IpAddr::from(GROUP_V4),
        IpAddr::V6(_) => IpAddr::from(GROUP_V6),
    };
    let send = |mut advert: Advert, source: &str, addresses: &[&str]| {
        advert.addresses = addresses.iter().map(|text| ip(text)).collect();
        let source = ip(source);
        multicast(&advert.emit(source, group(source)), source)
    };
    let password = Authentication::password("secret");
    let two = ["10.0.0.100", "10.0.0.101"];
    let key = *b"secret\0\0";
    let mut sealed = advert(Version::V2, 100, Authentication::Ah(key));
    sealed.addresses = vec![ip(two[0])];
    let source = [10, 0, 0, 1];
    let message = sealed.emit(source.into(), GROUP_V4.into());
    let sealed = ah::seal(&message, (source.into(), GROUP_V4), TTL, 0x0001_0000, &key);
    let v3 = advert(Version::V3, 254, Authentication::None);
    let tenth = Advert {
        advert_int: Duration::from_millis(100),
        ..v3.clone()
    };
    vec![
        (
            send(advert(Version::V2, 100, password), "10.0.0.1", &two),
            "eth:ethertype:ip:vrrp\t100\t1\t\t1\tsecret\t10.0.0.100,10.0.0.101",
        ),
        (
            send(
                advert(Version::V2, 0, Authentication::None),
                "10.0.0.1",
                &two[..1],
            ),
            "eth:ethertype:ip:vrrp\t0\t1\t\t0\t\t10.0.0.100",
        ),
        (
            finished(sealed),
            "eth:ethertype:ip:ah:vrrp\t100\t1\t\t2\t\t10.0.0.100",
        ),
        (
            send(tenth, "10.0.0.1", &two),
            "eth:ethertype:ip:vrrp\t254\t\t10\t\t\t10.0.0.100,10.0.0.101",
        ),
        (
            send(v3, "fe80::1", &["fe80::51", "fd00::100"]),
            "eth:ethertype:ipv6:vrrp\t254\t\t100\t\t\tfe80::51,fd00::100",
        ),
        (
            arp::announcement(MAC, [10, 0, 0, 100].into()).into(),
            "eth:ethertype:arp",
        ),
        (
            arp::probe(MAC, [10, 0, 0, 100].into()).into(),
            "eth:ethertype:arp",
        ),
        (
            ndisc::announcement(MAC, "fd00::100".parse().unwrap(), true).into(),
            "eth:ethertype:ipv6:icmpv6",
        ),
        (
            ndisc::probe(MAC, "fd00::100".parse().unwrap()).into(),
            "eth:ethertype:ipv6:icmpv6",
        ),
    ]
}

/// A line for each frame that `filter` lets through; `None` without tshark.
fn tshark(frames: &[Vec<u8>], filter: &str, fields: &[&str]) -> Option<Vec<String>> {
    let mut capture = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        capture.extend(word.to_le_bytes());
    }
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        for word in [0, 0, length, length] {
            capture.extend(word.to_le_bytes());
        }
        capture.extend(frame);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("frames.pcap");
    fs::write(&path, capture).unwrap();
    let mut command = Command::new("tshark");
    command
        .args(["-n", "-o", "ip.check_checksum:TRUE", "-r"])
        .arg(path);
    command.args(["-Y", filter, "-T", "fields"]);
    let ran = match command
        .args(fields.iter().flat_map(|field| ["-e", field]))
        .output()
    {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        ran => ran.unwrap(),
    };
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let lines = String::from_utf8(ran.stdout).unwrap();
    Some(
        lines
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect(),
    )
}

#[test]
fn tshark_decodes_all_that_is_sent_without_a_complaint() {
    let (mut sent, expected): (Vec<_>, Vec<_>) = frames().into_iter().unzip();
    let fields = [
        "frame.protocols",
        "vrrp.prio",
        "vrrp.adver_int",
        "vrrp.short_adver_int",
        "vrrp.auth_type",
        "vrrp.auth_string",
        "vrrp.ip_addr",
    ];
    let v6 = "vrrp.ipv6_addr";
    let fields: Vec<_> = fields.into_iter().chain([v6]).collect();
    let Some(decoded) = tshark(&sent, "frame", &fields) else {
        skip::skipped("tshark is not installed");
        return;
    };
    let decoded: Vec<_> = decoded
        .iter()
        .map(|line| line.replace("\t\tfe80", "\tfe80"))
        .collect();
    assert_eq!(decoded, expected);

    // The judge sees damage.
    let right = sent.len();
    for mut damaged in frames().into_iter().map(|(frame, _)| frame).take(5) {
        *damaged.last_mut().unwrap() ^= 1;
        sent.push(damaged);
    }
    let numbers = tshark(&sent, COMPLAINTS, &["frame.number"]).unwrap();
    let wrong: Vec<_> = (right + 1..=right + 5)
        .map(|number| number.to_string())
        .collect();
    assert_eq!(numbers, wrong);
}
