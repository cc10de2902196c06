//! The language: what is written comes back, what is wrong is named.

use std::path::Path;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

const NAMES: &str = "client = 10.0.0.7\nvip = 192.168.1.100\nrs1 = 192.168.1.101\n\
                     client6 = 2001:db8::7\nvip6 = 2001:db8:1::100\n";

fn script(lines: &str) -> Script {
    parse(&format!("{NAMES}{lines}"), Path::new("in.txt")).expect("a script")
}

fn frame(line: &str) -> Vec<u8> {
    let script = script(line);
    build(&script.packets[0].packet).expect("a packet")
}

fn error(lines: &str) -> String {
    parse(&format!("{NAMES}{lines}"), Path::new("in.txt"))
        .expect_err("a wrong line")
        .to_string()
}

#[test]
fn lines_come_back_as_they_were_written() {
    for line in [
        "0.000     client:40001 > vip:80  tcp S seq 1 tcp-options 20",
        "0.000     client:40001 > vip:80  tcp PA seq 1 ack 2 win 100 len 10 ttl 1",
        "0.000     client:40001 > vip:80  tcp S mss 1460 sack-permitted wscale 7",
        "0.000     client:40001 > vip:80  tcp S sack-permitted tcp-options 4",
        "12.345678  client:40001 > vip:80  tcp none",
        "0.000     client:40001 > vip:80  tcp CEUSFRPA data 0102",
        "0.000     director => rs1  client:40001 > vip:80  tcp A ttl 63",
        "0.000     02:00:00:00:00:09 => router  client:40001 > vip:80  tcp A",
        "0.000     client:5353 > vip:53  udp len 32 vlan 10,20 pad 100",
        "0.000     client:5353 > vip:53  udp no-checksum tos 4 id 7 df vlan 0/5",
        "0.000     client6:1 > vip6:53  udp ext hop-by-hop ext routing ext destination ext fragment",
        "0.000     [2001:db8::99]:1 > vip6:53  tcp S",
        "0.000     client > vip  icmp echo len 4",
        "0.000     client > vip  icmp 13/0",
        "0.000     10.9.9.9 > vip  icmp frag-needed mtu 1400 quote 28 about vip:80 > client:40001  tcp A seq 7 len 1460",
        "0.000     2001:db8::9 > vip6  icmp too-big mtu 1280 vlan 7 about vip6:53 > client6:9  udp len 1400",
        "0.000     client > vip  proto 132 len 11 options 8",
        "0.000     client:5000 > vip:36412  sctp init tag 1",
        "0.000     client6:5000 > vip6:36412  sctp cookie-echo,data tag 7 len 21 vlan 5",
        "0.000     client:5000 > vip:36412  sctp 64 bad-checksum",
        "0.000     client:40001 > vip:80  tcp S bad-checksum",
        "0.000     client:40001 > vip:80  tcp S vlan 1,2 set frame+12 8100 pad 99",
        "0.000     ethertype 0x0806 len 28",
    ] {
        let script = script(line);
        let bytes = build(&script.packets[0].packet).expect("a packet");
        assert_eq!(render(script.packets[0].time, &bytes, &script.names), line);
    }
}

#[test]
fn others_read_the_same() {
    let bytes = frame("0 client:40001 > vip:80 tcp SE seq 9 vlan 10,20 options 8 ttl 3 len 5");
    let sliced = SlicedPacket::from_ethernet(&bytes).expect("a valid frame");
    let ids: Vec<u16> = sliced.vlan_ids().iter().map(|id| id.value()).collect();
    assert_eq!(ids, [10, 20]);
    let Some(NetSlice::Ipv4(ip)) = sliced.net else {
        panic!("{:?}", sliced.net)
    };
    assert_eq!((ip.header().ttl(), ip.header().options().len()), (3, 8));
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        panic!("{:?}", sliced.transport)
    };
    assert!(tcp.syn() && tcp.ece() && !tcp.ack());
    assert_eq!((tcp.sequence_number(), tcp.payload().len()), (9, 5));
    let checksum = tcp.calc_checksum_ipv4([10, 0, 0, 7], [192, 168, 1, 100]);
    assert_eq!(checksum, Ok(tcp.checksum()));
}

