//! The frames that claim an address and those that ask who has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::service::MacAddress;

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

const ARP_REQUEST: u8 = 1;

/// RFC 4861 §4.3 and §4.4.
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const OPTION_TARGET_LINK_ADDRESS: u8 = 2;
const FLAG_OVERRIDE: u8 = 0x20;
const ICMPV6: u8 = 58;

/// All nodes of the link, `ff02::1`.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Claims `address` for `mac`: makes everyone on the link send it there.
///
/// For IPv4 a gratuitous ARP as keepalived sends it: a broadcast request with
/// the address as sender and target, target MAC all ones. For IPv6 an
/// unsolicited neighbour advertisement to all nodes with the override flag.
pub(super) fn claim(mac: MacAddress, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_request(mac, address, BROADCAST, address),
        IpAddr::V6(address) => {
            let mut body = Vec::with_capacity(28);
            body.extend([FLAG_OVERRIDE, 0, 0, 0]);
            body.extend(address.octets());
            body.extend([OPTION_TARGET_LINK_ADDRESS, 1]);
            body.extend(mac.0);
            icmpv6(mac, address, ALL_NODES, NEIGHBOR_ADVERTISEMENT, &body)
        }
    }
}

/// Asks who has `address` without claiming anything: an ARP probe (RFC 5227
/// §2.1.1) or a solicitation of duplicate address detection (RFC 4862 §5.4.2).
pub(super) fn question(mac: MacAddress, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_request(mac, Ipv4Addr::UNSPECIFIED, [0; 6], address),
        IpAddr::V6(address) => {
            let mut body = vec![0; 4];
            body.extend(address.octets());
            let [.., a, b, c] = address.octets();
            let group = u32::from_be_bytes([0xff, a, b, c]);
            let group =
                Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_0000_0000 | u128::from(group));
            icmpv6(
                mac,
                Ipv6Addr::UNSPECIFIED,
                group,
                NEIGHBOR_SOLICITATION,
                &body,
            )
        }
    }
}

