//! One TCP connection, made by us (`smoltcp`): no I/O, time is an argument.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken,
};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::Instant as Moment;
use smoltcp::wire::{HardwareAddress, IpCidr};

/// Bytes that may wait to be read, and to be sent.
const BUFFER: usize = 16 << 10;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Connecting,
    Connected,
    /// Refused, or ended by a reset.
    Closed,
}

/// The client's end of a connection.
pub(super) struct Endpoint {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    wire: Wire,
    begin: Instant,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket: &Socket<'_> = self.sockets.get(self.handle);
        f.debug_struct("Endpoint")
            .field("local", &socket.local_endpoint())
            .field("remote", &socket.remote_endpoint())
            .field("state", &socket.state())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Begins a connection. `mtu` is that of IP packets; `seed` chooses the first sequence number.
    pub(super) fn connect(
        local: SocketAddr,
        remote: SocketAddr,
        mtu: u16,
        seed: u64,
        now: Instant,
    ) -> io::Result<Self> {
        let mut wire = Wire {
            mtu: mtu.into(),
            incoming: VecDeque::new(),
            outgoing: Vec::new(),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, Moment::ZERO);
        let length = if local.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|addresses| {
            // There is room for more than one.
            let _ = addresses.push(IpCidr::new(local.ip().into(), length));
        });
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket
            .connect(interface.context(), remote, local)
            .map_err(io::Error::other)?;
        let mut sockets = SocketSet::new(Vec::new());
        Ok(Self {
            handle: sockets.add(socket),
            interface,
            sockets,
            wire,
            begin: now,
        })
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn moment(&self, now: Instant) -> Moment {
        let micros = now.saturating_duration_since(self.begin).as_micros();
        Moment::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// An IP packet came in.
    pub(super) fn receive(&mut self, packet: Vec<u8>) {
        self.wire.incoming.push_back(packet);
    }

    /// Does what is due, and returns the IP packets to be sent.
    pub(super) fn advance(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let now = self.moment(now);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        std::mem::take(&mut self.wire.outgoing)
    }

    /// How long there is nothing to do unless a packet comes; `None`: for ever.
    pub(super) fn next(&mut self, now: Instant) -> Option<Duration> {
        let now = self.moment(now);
        let delay = self.interface.poll_delay(now, &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }

    pub(super) fn progress(&mut self) -> Progress {
        match self.socket().state() {
            State::Listen | State::SynSent | State::SynReceived => Progress::Connecting,
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => Progress::Connected,
            State::Closed => Progress::Closed,
        }
    }

    /// Bytes that came in, 0 after the last; `None` when more may come.
    pub(super) fn read(&mut self, room: &mut [u8]) -> Option<io::Result<usize>> {
        match self.socket().recv_slice(room) {
            Ok(0) => None,
            Ok(length) => Some(Ok(length)),
            Err(RecvError::Finished) => Some(Ok(0)),
            Err(RecvError::InvalidState) => Some(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Takes bytes to be sent; `None` when there is no room.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        match self.socket().send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => None,
            Ok(length) => Some(Ok(length)),
            Err(_closed) => Some(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Ends the connection by a reset.
    pub(super) fn abort(&mut self) {
        self.socket().abort();
    }
}

/// What is between the endpoint and its packets.
struct Wire {
    mtu: usize,
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Moment) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Moment) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = ChecksumCapabilities::default();
        // A packet socket sees a packet of a host on this machine before its checksum is whole.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, use_it: F) -> R {
        use_it(&self.0)
    }
}

struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let result = fill(&mut packet);
        self.0.push(packet);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "192.0.2.1:61000";
    const VIP: &str = "192.0.2.100:80";
    const STEP: Duration = Duration::from_millis(10);

    fn client(now: Instant) -> Endpoint {
        Endpoint::connect(CLIENT.parse().unwrap(), VIP.parse().unwrap(), 1500, 1, now).unwrap()
    }

    /// The same with a socket that listens.
    fn server(now: Instant) -> Endpoint {
        let mut server =
            Endpoint::connect(VIP.parse().unwrap(), CLIENT.parse().unwrap(), 1500, 2, now).unwrap();
        server.abort();
        server.advance(now);
        server.socket().listen(80).unwrap();
        server
    }

    /// Lets time pass, with all packets delivered, until `done`; fails after 10 s.
    fn run(
        client: &mut Endpoint,
        server: &mut Endpoint,
        now: &mut Instant,
        mut done: impl FnMut(&mut Endpoint, &mut Endpoint) -> bool,
    ) {
        let end = *now + Duration::from_secs(10);
        while !done(client, server) {
            assert!(*now < end, "{client:?} {server:?}");
            for packet in client.advance(*now) {
                server.receive(packet);
            }
            for packet in server.advance(*now) {
                client.receive(packet);
            }
            *now += STEP;
        }
    }

    #[test]
    fn a_conversation_in_which_the_first_packet_is_lost() {
        let mut now = Instant::now();
        let (mut client, mut server) = (client(now), server(now));
        assert_eq!(client.advance(now).len(), 1, "the SYN, which is lost");
        let wait = client.next(now).unwrap();
        assert!(wait <= Duration::from_secs(3), "{wait:?}");
        run(&mut client, &mut server, &mut now, |client, _| {
            client.progress() == Progress::Connected
        });
        assert_eq!(client.write(b"are you well?").unwrap().unwrap(), 13);
        let mut room = [0; 64];
        run(&mut client, &mut server, &mut now, |_, server| {
            server
                .read(&mut room)
                .is_some_and(|read| read.unwrap() == 13)
        });
        assert_eq!(&room[..13], b"are you well?");
        server.write(b"well").unwrap().unwrap();
        server.socket().close();
        run(&mut client, &mut server, &mut now, |client, _| {
            client
                .read(&mut room)
                .is_some_and(|read| read.unwrap() == 4)
        });
        run(&mut client, &mut server, &mut now, |client, _| {
            client
                .read(&mut room)
                .is_some_and(|read| read.unwrap() == 0)
        });
        client.abort();
        let last = client.advance(now);
        assert!(last.iter().any(|packet| is_reset(packet)), "{last:?}");
    }

    /// By the flags of an IPv4 packet without options.
    fn is_reset(packet: &[u8]) -> bool {
        packet[20 + 13] & 0x04 != 0
    }

    #[test]
    fn a_reset_is_a_refusal_or_an_end() {
        let mut now = Instant::now();
        // Nobody listens: a reset answers the SYN.
        let (mut refused, mut nobody) = (client(now), server(now));
        nobody.abort();
        nobody.advance(now);
        run(&mut refused, &mut nobody, &mut now, |client, _| {
            client.progress() == Progress::Closed
        });
        let (mut client, mut server) = (client(now), server(now));
        run(&mut client, &mut server, &mut now, |client, _| {
            client.progress() == Progress::Connected
        });
        server.abort();
        let mut room = [0; 8];
        run(&mut client, &mut server, &mut now, |client, _| {
            client.progress() == Progress::Closed
        });
        let error = client.read(&mut room).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(client.write(b"x").unwrap().is_err());
    }
}
