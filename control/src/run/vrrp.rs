//! The sockets of VRRP: raw ones of protocol 112, or 51 for authentication headers, bound to an interface.
//!
//! One to receive for each interface and IP version, and one to send for each
//! source address. [`Sockets::receive`] waits for the next packet,
//! [`Sockets::drain`] takes what has already come: before the controller acts
//! on a timer, it must have seen every packet, or a pause of this process
//! would look like the silence of another director.

mod scripts;
mod show;
mod slip;
mod tracks;
mod turn;
mod vmac;

pub(super) use scripts::Scripts;
pub(super) use slip::Slip;
pub(super) use turn::until;
pub(super) use vmac::Quieted;

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd as _;
use std::task::{Context, Poll};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::warn;

use crate::in_words::in_words;
use crate::vrrp::ah;
use crate::vrrp::packet::{Datagram, GROUP_V4, GROUP_V6, PROTOCOL};

/// Room for the longest message: 255 IPv6 addresses.
const BUFFER: usize = 8192;
/// Packets of one socket that are taken before a timer is looked at.
const DRAINED: usize = 1024;
/// Internetwork control (RFC 791): the precedence of routing protocols.
const TRAFFIC_CLASS: u32 = 0xc0;

/// Where packets are to be received.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Of the instance's interface.
    pub(super) index: u32,
    /// What is listened on: that interface, or a macvlan above it, and its index.
    pub(super) interface: String,
    pub(super) own_index: u32,
    /// Of a macvlan: the only virtual router whose packets are taken there. A packet to the group may arrive at
    /// the interface below as well, where it is not taken then.
    pub(super) router: Option<u8>,
    pub(super) is_ipv4: bool,
    /// Packets with an authentication header, and no others.
    pub(super) with_header: bool,
}

/// What packets are sent by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sender {
    pub(super) index: u32,
    pub(super) source: IpAddr,
    /// The IP header is given, too, and the packets are of protocol 51.
    pub(super) with_header: bool,
    /// TTL or hop limit.
    pub(super) ttl: u8,
}

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    receivers: BTreeMap<Place, Receiver>,
    senders: BTreeMap<Sender, Socket>,
    /// What could not be opened or sent, said once until it works again.
    complained: BTreeSet<String>,
}

impl Sockets {
    /// Opens and closes receivers, so that there is one for each place.
    pub(super) fn listen(&mut self, places: &BTreeSet<Place>) {
        self.receivers.retain(|place, _| places.contains(place));
        let both = places
            .iter()
            .flat_map(|place| [place.index, place.own_index]);
        let indexes: BTreeSet<u32> = both.collect();
        self.senders
            .retain(|sender, _| indexes.contains(&sender.index));
        for place in places {
            if self.receivers.contains_key(place) {
                continue;
            }
            match Receiver::open(place) {
                Ok(receiver) => {
                    self.receivers.insert(place.clone(), receiver);
                }
                Err(error) => {
                    let interface = &place.interface;
                    self.complain(format!(
                        "cannot receive VRRP on {interface}: {}",
                        in_words(&error)
                    ));
                }
            }
        }
    }

    /// Sends a packet; what fails is said once.
    pub(super) fn send(&mut self, from: Sender, destination: IpAddr, message: &[u8]) {
        let source = from.source;
        let sent = self
            .sender(from)
            .and_then(|socket| socket.send_to(message, &scoped(destination, from.index).into()));
        let what = format!("cannot send VRRP from {source} to {destination}");
        match sent {
            Ok(_) => {
                self.complained.remove(&what);
            }
            Err(error) => {
                // The interface may have been replaced: a new socket next time.
                self.senders.remove(&from);
                if self.complained.insert(what.clone()) {
                    warn!("{what}: {}", in_words(&error));
                }
            }
        }
    }

    fn sender(&mut self, from: Sender) -> io::Result<&Socket> {
        match self.senders.entry(from) {
            std::collections::btree_map::Entry::Occupied(known) => Ok(known.into_mut()),
            std::collections::btree_map::Entry::Vacant(place) => {
                Ok(place.insert(open_sender(from)?))
            }
        }
    }

