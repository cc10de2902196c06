//! Following the kernel's changes.

use std::io;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::requests::Requests;
use super::view::View;
use crate::event::{Event, NetworkEvent};

/// Bytes of messages that may wait to be read, with what the kernel adds: about
/// 10,000 neighbour changes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Shortest time between two [`NetworkEvent::RoutesChanged`]: a routing daemon
/// that loads a full table must not make the controller look up its next hops
/// a million times.
const ROUTES_INTERVAL: Duration = Duration::from_millis(100);

/// Time before everything is read again after something was missed.
const RESYNC_PAUSE: Duration = Duration::from_millis(100);

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Follows links, addresses, routes and neighbours until dropped.
///
/// First everything that is there is told, ending with
/// [`NetworkEvent::RoutesChanged`], then what changes. When the kernel had to
/// drop messages, everything is read again and the differences are told, ending
/// likewise. A full channel holds the reading up; nothing is lost by it.
#[derive(Debug)]
pub struct Monitor {
    task: JoinHandle<()>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitor {
    /// Subscribes and starts telling [`Event::Network`]s to `events`.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When a netlink socket cannot be made.
    pub fn start(events: mpsc::Sender<Event>) -> io::Result<Self> {
        let follower = Follower {
            socket: subscribe()?,
            requests: Requests::open()?,
            view: View::default(),
            events,
            routes_told: None,
            routes_due: None,
        };
        Ok(Self {
            task: tokio::spawn(follower.run()),
        })
    }
}

fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let groups = GROUPS
        .iter()
        .fold(0, |groups, &group| groups | 1 << (group as u32 - 1));
    let inner = socket.socket_ref();
    // Beyond net.core.rmem_max only with CAP_NET_ADMIN; less is no reason to fail.
    set_socket_recv_buffer_size_force(inner, RECEIVE_BUFFER)
        .or_else(|_denied| set_socket_recv_buffer_size(inner, RECEIVE_BUFFER))?;
    socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}

/// The controller is gone.
struct Closed;

struct Follower {
    socket: TokioSocket,
    requests: Requests,
    view: View,
    events: mpsc::Sender<Event>,
    routes_told: Option<Instant>,
    /// When the next [`NetworkEvent::RoutesChanged`] is to be told, if one is.
    routes_due: Option<Instant>,
}

impl Follower {
    async fn run(mut self) {
        // Subscribed before the dump: a change in between is told twice at
        // worst, never missed.
        let mut result = self.read_everything().await;
        while result.is_ok() {
            let due = self.routes_due.unwrap_or_else(Instant::now);
            result = tokio::select! {
                received = self.socket.recv_from_full() => match received {
                    Ok((datagram, _kernel)) => self.take(&datagram).await,
                    Err(error) => self.start_over(&error).await,
                },
                () = sleep_until(due), if self.routes_due.is_some() => {
                    self.routes_due = None;
                    self.routes_told = Some(Instant::now());
                    self.tell(NetworkEvent::RoutesChanged).await
                }
            };
        }
    }

    /// Reads the kernel's tables until it succeeds, and tells the differences.
    async fn read_everything(&mut self) -> Result<(), Closed> {
        loop {
            match self.requests.dump().await {
                Ok(dump) => {
                    for event in self.view.replace(&dump) {
                        self.tell(event).await?;
                    }
                    self.routes_due = None;
                    self.routes_told = Some(Instant::now());
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!("{error}; trying again");
                    sleep(super::ANSWER_TIMEOUT).await;
                    if let Ok(requests) = Requests::open() {
                        self.requests = requests;
                    }
                }
            }
        }
    }

    async fn start_over(&mut self, error: &io::Error) -> Result<(), Closed> {
        if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) {
            tracing::warn!(
                "network changes came faster than they were read: reading everything again"
            );
        } else {
            tracing::error!("cannot follow network changes: {error}; starting over");
        }
        sleep(RESYNC_PAUSE).await;
        match subscribe() {
            Ok(socket) => self.socket = socket,
            Err(error) => tracing::error!("no new netlink socket: {error}; keeping the old one"),
        }
        self.read_everything().await
    }

    async fn take(&mut self, datagram: &[u8]) -> Result<(), Closed> {
        for message in messages(datagram) {
            for event in self.view.apply(&message) {
                if event == NetworkEvent::RoutesChanged {
                    self.routes_changed();
                } else {
                    self.tell(event).await?;
                }
            }
        }
        Ok(())
    }

    fn routes_changed(&mut self) {
        let now = Instant::now();
        let due = self
            .routes_told
            .map_or(now, |told| now.max(told + ROUTES_INTERVAL));
        self.routes_due = self.routes_due.or(Some(due));
    }

    async fn tell(&self, event: NetworkEvent) -> Result<(), Closed> {
        self.events
            .send(Event::Network(event))
            .await
            .map_err(|_gone| Closed)
    }
}

/// The messages of a datagram; those that cannot be understood are left out,
/// since newer kernels may say more than this program knows.
fn messages(mut datagram: &[u8]) -> Vec<RouteNetlinkMessage> {
    let mut messages = Vec::new();
    while !datagram.is_empty() {
        let Ok(buffer) = NetlinkBuffer::new_checked(datagram) else {
            tracing::warn!("{} bytes of no netlink message left out", datagram.len());
            break;
        };
        let length = usize::try_from(buffer.length()).unwrap_or(datagram.len());
        let (message, _) = datagram.split_at(length.min(datagram.len()));
        // Messages start at multiples of four bytes (NLMSG_ALIGNTO).
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
            Ok(message) => {
                if let NetlinkPayload::InnerMessage(message) = message.payload {
                    messages.push(message);
                }
            }
            Err(error) => tracing::warn!("netlink message left out: {error}"),
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_found_one_after_the_other() {
        let mut link = NetlinkMessage::from(RouteNetlinkMessage::DelLink(Default::default()));
        link.finalize();
        let mut bytes = vec![0; link.buffer_len()];
        link.serialize(&mut bytes);
        let one = bytes.clone();
        bytes.extend(&one);
        assert_eq!(messages(&bytes).len(), 2);
        // The second is cut off.
        assert_eq!(messages(&bytes[..bytes.len() - 1]).len(), 1);
        // The first has a type that nobody knows: only that is left out.
        bytes[4] = 0xff;
        assert_eq!(messages(&bytes).len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            messages(&bytes);
        }

        /// With a plausible header, so that the inner parsers are reached.
        #[test]
        fn no_contents_cause_a_panic(
            kind in 16_u16..32,
            mut bytes in prop::collection::vec(any::<u8>(), 16..200),
        ) {
            let length = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            let mut view = View::default();
            for message in messages(&bytes) {
                view.apply(&message);
            }
        }
    }
}
