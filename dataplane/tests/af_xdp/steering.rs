//! Each kind of packet that the steering program tells apart, sent raw.

use std::time::{Duration, Instant};

use dataplane::device::Device;
use dataplane::device::af_xdp::{BindMode, FRAMES_PER_QUEUE, open_worker};
use dataplane::service::Protocol;
use dataplane::xsk::umem::{FrameSize, Umem};
use etherparse::PacketBuilder;

use super::network::{CLIENT_MAC, DIRECTOR_MAC, Network, VIP, queue};
use super::{Worker, service};

/// The packets that the steering program must tell apart, by name, and whether
/// they are the director's.
fn packets() -> Vec<(&'static str, Vec<u8>, bool)> {
    const CLIENT: [u8; 4] = [10, 77, 0, 1];
    const VIP: [u8; 4] = [10, 77, 0, 100];
    const CLIENT6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const VIP6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x64];
    let ethernet = || PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC);
    let udp = |port| ethernet().ipv4(CLIENT, VIP, 64).udp(5000, port);
    let udp6 = |port| ethernet().ipv6(CLIENT6, VIP6, 64).udp(5000, port);
    macro_rules! bytes {
        ($builder:expr) => {{
            let mut packet = Vec::new();
            $builder.write(&mut packet, b"twelve bytes").unwrap();
            packet
        }};
    }
    // Puts `inner` behind the IPv4 header of `outer`, as the data of an ICMP error.
    let icmp = |kind: u8, inner: &[u8]| {
        let builder = ethernet().ipv4(CLIENT, VIP, 64).icmpv4_raw(kind, 0, [0; 4]);
        let mut packet = Vec::new();
        builder.write(&mut packet, inner).unwrap();
        packet
    };
    let icmp6 = |kind: u8, inner: &[u8]| {
        let builder = ethernet()
            .ipv6(CLIENT6, VIP6, 64)
            .icmpv6_raw(kind, 0, [0; 4]);
        let mut packet = Vec::new();
        builder.write(&mut packet, inner).unwrap();
        packet
    };
    let sent_by_vip = bytes!(ethernet().ipv4(VIP, CLIENT, 64).udp(9000, 5000));
    let sent_to_vip = bytes!(udp(9000));
    let sent_by_vip6 = bytes!(ethernet().ipv6(VIP6, CLIENT6, 64).udp(9000, 5000));
    let with = |mut packet: Vec<u8>, at: usize, bytes: &[u8]| {
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    };
    // An extension header of 8 bytes in front of what follows the IPv6 header.
    let extended = |mut packet: Vec<u8>, kind: u8, body: [u8; 7]| {
        let next = std::mem::replace(&mut packet[20], kind);
        let header = [&[next][..], &body[..]].concat();
        packet.splice(54..54, header);
        let length = u16::try_from(packet.len() - 54).unwrap();
        with(packet, 18, &length.to_be_bytes())
    };
    let options = |mut packet: Vec<u8>| {
        packet[14] = 0x46;
        packet.splice(34..34, [1, 1, 1, 0]);
        packet
    };
    let tagged = |mut packet: Vec<u8>, tag: [u8; 4]| {
        packet.splice(12..12, tag);
        packet
    };
    let (q, ad) = ([0x81, 0, 0, 5], [0x88, 0xa8, 0, 6]);
    vec![
        ("udp", bytes!(udp(9000)), true),
        ("udp, another port", bytes!(udp(9001)), false),
        (
            "udp, another address",
            with(bytes!(udp(9000)), 33, &[101]),
            false,
        ),
        (
            "tcp, only udp is a service",
            with(bytes!(udp(9000)), 23, &[6]),
            false,
        ),
        ("to a group", with(bytes!(udp(9000)), 0, &[3]), false),
        ("tagged", tagged(bytes!(udp(9000)), q), true),
        (
            "tagged twice",
            tagged(tagged(bytes!(udp(9000)), q), ad),
            true,
        ),
        (
            "tagged three times",
            tagged(tagged(tagged(bytes!(udp(9000)), q), q), ad),
            false,
        ),
        ("ip options", options(bytes!(udp(9000))), true),
        (
            "header length 4",
            with(bytes!(udp(9000)), 14, &[0x41]),
            false,
        ),
        (
            "first fragment",
            with(bytes!(udp(9000)), 20, &[0x20, 0]),
            true,
        ),
        (
            "later fragment",
            with(bytes!(udp(9000)), 20, &[0x20, 3]),
            false,
        ),
        ("echo request", icmp(8, &sent_by_vip[14..]), false),
        ("unreachable", icmp(3, &sent_by_vip[14..]), true),
        (
            "unreachable, eight bytes of it",
            icmp(3, &sent_by_vip[14..42]),
            true,
        ),
        (
            "unreachable, three bytes of it",
            icmp(3, &sent_by_vip[14..37]),
            false,
        ),
        (
            "time exceeded, tagged",
            tagged(icmp(11, &sent_by_vip[14..]), q),
            true,
        ),
        (
            "parameter problem",
            icmp(12, &options(sent_by_vip.clone())[14..]),
            true,
        ),
        (
            "unreachable, sent to the VIP",
            icmp(3, &sent_to_vip[14..]),
            false,
        ),
        ("udp6", bytes!(udp6(9000)), true),
        ("udp6, another port", bytes!(udp6(9001)), false),
        (
            "udp6, hop by hop",
            extended(bytes!(udp6(9000)), 0, [0, 1, 4, 0, 0, 0, 0]),
            true,
        ),
        (
            "udp6, first fragment",
            extended(bytes!(udp6(9000)), 44, [0, 0, 1, 0, 0, 0, 7]),
            true,
        ),
        (
            "udp6, later fragment",
            extended(bytes!(udp6(9000)), 44, [0, 0, 9, 0, 0, 0, 7]),
            false,
        ),
        (
            "udp6, options and fragment",
            extended(
                extended(bytes!(udp6(9000)), 44, [0, 0, 0, 0, 0, 0, 7]),
                60,
                [0, 1, 4, 0, 0, 0, 0],
            ),
            true,
        ),
        ("packet too big", icmp6(2, &sent_by_vip6[14..]), true),
        (
            "neighbor solicitation",
            icmp6(135, &sent_by_vip6[14..]),
            false,
        ),
        ("too short for ip", bytes!(udp(9000))[..20].to_vec(), false),
    ]
}

