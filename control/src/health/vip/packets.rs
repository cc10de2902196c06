//! Packet sockets and ports of the checks that take the way of clients' packets.
//!
//! One socket sends, one for each IP version hears what is for [`PORTS`]: TCP, UDP, and ICMP errors
//! about what was sent from them. The kernel must not answer those packets: of what it does not know
//! it says so by a reset or an ICMP error. So a port in use has a socket with a filter that drops
//! everything.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smoltcp::wire::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Ipv4Packet, Ipv6Packet};
use socket2::{Domain, SockFilter, Socket, Type};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::warn;

use crate::announce::socket::{FrameSocket, Link, link};
use crate::in_words::in_words;

/// Local ports of these checks: above those that Linux chooses by itself (32768 to 60999, unless
/// `net.ipv4.ip_local_port_range` says otherwise). As many tries can run at once.
pub(super) const PORTS: RangeInclusive<u16> = 61000..=65535;

/// Ports that are tried before the check gives up: others may have some.
const ATTEMPTS: usize = 256;

/// Packets that wait for one connection; more are lost, as on any way.
const WAITING: usize = 256;

/// Bytes of a packet: several may have been joined on receiving.
const LONGEST: usize = 1 << 16;

const LOAD_BYTE: u16 = 0x30;
const LOAD_BYTE_INDEXED: u16 = 0x50;
const LOAD_HALF: u16 = 0x28;
const LOAD_HALF_INDEXED: u16 = 0x48;
const LOAD_IP_HEADER_LENGTH: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
const ICMP: u32 = 1;
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMPV6: u32 = 58;
const FIRST_PORT: u32 = *PORTS.start() as u32;
const ALL: u32 = 1 << 16;

/// TCP and UDP to our ports, no later fragments; ICMP errors (type 3) that quote a packet without
/// options from one of them (classic BPF, from the IP header on).
const IPV4: [SockFilter; 16] = [
    SockFilter::new(LOAD_BYTE, 0, 0, 9),
    SockFilter::new(JUMP_EQUAL, 2, 0, TCP),
    SockFilter::new(JUMP_EQUAL, 1, 0, UDP),
    SockFilter::new(JUMP_EQUAL, 5, 10, ICMP),
    SockFilter::new(LOAD_HALF, 0, 0, 6),
    SockFilter::new(JUMP_SET, 8, 0, 0x1fff),
    SockFilter::new(LOAD_IP_HEADER_LENGTH, 0, 0, 0),
    SockFilter::new(LOAD_HALF_INDEXED, 0, 0, 2),
    SockFilter::new(JUMP_GREATER_EQUAL, 6, 5, FIRST_PORT),
    SockFilter::new(LOAD_IP_HEADER_LENGTH, 0, 0, 0),
    SockFilter::new(LOAD_BYTE_INDEXED, 0, 0, 0),
    SockFilter::new(JUMP_EQUAL, 0, 2, 3),
    SockFilter::new(LOAD_HALF_INDEXED, 0, 0, 28),
    SockFilter::new(JUMP_GREATER_EQUAL, 1, 0, FIRST_PORT),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, ALL),
];

/// The same of IPv6 (errors are of type 1), without extension headers.
const IPV6: [SockFilter; 12] = [
    SockFilter::new(LOAD_BYTE, 0, 0, 6),
    SockFilter::new(JUMP_EQUAL, 2, 0, TCP),
    SockFilter::new(JUMP_EQUAL, 1, 0, UDP),
    SockFilter::new(JUMP_EQUAL, 2, 6, ICMPV6),
    SockFilter::new(LOAD_HALF, 0, 0, 42),
    SockFilter::new(JUMP_GREATER_EQUAL, 5, 4, FIRST_PORT),
    SockFilter::new(LOAD_BYTE, 0, 0, 40),
    SockFilter::new(JUMP_EQUAL, 0, 2, 1),
    SockFilter::new(LOAD_HALF, 0, 0, 88),
    SockFilter::new(JUMP_GREATER_EQUAL, 1, 0, FIRST_PORT),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, ALL),
];

