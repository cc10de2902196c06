//! One UDP exchange: datagrams to a port of the virtual server, and what comes back.
//!
//! An answer has to come in one packet: fragments are not put together.

use std::io;
use std::net::SocketAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpRepr, UDP_HEADER_LEN, UdpPacket, UdpRepr};

use super::packets::{ICMP_HEADER, Inbox, split};
use super::way::Path;

/// As the kernel sends them.
const HOP_LIMIT: u8 = 64;

/// A socket that is connected, as it were, by the way of clients' packets.
#[derive(Debug)]
pub(in super::super) struct Datagrams {
    path: Path,
    inbox: Inbox,
    target: SocketAddr,
}

impl Datagrams {
    pub(super) fn new(inbox: Inbox, path: Path, target: SocketAddr) -> Self {
        Self {
            path,
            inbox,
            target,
        }
    }

    /// # Errors
    /// `payload` does not fit into one packet, or the way is of the other IP version.
    pub(in super::super) fn send(&self, payload: &[u8]) -> io::Result<()> {
        let packet = packet(self.inbox.local, self.target, payload)
            .filter(|packet| packet.len() <= usize::from(self.path.mtu))
            .and_then(|packet| self.path.frame(&packet));
        let Some(frame) = packet else {
            let why = "it does not fit into one packet on the way to the real server";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        };
        self.inbox.shared.send(self.path.interface, &frame);
        Ok(())
    }