/// Who claims `address` by sending `frame`, or is about to because it asks the
/// same question; `None` for ourselves and for every other frame.
pub(super) fn claimant(frame: &[u8], own: MacAddress, address: IpAddr) -> Option<MacAddress> {
    let source = field(frame, 6)?;
    let ethertype = field::<2>(frame, 12)?;
    let mac = match address {
        IpAddr::V4(address) if ethertype == ETHERTYPE_ARP => {
            let sender_mac = field(frame, 22)?;
            let sender = Ipv4Addr::from(field::<4>(frame, 28)?);
            let target = Ipv4Addr::from(field::<4>(frame, 38)?);
            (sender == address || sender.is_unspecified() && target == address)
                .then_some(sender_mac)?
        }
        IpAddr::V6(address) if ethertype == ETHERTYPE_IPV6 => {
            let [next_header] = field(frame, 20)?;
            let [kind] = field(frame, 54)?;
            let sender = Ipv6Addr::from(field::<16>(frame, 22)?);
            let target = Ipv6Addr::from(field::<16>(frame, 62)?);
            let claims = kind == NEIGHBOR_ADVERTISEMENT
                || kind == NEIGHBOR_SOLICITATION && sender.is_unspecified();
            (next_header == ICMPV6 && claims && target == address).then_some(source)?
        }
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    (mac != own.0).then_some(MacAddress(mac))
}

fn field<const N: usize>(frame: &[u8], offset: usize) -> Option<[u8; N]> {
    frame.get(offset..)?.first_chunk().copied()
}

/// An Ethernet ARP request (RFC 826) of 42 bytes; the kernel or the NIC pads it.
fn arp_request(
    mac: MacAddress,
    sender: Ipv4Addr,
    target_mac: [u8; 6],
    target: Ipv4Addr,
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(BROADCAST);
    frame.extend(mac.0);
    frame.extend(ETHERTYPE_ARP);
    // Ethernet, IPv4, address lengths 6 and 4.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, ARP_REQUEST]);
    frame.extend(mac.0);
    frame.extend(sender.octets());
    frame.extend(target_mac);
    frame.extend(target.octets());
    frame
}

/// An ICMPv6 message to a multicast group. Hop limit 255 proves to the receiver
/// that it comes from this link (RFC 4861 §7.1).
fn icmpv6(
    mac: MacAddress,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    kind: u8,
    body: &[u8],
) -> Vec<u8> {
    // Bodies here are two or three dozen bytes long.
    let length = u16::try_from(4 + body.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let mut message = vec![kind, 0, 0, 0];
    message.extend(body);

    let mut sum = Checksum::default();
    sum.add(&source.octets());
    sum.add(&destination.octets());
    sum.add(&length);
    sum.add(&[0, ICMPV6]);
    sum.add(&message);
    message[2..4].copy_from_slice(&sum.finish());

    let [.., a, b, c, d] = destination.octets();
    let mut frame = Vec::with_capacity(54 + message.len());
    frame.extend([0x33, 0x33, a, b, c, d]);
    frame.extend(mac.0);
    frame.extend(ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length);
    frame.extend([ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(message);
    frame
}

/// The Internet checksum (RFC 1071) of pieces of even length.
#[derive(Default)]
struct Checksum(u32);

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(2) {
            self.0 += u32::from(pair[0]) << 8 | u32::from(pair[1]);
        }
    }

    fn finish(self) -> [u8; 2] {
        let folded = (self.0 & 0xffff) + (self.0 >> 16);
        let [_, _, high, low] = (folded + (folded >> 16)).to_be_bytes();
        [!high, !low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn gratuitous_arp_is_keepaliveds_byte_for_byte() {
        assert_eq!(
            claim(OWN, ip("192.168.1.100")),
            [
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06, // Ethernet
                0, 1, 0x08, 0, 6, 4, 0, 1, // Ethernet, IPv4, request
                2, 0, 0, 0, 0, 1, 192, 168, 1, 100, // sender
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 192, 168, 1, 100, // target
            ]
        );
    }

    #[test]
    fn arp_probe_has_no_sender_address() {
        let frame = question(OWN, ip("192.168.1.100"));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[28..32], [0; 4]);
        assert_eq!(frame[32..38], [0; 6]);
        assert_eq!(frame[38..], [192, 168, 1, 100]);
    }

    /// Summed over a correct message with its pseudo-header the result is zero.
    fn icmpv6_checksum_is_right(frame: &[u8]) -> bool {
        let mut sum = Checksum::default();
        sum.add(&frame[22..54]);
        sum.add(&frame[18..20]);
        sum.add(&[0, ICMPV6]);
        sum.add(&frame[54..]);
        sum.finish() == [0, 0]
    }

    #[test]
    fn neighbour_advertisement_overrides() {
        let frame = claim(OWN, ip("2001:db8::100"));
        assert_eq!(frame.len(), 86);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame[18..22], [0, 32, ICMPV6, 255]);
        assert_eq!(frame[54], NEIGHBOR_ADVERTISEMENT);
        assert_eq!(frame[58], FLAG_OVERRIDE);
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 1]);
        assert!(icmpv6_checksum_is_right(&frame));
    }

    #[test]
    fn solicitation_goes_to_the_solicited_node_group() {
        let frame = question(OWN, ip("2001:db8::12:3456"));
        assert_eq!(frame.len(), 78);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(frame[22..38], [0; 16]);
        let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
        assert_eq!(frame[38..54], group.octets());
        assert!(icmpv6_checksum_is_right(&frame));
    }

    #[test]
    fn claims_of_others_are_conflicts() {
        for (vip, another) in [("10.0.0.9", "10.0.0.8"), ("fd00::9", "fd00::8")] {
            for frame in [claim(OTHER, ip(vip)), question(OTHER, ip(vip))] {
                assert_eq!(claimant(&frame, OWN, ip(vip)), Some(OTHER), "{vip}");
                assert_eq!(claimant(&frame, OTHER, ip(vip)), None, "{vip}: own frame");
                assert_eq!(claimant(&frame, OWN, ip(another)), None);
            }
        }
        // Someone resolving the address does not have it.
        let IpAddr::V4(vip) = ip("10.0.0.9") else {
            unreachable!()
        };
        let resolving = arp_request(OTHER, Ipv4Addr::new(10, 0, 0, 1), [0; 6], vip);
        assert_eq!(claimant(&resolving, OWN, vip.into()), None);
    }

    proptest! {
        #[test]
        fn no_frame_causes_a_panic(frame in prop::collection::vec(any::<u8>(), 0..100)) {
            claimant(&frame, OWN, ip("10.0.0.9"));
            claimant(&frame, OWN, ip("fd00::9"));
        }

        #[test]
        fn icmpv6_checksums_are_right(mac: [u8; 6], address: u128) {
            let address = IpAddr::V6(Ipv6Addr::from_bits(address));
            prop_assert!(icmpv6_checksum_is_right(&claim(MacAddress(mac), address)));
            prop_assert!(icmpv6_checksum_is_right(&question(MacAddress(mac), address)));
        }
    }
}