#[test]
fn the_program_tells_packets_apart() {
    let Some(network) = Network::build("steer") else {
        return;
    };
    let mut worker = Worker::start(&network, BindMode::Auto);
    for address in [VIP, "fd00::64"] {
        let key = service(address, Protocol::Udp);
        worker.steering.add_service(&key).unwrap();
    }
    let (umem, mut pool) = Umem::new(FRAMES_PER_QUEUE, FrameSize::Bytes2048).unwrap();
    let mut client = network.within("client", || {
        open_worker(&umem, &mut pool, &[queue("c0", 0)], BindMode::Auto).unwrap()
    });
    let mut arrived = Vec::new();
    for (name, packet, ours) in packets() {
        let before = worker.counters();
        let mut frame = pool.take().unwrap();
        umem.fill(&mut frame, &packet).unwrap();
        client[0].transmit(frame).unwrap();
        while client[0].has_outstanding() {
            client[0].flush(&mut pool);
        }
        let deadline = Instant::now() + Duration::from_millis(if ours { 2000 } else { 20 });
        while arrived.is_empty() && Instant::now() < deadline {
            worker.devices[0].receive(&mut arrived);
            worker.devices[1].receive(&mut arrived);
        }
        assert_eq!(arrived.len(), usize::from(ours), "{name}");
        for frame in arrived.drain(..) {
            assert_eq!(worker.umem.bytes(&frame), packet, "{name}");
            worker.pool.give(frame);
        }
        let steered = worker.counters().steered - before.steered;
        assert_eq!(steered, u64::from(ours), "{name}");
    }
}