#[test]
fn times_and_repetitions() {
    let script = script(
        "1.5 client:65535 > vip:80 tcp S repeat 3 step-port step-address every 0.25\n\
         +1 client:1 > vip:80 tcp S\n",
    );
    let times: Vec<_> = script
        .packets
        .iter()
        .map(|packet| packet.time.as_millis())
        .collect();
    assert_eq!(times, [1500, 1750, 2000, 3000]);
    let Body::Ip(ip) = &script.packets[2].packet.body else {
        panic!("not IP")
    };
    assert_eq!(ip.source.to_string(), "10.0.0.9");
    assert!(matches!(&ip.transport, Transport::Tcp(tcp) if tcp.source_port == 1));
}

#[test]
fn fragments_are_parts_of_one_datagram() {
    let whole = frame("0 client:1 > vip:53 udp len 100 id 5");
    let first = frame("0 client:1 > vip:53 udp len 100 id 5 frag 0..64");
    let last = frame("0 client:1 > vip:53 udp len 100 id 5 frag 64..");
    assert_eq!([&first[34..], &last[34..]].concat(), whole[34..]);
    assert_eq!(
        (&first[20..22], &last[20..22]),
        (&[0x20, 0][..], &[0, 8][..])
    );
}

#[test]
fn damage() {
    let whole = frame("0 client:1 > vip:80 tcp S");
    let bad = frame("0 client:1 > vip:80 tcp S bad-ip-checksum");
    assert_ne!(bad[24], whole[24]);
    let set = frame("0 client:1 > vip:80 tcp S set ip+0 46");
    assert_eq!(set[14], 0x46);
    assert_eq!(frame("0 client:1 > vip:80 tcp S pad 60").len(), 60);
    assert_eq!(frame("0 client:1 > vip:80 tcp S truncate 30"), whole[..30]);
    assert_ne!(
        frame("0 client:1 > vip:80 tcp S bad-checksum")[50],
        whole[50]
    );
}

#[test]
fn wrong_lines_are_named() {
    for (line, expected) in [
        (
            "x client:1 > vip:80 tcp S",
            "in.txt:6: `x` is no time in seconds",
        ),
        (
            "0 nobody:1 > vip:80 tcp S",
            "in.txt:6: `nobody` is no address and no name",
        ),
        (
            "0 client > vip:80 tcp S",
            "in.txt:6: tcp needs ports on both addresses",
        ),
        (
            "0 client:1 > vip:80 tcp X",
            "in.txt:6: `X` are no TCP flags",
        ),
        (
            "0 client:1 > vip:80 tcp S mtu 3",
            "in.txt:6: found `mtu`, expected one of: seq, ack",
        ),
        (
            "0 client:1 > vip:80 tcp S ttl 256",
            "in.txt:6: found `256`, expected a time to live",
        ),
        (
            "0 client:1 > vip:80",
            "in.txt:6: the line ends where a protocol",
        ),
        (
            "0 client > vip icmp too-big",
            "in.txt:6: `too-big` is no message of this ICMP version",
        ),
        (
            "5 client:1 > vip:80 tcp S\n4 client:1 > vip:80 tcp S",
            "in.txt:7: the time 4 is before",
        ),
        (
            "0 client:1 > vip:53 udp len 9 frag 4..",
            "in.txt:6: `4..` is no fragment",
        ),
        ("client = 10.0.0.8", "in.txt:6: `client` is defined twice"),
    ] {
        let message = error(line);
        assert!(message.starts_with(expected), "{line}: {message}");
    }
}

proptest! {
    /// Whatever the frame, its line describes it exactly.
    #[test]
    fn rendering_is_exact(
        source in any::<[u8; 6]>(),
        protocol in prop_oneof![Just(1_u8), Just(6), Just(17), any::<u8>()],
        payload in prop::collection::vec(any::<u8>(), 0..80),
        v6 in any::<bool>(),
    ) {
        let names = script("").names;
        let [a, b] = if v6 { ["client6", "vip6"] } else { ["client", "vip"] };
        let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        let data = if hex.is_empty() { String::new() } else { format!("data {hex}") };
        let mac = source.map(|byte| format!("{byte:02x}")).join(":");
        let bytes = frame(&format!("0 {mac} => director {a} > {b} proto {protocol} {data}"));
        let line = render(Duration::ZERO, &bytes, &names);
        prop_assert_eq!(frame(&line), bytes, "{}", line);
    }

    /// Bytes that are no packet at all are rendered too.
    #[test]
    fn anything_is_rendered(bytes in prop::collection::vec(any::<u8>(), 1..100)) {
        let line = render(Duration::ZERO, &bytes, &Names::default());
        prop_assert_eq!(frame(&line), bytes, "{}", line);
    }
}
