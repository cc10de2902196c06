//! TCP and UDP to the virtual server's address by the way that clients' packets take (`through_vip`): by DR
//! in a frame to the real server's MAC address, by TUN wrapped as its packets are.
//!
//! The kernel cannot do it: where the director holds the address, the kernel's own packets to it never
//! leave the host, and those from it are martians. So such a check has a TCP of its own
//! ([`endpoint`]) or makes its datagrams itself ([`datagram`]), sends by a packet socket what the forwarding code made ([`way`]) and
//! hears by another ([`packets`]), before the kernel's IP sees anything.
//!
//! Limits: as packet sockets do, it passes by the host's filters (netfilter); it sends from an
//! address of the interface to the real server unless `bindto` names one, and from the ports of
//! [`packets::PORTS`].

mod datagram;
mod endpoint;
mod packets;
mod stream;
mod way;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::service::ServerId;
use dataplane::snapshot::Published;

pub(super) use self::datagram::Datagrams;
pub(super) use self::packets::Packets;
use self::packets::{Inbox, Transport};
pub(super) use self::stream::Stream;
use self::way::Path;

/// How often a way that is not known is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why there is no way to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoWay {
    #[error("the real server is not in the snapshot yet")]
    Server,
    #[error("the next hop's MAC address is not known")]
    NextHop,
    #[error("the real server is this host itself: check it without through_vip")]
    ThisHost,
    #[error("the interface to the real server has no address of that IP version; set bindto")]
    Source,
}

/// The way to one real server: what the newest snapshot says at each try.
#[derive(Clone, Debug)]
pub struct Way {
    pub published: Published,
    pub server: ServerId,
}

/// A [`Way`] with the means to take it.
#[derive(Clone, Debug)]
pub(super) struct Through {
    way: Way,
    packets: Arc<Packets>,
}

impl Through {
    pub(super) fn new(way: Way, packets: Arc<Packets>) -> Self {
        Self { way, packets }
    }

    /// The way, waited for as the kernel waits for a neighbour: at the start of the director
    /// nothing is known yet.
    pub(super) async fn path(&self, target: IpAddr, patience: Duration) -> Result<Path, NoWay> {
        let deadline = Instant::now() + patience;
        loop {
            match self.way.path(target) {
                Err(NoWay::Server | NoWay::NextHop) if Instant::now() < deadline => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                found => return found,
            }
        }
    }

    /// Begins a connection over `path` to `target`; [`Stream::connected`] says what becomes of it.
    ///
    /// # Errors
    /// The director's own: no port is free, or `bindto` is no address of it.
    pub(super) fn connect(
        &self,
        path: Path,
        bindto: Option<IpAddr>,
        target: SocketAddr,
    ) -> io::Result<Stream> {
        Stream::begin(self.inbox(Transport::Tcp, &path, bindto)?, path, target)
    }

    /// The means to exchange datagrams over `path` with `target`.
    ///
    /// # Errors
    /// The director's own: no port is free, or `bindto` is no address of it.
    pub(super) fn datagrams(
        &self,
        path: Path,
        bindto: Option<IpAddr>,
        target: SocketAddr,
    ) -> io::Result<Datagrams> {
        let inbox = self.inbox(Transport::Udp, &path, bindto)?;
        Ok(Datagrams::new(inbox, path, target))
    }

    fn inbox(
        &self,
        transport: Transport,
        path: &Path,
        bindto: Option<IpAddr>,
    ) -> io::Result<Inbox> {
        Packets::inbox(&self.packets, transport, bindto.unwrap_or(path.source))
    }
}