    /// Waits for a datagram of the target; what there is no room for is cut off, as recv(2) does.
    ///
    /// # Errors
    /// An ICMP error says that a datagram did not arrive.
    pub(in super::super) async fn receive(&mut self, room: &mut [u8]) -> io::Result<usize> {
        while let Some(packet) = self.inbox.packets.recv().await {
            match read(&packet, self.inbox.local, self.target) {
                Some(Heard::Datagram(payload)) => {
                    let length = payload.len().min(room.len());
                    room[..length].copy_from_slice(&payload[..length]);
                    return Ok(length);
                }
                Some(Heard::Unreachable(kind)) => return Err(kind.into()),
                None => {}
            }
        }
        // Whoever delivers has ended.
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

/// What a packet says of an exchange.
#[derive(Debug, PartialEq, Eq)]
enum Heard<'p> {
    Datagram(&'p [u8]),
    /// `ConnectionRefused`: nobody has the port.
    Unreachable(io::ErrorKind),
}

/// An IP packet with a datagram.
fn packet(local: SocketAddr, target: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    if local.is_ipv4() != target.is_ipv4() || payload.len() > usize::from(u16::MAX) {
        return None;
    }
    let (source, destination) = (local.ip().into(), target.ip().into());
    let length = UDP_HEADER_LEN + payload.len();
    let header = IpRepr::new(source, destination, IpProtocol::Udp, length, HOP_LIMIT);
    let mut packet = vec![0; header.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    header.emit(&mut packet[..], &checksums);
    let ports = UdpRepr {
        src_port: local.port(),
        dst_port: target.port(),
    };
    ports.emit(
        &mut UdpPacket::new_unchecked(&mut packet[header.header_len()..]),
        &source,
        &destination,
        payload.len(),
        |room| room.copy_from_slice(payload),
        &checksums,
    );
    Some(packet)
}

/// `None`: it is not about datagrams from `local` to `target`. Checksums are not compared: a packet
/// socket sees a packet of a host on this machine before its checksum is whole.
fn read(packet: &[u8], local: SocketAddr, target: SocketAddr) -> Option<Heard<'_>> {
    const UDP: u8 = 17;
    const ICMP: u8 = 1;
    const ICMPV6: u8 = 58;
    let (ends, protocol, content) = split(packet)?;
    match protocol {
        UDP if ends == (target.ip(), local.ip()) => {
            let datagram = UdpPacket::new_checked(content).ok()?;
            let ports = (datagram.src_port(), datagram.dst_port());
            let is_ours = ports == (target.port(), local.port());
            is_ours.then(|| Heard::Datagram(datagram.payload()))
        }
        ICMP | ICMPV6 => {
            let (header, quoted) = content.split_first_chunk::<ICMP_HEADER>()?;
            // Quoted is as much as the router liked.
            let (ends, protocol, quoted) = split(quoted)?;
            let [a, b, c, d] = *quoted.first_chunk()?;
            let ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            if protocol != UDP
                || ends != (local.ip(), target.ip())
                || ports != (local.port(), target.port())
            {
                return None;
            }
            // Type and code: destination unreachable, and of those port unreachable.
            match (local.is_ipv4(), header[0], header[1]) {
                (true, 3, 3) | (false, 1, 4) => {
                    Some(Heard::Unreachable(io::ErrorKind::ConnectionRefused))
                }
                (true, 3, _) | (false, 1, _) => {
                    Some(Heard::Unreachable(io::ErrorKind::HostUnreachable))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: [&str; 2] = ["192.0.2.1:61000", "192.0.2.100:53"];
    const V6: [&str; 2] = ["[2001:db8::1]:61000", "[2001:db8::100]:53"];

    fn ends([local, target]: [&str; 2]) -> (SocketAddr, SocketAddr) {
        (local.parse().unwrap(), target.parse().unwrap())
    }

    /// An ICMP error about `quoted`; its checksum is missing.
    fn error(kind: u8, code: u8, local: SocketAddr, quoted: &[u8]) -> Vec<u8> {
        let protocol = if local.is_ipv4() {
            IpProtocol::Icmp
        } else {
            IpProtocol::Icmpv6
        };
        let router = local.ip().into();
        let header = IpRepr::new(router, router, protocol, ICMP_HEADER + quoted.len(), 64);
        let mut packet = vec![0; header.header_len()];
        header.emit(&mut packet[..], &ChecksumCapabilities::default());
        packet.extend([kind, code, 0, 0, 0, 0, 0, 0]);
        packet.extend(quoted);
        packet
    }

    #[test]
    fn a_datagram_is_heard_by_whom_it_is_for() {
        for addresses in [V4, V6] {
            let (local, target) = ends(addresses);
            let sent = packet(local, target, b"are you well?").unwrap();
            assert_eq!(read(&sent, local, target), None, "it is our own");
            assert_eq!(
                read(&sent, target, local),
                Some(Heard::Datagram(b"are you well?"))
            );
            let other: SocketAddr = "192.0.2.100:54".parse().unwrap();
            let from_another = packet(other, ends(V4).0, b"well").unwrap();
            assert_eq!(read(&from_another, local, target), None);
            for length in 0..sent.len() {
                assert_eq!(read(&sent[..length], target, local), None, "{length}");
            }
        }
        assert_eq!(packet(ends(V4).0, ends(V6).1, b""), None);
    }

    #[test]
    fn who_has_no_such_port_refuses() {
        for (addresses, kind, code) in [(V4, 3, 3), (V6, 1, 4)] {
            let (local, target) = ends(addresses);
            let sent = packet(local, target, b"anybody?").unwrap();
            // Routers quote what they like, at least the ports.
            let header = sent.len() - b"anybody?".len();
            for quoted in [&sent[..], &sent[..header]] {
                let refused = error(kind, code, local, quoted);
                assert_eq!(
                    read(&refused, local, target),
                    Some(Heard::Unreachable(io::ErrorKind::ConnectionRefused))
                );
            }
            assert_eq!(
                read(&error(kind, 0, local, &sent), local, target),
                Some(Heard::Unreachable(io::ErrorKind::HostUnreachable))
            );
            assert_eq!(read(&error(11, 0, local, &sent), local, target), None);
            let others = packet(local, local, b"").unwrap();
            assert_eq!(
                read(&error(kind, code, local, &others), local, target),
                None
            );
        }
    }
}
