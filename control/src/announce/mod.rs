//! Telling the link who has a virtual address, and asking before taking it.
//!
//! [`Announcer`] sends gratuitous ARP and unsolicited neighbour advertisements,
//! so that switches and neighbours send to this director at once. [`probe`] finds
//! another holder of the address: a real server whose ARP suppression was
//! forgotten, or an appliance that believes itself alone.
//!
//! Not done here: deciding when. That is the controller's, later VRRP's.

mod frame;
mod socket;

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use dataplane::service::MacAddress;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use self::socket::FrameSocket;
use crate::in_words::in_words;

/// Questions of one [`probe`]. RFC 5227 asks three times too, but over 4 to 7
/// seconds; a takeover must not take as long.
const QUESTIONS: u32 = 3;

/// Time between the questions of a [`probe`].
const QUESTION_INTERVAL: Duration = Duration::from_millis(250);

/// Time that a [`probe`] takes when nobody answers.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// The link on which an address is announced or asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub mac: MacAddress,
}

/// An address that this host has just taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub interface: Interface,
    pub address: IpAddr,
}

/// How often an address is announced. A frame may be lost and a switch may be
/// slow to learn, hence the repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Frames for each address at first, and again after `delay`
    /// (keepalived's `vrrp_garp_master_repeat`).
    pub repeat: u32,
    /// Time between the two bursts (`vrrp_garp_master_delay`); zero: only one.
    pub delay: Duration,
    /// Time between two frames of any address (`vrrp_garp_interval`), so that
    /// hundreds of addresses do not overrun a switch's ARP policer.
    pub interval: Duration,
}

/// keepalived's 5 and 5 s; its interval is 0, ours lets 1000 frames a second out.
impl Default for Schedule {
    fn default() -> Self {
        Self {
            repeat: 5,
            delay: Duration::from_secs(5),
            interval: Duration::from_millis(1),
        }
    }
}

/// Why an address was not announced or not asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no packet socket: {}{}", in_words(.0), remedy(.0))]
    Socket(io::Error),
    #[error("cannot announce {address} on {interface}: {}", in_words(.error))]
    Announce {
        address: IpAddr,
        interface: String,
        error: io::Error,
    },
    #[error("cannot ask on {interface} who has {address}: {}", in_words(.error))]
    Probe {
        address: IpAddr,
        interface: String,
        error: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        ": run it as root or with CAP_NET_RAW"
    } else {
        ""
    }
}

/// Announces addresses.
#[derive(Debug)]
pub struct Announcer {
    socket: FrameSocket,
}

impl Announcer {
    /// Opens the socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW, or when no socket can be made.
    pub fn open() -> Result<Self, Error> {
        let socket = FrameSocket::sender().map_err(Error::Socket)?;
        Ok(Self { socket })
    }

    /// Announces the addresses as often as the schedule says; returns when all
    /// is sent, several seconds later. Dropping the future stops it, which has to
    /// be done before an address is given up.
    ///
    /// Each round sends one frame for every address before the next round starts:
    /// no address waits for the repetitions of another.
    ///
    /// # Errors
    ///
    /// The first frame that could not be sent; the others are sent nevertheless.
    pub async fn announce(
        &self,
        announcements: &[Announcement],
        schedule: &Schedule,
    ) -> Result<(), Error> {
        let mut result = self.burst(announcements, schedule).await;
        if !schedule.delay.is_zero() {
            sleep(schedule.delay).await;
            let second = self.burst(announcements, schedule).await;
            result = result.and(second);
        }
        result
    }

    async fn burst(
        &self,
        announcements: &[Announcement],
        schedule: &Schedule,
    ) -> Result<(), Error> {
        // Read for each burst: an interface may have been replaced in between.
        let links = socket::links().map_err(Error::Socket)?;
        let mut pace = interval(schedule.interval.max(Duration::from_micros(1)));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut result = Ok(());
        for _ in 0..schedule.repeat {
            for Announcement { interface, address } in announcements {
                if !schedule.interval.is_zero() {
                    pace.tick().await;
                }
                let link = links
                    .iter()
                    .find_map(|(index, link)| (*index == interface.index).then_some(*link));
                let sent = match link {
                    Some(link) => {
                        let frame = frame::claim(interface.mac, *address);
                        self.socket.send(link, &frame).await
                    }
                    None => Err(io::ErrorKind::NotFound.into()),
                };
                if let Err(error) = sent
                    && result.is_ok()
                {
                    result = Err(Error::Announce {
                        address: *address,
                        interface: interface.name.clone(),
                        error,
                    });
                }
            }
        }
        result
    }
}

/// Asks for about a second whether another host on the link has `address`, and
/// returns the MAC of the first that claims it.
///
/// IPv4 by ARP probes (RFC 5227), IPv6 as duplicate address detection does (RFC
/// 4862); the answers to the latter go to all nodes, which an interface without
/// IPv6 may not listen to. This host's own other interfaces on the same link
/// answer like any other host. A director that holds the address but is cut off
/// does not answer.
///
/// # Errors
///
/// When the interface is down or gone, or without CAP_NET_RAW.
pub async fn probe(interface: &Interface, address: IpAddr) -> Result<Option<MacAddress>, Error> {
    let explain = |error| Error::Probe {
        address,
        interface: interface.name.clone(),
        error,
    };
    let link = socket::link(interface.index).map_err(explain)?;
    let socket = FrameSocket::receiver(link, address).map_err(Error::Socket)?;
    let question = frame::question(interface.mac, address);
    let start = Instant::now();
    for number in 1..=QUESTIONS {
        socket.send(link, &question).await.map_err(explain)?;
        let end = if number == QUESTIONS {
            start + PROBE_TIME
        } else {
            start + QUESTION_INTERVAL * number
        };
        let answer = timeout_at(end, claimant(&socket, interface.mac, address));
        if let Ok(answer) = answer.await {
            return answer.map(Some).map_err(explain);
        }
    }
    Ok(None)
}

/// Waits for the first frame by which another host claims `address`.
async fn claimant(
    socket: &FrameSocket,
    own: MacAddress,
    address: IpAddr,
) -> io::Result<MacAddress> {
    // Whole, or a checksum would not verify.
    let mut frame = [0; 1514];
    loop {
        let length = socket.receive(&mut frame).await?;
        if let Some(mac) = frame::claimant(&frame[..length], own, address) {
            return Ok(mac);
        }
    }
}