const NOTHING: [SockFilter; 1] = [SockFilter::new(RETURN, 0, 0, 0)];

/// Bytes before the quoted packet in an ICMP error, RFC 792 and RFC 4443.
pub(super) const ICMP_HEADER: usize = 8;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// Who has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// An address and port of one transport protocol.
type Place = (Transport, SocketAddr);

/// Who waits for packets to which place.
type Inboxes = Mutex<BTreeMap<Place, mpsc::Sender<Vec<u8>>>>;

/// What all checks share; what it listens with ends with it.
#[derive(Debug)]
pub(in super::super) struct Packets {
    sender: FrameSocket,
    /// Interfaces by the kernel's number, as they were first used.
    links: Mutex<BTreeMap<u32, Link>>,
    inboxes: Arc<Inboxes>,
    receivers: Vec<AbortHandle>,
    next_port: AtomicU16,
}

impl Drop for Packets {
    fn drop(&mut self) {
        for receiver in &self.receivers {
            receiver.abort();
        }
    }
}

impl Packets {
    /// Opens the sockets; within a tokio runtime.
    pub(in super::super) fn open() -> io::Result<Self> {
        let inboxes = Arc::new(Inboxes::default());
        let mut receivers = Vec::new();
        for (protocol, filter) in [(ETH_P_IP, &IPV4[..]), (ETH_P_IPV6, &IPV6[..])] {
            let socket = FrameSocket::tap(protocol, filter)?;
            let inboxes = Arc::clone(&inboxes);
            receivers.push(tokio::spawn(deliver(socket, inboxes)).abort_handle());
        }
        Ok(Self {
            sender: FrameSocket::sender()?,
            links: Mutex::default(),
            inboxes,
            receivers,
            next_port: AtomicU16::new(*PORTS.start()),
        })
    }

