//! Ethernet frames by `AF_PACKET`, without `unsafe`.
//!
//! No safe interface builds a `sockaddr_ll`, but getifaddrs(3) hands one out for
//! every interface. Its protocol is zero, which sending does not mind and which
//! bind(2) takes as "the socket's".

use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, bind, sendto};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;

/// Lets ICMPv6 types 135 and 136 through (classic BPF): an interface may carry
/// far more IPv6 than a socket's buffer holds.
const NEIGHBOR_DISCOVERY: [SockFilter; 7] = {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(JUMP_EQUAL, 0, 4, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, 54),
        SockFilter::new(JUMP_EQUAL, 1, 0, 135),
        SockFilter::new(JUMP_EQUAL, 0, 1, 136),
        SockFilter::new(RETURN, 0, 0, 0xffff),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
};

/// An interface as a destination of frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link(LinkAddr);

/// The packet addresses of all interfaces, by index.
pub(super) fn links() -> io::Result<Vec<(u32, Link)>> {
    Ok(getifaddrs()?
        .filter_map(|interface| {
            let address = *interface.address?.as_link_addr()?;
            Some((u32::try_from(address.ifindex()).ok()?, Link(address)))
        })
        .collect())
}

pub(crate) fn link(index: u32) -> io::Result<Link> {
    links()?
        .into_iter()
        .find_map(|(found, link)| (found == index).then_some(link))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such interface"))
}

/// A packet socket.
///
/// Tokio has none, and its `AsyncFd` cannot be made without `unsafe`. Its
/// `UdpSocket` can be made of any file descriptor and uses it for nothing but
/// readiness, recv(2) and close(2), which are the same for all sockets.
#[derive(Debug)]
pub(crate) struct FrameSocket(UdpSocket);

impl FrameSocket {
    /// For sending to any interface; receives nothing.
    pub(crate) fn sender() -> io::Result<Self> {
        Self::register(open(Type::RAW, 0)?)
    }

    /// For the packets of a protocol that arrive on any interface and pass `filter`, which sees
    /// them without their link-layer header, as `receive` does.
    pub(crate) fn tap(ethertype: u16, filter: &[SockFilter]) -> io::Result<Self> {
        let socket = open(Type::DGRAM, ethertype)?;
        socket.attach_filter(filter)?;
        // What came past the filter before it was there.
        while { &socket }.read(&mut [0; 1]).is_ok() {}
        Self::register(socket)
    }

    /// For the ARP or neighbour discovery frames that arrive on one interface.
    pub(super) fn receiver(link: Link, is_ipv4: bool) -> io::Result<Self> {
        let socket = open(Type::RAW, if is_ipv4 { ETH_P_ARP } else { ETH_P_IPV6 })?;
        if !is_ipv4 {
            socket.attach_filter(&NEIGHBOR_DISCOVERY)?;
        }
        bind(socket.as_raw_fd(), &link.0)?;
        // What came from other interfaces, or past the filter, before this line.
        let mut frame = [0; 128];
        while { &socket }.read(&mut frame).is_ok() {}
        Self::register(socket)
    }

    fn register(socket: Socket) -> io::Result<Self> {
        UdpSocket::from_std(socket.into()).map(Self)
    }

    pub(super) async fn send(&self, link: Link, frame: &[u8]) -> io::Result<()> {
        let send = || self.try_send(link, frame);
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// Sends a frame at once, or not at all.
    pub(crate) fn try_send(&self, link: Link, frame: &[u8]) -> io::Result<()> {
        sendto(self.0.as_raw_fd(), frame, &link.0, MsgFlags::empty())?;
        Ok(())
    }

    /// A frame's first bytes, and their number.
    pub(crate) async fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        self.0.recv(frame).await
    }
}

fn open(kind: Type, protocol: u16) -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(protocol.to_be()));
    let kind = kind.nonblocking().cloexec();
    Socket::new_raw(Domain::PACKET, kind, Some(protocol))
}