    fn complain(&mut self, line: String) {
        if self.complained.insert(line.clone()) {
            warn!("{line}");
        }
    }

    /// The next packet and the index of the interface that it came by; never,
    /// when there is no socket.
    pub(super) async fn receive(&self) -> (u32, Datagram) {
        poll_fn(|context| {
            let mut receivers = self.receivers.iter();
            let next = receivers.find_map(|(place, receiver)| {
                loop {
                    match receiver.poll(context) {
                        Poll::Ready(datagram) if self.is_taken_at(place, &datagram) => {
                            return Some((place.index, datagram));
                        }
                        Poll::Ready(_) => {}
                        Poll::Pending => return None,
                    }
                }
            });
            next.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn is_taken_at(&self, place: &Place, datagram: &Datagram) -> bool {
        // RFC 9568 §5.2: the second byte.
        let router = datagram.message.get(1).copied();
        if place.router.is_some() {
            return place.router == router;
        }
        let mut others = self.receivers.keys();
        !others.any(|other| {
            let same = (other.index, other.is_ipv4) == (place.index, place.is_ipv4);
            same && other.router.is_some() && other.router == router
        })
    }

    /// What has already come.
    pub(super) fn drain(&self) -> Vec<(u32, Datagram)> {
        let mut all = Vec::new();
        for (place, receiver) in &self.receivers {
            for _ in 0..DRAINED {
                match receiver.read() {
                    Ok(Some(datagram)) if self.is_taken_at(place, &datagram) => {
                        all.push((place.index, datagram));
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Such as ENETDOWN, which the read has taken away: there may be datagrams behind it.
                    Err(_) => {}
                }
            }
        }
        all
    }
}

/// A socket that receives. Tokio knows no raw sockets, and uses its
/// `UdpSocket` for nothing but readiness and close(2).
#[derive(Debug)]
struct Receiver {
    socket: UdpSocket,
    is_ipv4: bool,
    with_header: bool,
}

impl Receiver {
    fn open(place: &Place) -> io::Result<Self> {
        let Place {
            is_ipv4,
            with_header,
            ..
        } = *place;
        let socket = open(is_ipv4, with_header)?;
        socket.bind_device(Some(place.interface.as_bytes()))?;
        if is_ipv4 {
            let interface = InterfaceIndexOrAddress::Index(place.own_index);
            socket.join_multicast_v4_n(&GROUP_V4, &interface)?;
        } else {
            socket.join_multicast_v6(&GROUP_V6, place.own_index)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self {
            socket,
            is_ipv4,
            with_header,
        })
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Datagram> {
        loop {
            match self.socket.poll_recv_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
            }
            let read = self.socket.try_io(Interest::READABLE, || self.read());
            if let Ok(Some(datagram)) = read {
                return Poll::Ready(datagram);
            }
            // Nothing there after all, or a pending error of the socket such
            // as ENETDOWN, which the failed read has taken away.
        }
    }

    /// `None`: something that is no packet.
    fn read(&self) -> io::Result<Option<Datagram>> {
        let mut buffer = [0; BUFFER];
        if self.is_ipv4 {
            let length = nix::sys::socket::recv(
                self.socket.as_raw_fd(),
                &mut buffer,
                MsgFlags::MSG_DONTWAIT,
            )?;
            return Ok(ipv4_datagram(&buffer[..length], self.with_header));
        }
        let mut room = nix::cmsg_space!([u8; 64]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<SockaddrIn6>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut room),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let source = received.address.map(|address| address.ip());
        let (mut ttl, mut destination) = (None, None);
        for message in received.cmsgs()? {
            if let ControlMessageOwned::Ipv6HopLimit(limit) = message {
                ttl = u8::try_from(limit).ok();
            } else if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
                destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
            }
        }
        let length = received.bytes;
        let known = source.zip(destination).zip(ttl);
        Ok(known.map(|((source, destination), ttl)| Datagram {
            source: source.into(),
            destination: destination.into(),
            ttl,
            message: buffer[..length].to_vec(),
            ah: None,
        }))
    }
}

/// A raw IPv4 socket receives with the header.
fn ipv4_datagram(packet: &[u8], with_header: bool) -> Option<Datagram> {
    let header = packet.first_chunk::<20>()?;
    let (ah, headers) = match with_header {
        true => ah::open(packet).map(|(sealed, headers)| (Some(sealed), headers))?,
        false => (None, usize::from(header[0] & 0x0f) * 4),
    };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let address = |from: usize| {
        let octets = packet.get(from..)?.first_chunk::<4>()?;
        Some(IpAddr::V4(Ipv4Addr::from(*octets)))
    };
    Some(Datagram {
        source: address(12)?,
        destination: address(16)?,
        ttl: header[8],
        message: packet.get(headers.max(20)..length)?.to_vec(),
        ah,
    })
}

fn open(is_ipv4: bool, with_header: bool) -> io::Result<Socket> {
    let domain = if is_ipv4 { Domain::IPV4 } else { Domain::IPV6 };
    let kind = Type::RAW.nonblocking().cloexec();
    let protocol = if with_header { ah::PROTOCOL } else { PROTOCOL };
    Socket::new_raw(domain, kind, Some(Protocol::from(i32::from(protocol))))
}

fn open_sender(from: Sender) -> io::Result<Socket> {
    let Sender {
        index,
        source,
        with_header,
        ttl,
    } = from;
    let socket = open(source.is_ipv4(), with_header)?;
    // It receives as well, and nobody would read it.
    const RETURN: u16 = 0x06;
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    match source {
        IpAddr::V4(_) => {
            socket.set_header_included_v4(with_header)?;
            socket.set_ttl_v4(ttl.into())?;
            socket.set_multicast_ttl_v4(ttl.into())?;
            socket.set_multicast_loop_v4(false)?;
            socket.set_tos_v4(TRAFFIC_CLASS)?;
            let name = nix::net::if_::if_indextoname(index)?;
            socket.bind_device(Some(name.as_bytes()))?;
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(ttl.into())?;
            socket.set_multicast_hops_v6(ttl.into())?;
            socket.set_multicast_loop_v6(false)?;
            socket.set_multicast_if_v6(index)?;
            // A macvlan sends from the address of the interface below it.
            socket.set_freebind_v6(true)?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
    }
    socket.bind(&scoped(source, index).into())?;
    Ok(socket)
}

/// A link-local address means nothing without its interface.
fn scoped(address: IpAddr, index: u32) -> SocketAddr {
    match address {
        IpAddr::V4(address) => SocketAddr::new(address.into(), 0),
        IpAddr::V6(address) => {
            let is_local = address.is_unicast_link_local() || address.is_multicast();
            let scope = if is_local { index } else { 0 };
            SocketAddrV6::new(address, 0, 0, scope).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_ipv4_is_taken_off() {
        let mut packet = vec![
            0x46, 0xc0, 0, 28, 0, 0, 0, 0, 255, 112, 0, 0, 10, 0, 0, 1, 224, 0, 0, 18,
        ];
        packet.extend([0x94, 4, 0, 0, 0x21, 2, 3, 4, 0, 0]);
        let datagram = ipv4_datagram(&packet, false).unwrap();
        assert_eq!(datagram.message, [0x21, 2, 3, 4], "options and padding off");
        assert_eq!(datagram.ttl, 255);
        assert_eq!(datagram.source, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(datagram.destination, IpAddr::V4(GROUP_V4));
        for length in 0..28 {
            assert_eq!(ipv4_datagram(&packet[..length], false), None, "{length}");
        }
        packet[0] = 0x4f;
        assert_eq!(
            ipv4_datagram(&packet, false),
            None,
            "header longer than the packet"
        );
    }
}