    /// A port of `source`, and what comes to it.
    pub(super) fn inbox(
        this: &Arc<Self>,
        transport: Transport,
        source: IpAddr,
    ) -> io::Result<Inbox> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            let local = SocketAddr::new(source, this.port());
            match guard(transport, local) {
                Ok(guard) => {
                    let (sender, packets) = mpsc::channel(WAITING);
                    lock(&this.inboxes).insert((transport, local), sender);
                    return Ok(Inbox {
                        transport,
                        local,
                        packets,
                        shared: Arc::clone(this),
                        _guard: guard,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn port(&self) -> u16 {
        let next = |port: u16| {
            Some(if port == *PORTS.end() {
                *PORTS.start()
            } else {
                port + 1
            })
        };
        let port = self
            .next_port
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        port.unwrap_or(*PORTS.start())
    }

    /// Sends a frame, if that is possible at once; otherwise it is lost, as on any way.
    pub(super) fn send(&self, interface: u32, frame: &[u8]) {
        let mut links = lock(&self.links);
        let known = links.get(&interface).copied();
        let found = known.map_or_else(|| link(interface), Ok);
        let sent = found.and_then(|link| {
            links.insert(interface, link);
            self.sender.try_send(link, frame)
        });
        if let Err(error) = sent {
            links.remove(&interface);
            tracing::debug!("a check's packet was not sent: {}", in_words(&error));
        }
    }
}

/// One connection's, or exchange's, port and packets. Both are given back at its end.
#[derive(Debug)]
pub(super) struct Inbox {
    transport: Transport,
    pub(super) local: SocketAddr,
    pub(super) packets: mpsc::Receiver<Vec<u8>>,
    pub(super) shared: Arc<Packets>,
    _guard: Socket,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        lock(&self.shared.inboxes).remove(&(self.transport, self.local));
    }
}

/// Makes a port ours: nobody else gets it, and the kernel answers nothing that comes to it.
fn guard(transport: Transport, local: SocketAddr) -> io::Result<Socket> {
    let kind = match transport {
        Transport::Tcp => Type::STREAM,
        Transport::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(local), kind, None)?;
    socket.attach_filter(&NOTHING)?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&local.into())?;
    if transport == Transport::Tcp {
        socket.listen(1)?;
    }
    Ok(socket)
}

async fn deliver(socket: FrameSocket, inboxes: Arc<Inboxes>) {
    let mut room = vec![0; LONGEST];
    loop {
        match socket.receive(&mut room).await {
            Ok(length) => {
                let packet = &room[..length];
                if let Some(inbox) =
                    destination(packet).and_then(|to| lock(&inboxes).get(&to).cloned())
                {
                    // Full: lost.
                    let _ = inbox.try_send(packet.to_vec());
                }
            }
            // An interface went down.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
            Err(error) => {
                warn!(
                    "checks with through_vip hear nothing any more: {}",
                    in_words(&error)
                );
                return;
            }
        }
    }
}

/// Whose business a packet is: the place that it is for or, of an ICMP error about a datagram, the
/// place that it came from.
fn destination(packet: &[u8]) -> Option<Place> {
    let ((_, to), protocol, content) = split(packet)?;
    let (transport, ip, port) = match u32::from(protocol) {
        TCP => (Transport::Tcp, to, content.get(2..)?),
        UDP => (Transport::Udp, to, content.get(2..)?),
        ICMP | ICMPV6 => {
            let ((from, _), protocol, content) = split(content.get(ICMP_HEADER..)?)?;
            // TCP repeats what is lost, and gives up in its own time.
            if u32::from(protocol) != UDP {
                return None;
            }
            (Transport::Udp, from, content)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes(*port.first_chunk()?);
    Some((transport, SocketAddr::new(ip, port)))
}

/// Source and destination, protocol and content of an IP packet, the end of which may be missing.
pub(super) fn split(packet: &[u8]) -> Option<((IpAddr, IpAddr), u8, &[u8])> {
    if packet.first()? >> 4 == 4 {
        let header = Ipv4Packet::new_unchecked(packet.get(..IPV4_HEADER_LEN)?);
        let ends = (header.src_addr().into(), header.dst_addr().into());
        let content = packet.get(header.header_len().into()..)?;
        Some((ends, header.next_header().into(), content))
    } else {
        let (header, content) = packet.split_at_checked(IPV6_HEADER_LEN)?;
        let header = Ipv6Packet::new_unchecked(header);
        let ends = (header.src_addr().into(), header.dst_addr().into());
        Some((ends, header.next_header().into(), content))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn destinations_of_packets() {
        let mut v4 = vec![0; 40];
        v4[0] = 0x46; // four bytes of options
        v4[9] = 6;
        v4[16..20].copy_from_slice(&[192, 0, 2, 1]);
        v4[26..28].copy_from_slice(&61001_u16.to_be_bytes());
        let ours: SocketAddr = "192.0.2.1:61001".parse().unwrap();
        assert_eq!(destination(&v4), Some((Transport::Tcp, ours)));
        let mut v6 = vec![0; 60];
        v6[0] = 0x60;
        v6[6] = 17;
        v6[39] = 1;
        v6[42..44].copy_from_slice(&61002_u16.to_be_bytes());
        let ours: SocketAddr = "[::1]:61002".parse().unwrap();
        assert_eq!(destination(&v6), Some((Transport::Udp, ours)));
        for length in 0..28 {
            assert_eq!(destination(&v4[..length]), None);
        }
        assert_eq!(destination(&v6[..43]), None);
    }

    /// A SYN to a port that is guarded is not answered: neither accepted nor refused.
    #[test]
    fn the_kernel_is_silent_on_a_guarded_port() {
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), *PORTS.end());
        let patience = std::time::Duration::from_millis(200);
        if let Ok(_guard) = guard(Transport::Tcp, local) {
            let taken = guard(Transport::Tcp, local).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
            let error = std::net::TcpStream::connect_timeout(&local, patience).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        } // Otherwise somebody has it.
        if let Ok(_guard) = guard(Transport::Udp, local) {
            let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(local).unwrap();
            client.set_read_timeout(Some(patience)).unwrap();
            client.send(b"anybody?").unwrap();
            let error = client.recv(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
