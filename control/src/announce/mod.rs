//! Telling the link who has a virtual address, and asking before taking it.
//!
//! [`Announcer`] sends gratuitous ARP and unsolicited neighbour advertisements,
//! so that switches and neighbours send to this director at once. [`probe`] finds
//! another holder of the address: a real server whose ARP suppression was
//! forgotten, or an appliance that believes itself alone.
//!
//! Not done here: deciding when. That is the controller's, later VRRP's.

mod frame;
pub(crate) mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use dataplane::service::MacAddress;
use tokio::time::{Instant, interval, sleep, sleep_until};

use self::socket::FrameSocket;
use crate::in_words::in_words;

/// Time between two announcements unless the file says otherwise: the last of a thousand addresses
/// waits for a tenth of a second.
pub const INTERVAL: Duration = Duration::from_micros(100);

/// Questions of one [`probe`]. RFC 5227 asks three times too, but over 4 to 7
/// seconds; a takeover must not take as long.
const QUESTIONS: u32 = 3;

/// Time between the questions of a [`probe`].
const QUESTION_INTERVAL: Duration = Duration::from_millis(250);

/// Bursts, a millisecond apart, that the questions about many addresses are asked in.
const BURSTS: usize = 200;

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

impl Announcement {
    /// Where the address is said to be.
    const fn place(&self) -> (u32, MacAddress) {
        (self.interface.index, self.interface.mac)
    }
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

/// keepalived's 5 and 5 s; its interval is 0, ours lets 10,000 frames a second out.
impl Default for Schedule {
    fn default() -> Self {
        Self {
            repeat: 5,
            delay: Duration::from_secs(5),
            interval: INTERVAL,
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
    /// What was announced last of each address that this host has.
    held: Mutex<BTreeMap<IpAddr, (u32, MacAddress)>>,
}

impl Announcer {
    /// Opens the socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW, or when no socket can be made.
    pub fn open() -> Result<Self, Error> {
        let socket = FrameSocket::sender().map_err(Error::Socket)?;
        let held = Mutex::default();
        Ok(Self { socket, held })
    }

    /// Announces the addresses as often as the schedule says; the future ends when all is sent,
    /// several seconds later. Before an address is given up it has to be dropped, or
    /// [`give_up`](Self::give_up) called.
    ///
    /// Each round sends one frame for every address before the next round starts:
    /// no address waits for the repetitions of another.
    ///
    /// # Errors
    ///
    /// The first frame that could not be sent; the others are sent nevertheless.
    pub fn announce(
        self: &Arc<Self>,
        announcements: Vec<Announcement>,
        schedule: Schedule,
    ) -> impl Future<Output = Result<(), Error>> + use<> {
        // At once: they may be given up before the first frame.
        for announcement in &announcements {
            let place = announcement.place();
            self.held().insert(announcement.address, place);
        }
        let announcer = Arc::clone(self);
        async move {
            let mut result = announcer.burst(&announcements, &schedule).await;
            if !schedule.delay.is_zero() {
                sleep(schedule.delay).await;
                let second = announcer.burst(&announcements, &schedule).await;
                result = result.and(second);
            }
            result
        }
    }

    /// The address is not this host's any more: what is still to be sent of it is not sent.
    pub fn give_up(&self, address: IpAddr) {
        self.held().remove(&address);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<IpAddr, (u32, MacAddress)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn burst(
        &self,
        announcements: &[Announcement],
        schedule: &Schedule,
    ) -> Result<(), Error> {
        // Read for each burst: an interface may have been replaced in between.
        let links = socket::links().map_err(Error::Socket)?;
        let routers = routers(announcements);
        let mut pace = Pace::new(schedule.interval);
        let mut result = Ok(());
        for _ in 0..schedule.repeat {
            for announcement in announcements {
                pace.next().await;
                let Announcement { interface, address } = announcement;
                // Given up, or announced elsewhere since.
                if self.held().get(address) != Some(&announcement.place()) {
                    continue;
                }
                let link = links
                    .iter()
                    .find_map(|(index, link)| (*index == interface.index).then_some(*link));
                let sent = match link {
                    Some(link) => {
                        let is_router = routers.contains(&interface.index);
                        let frame = frame::claim(interface.mac, *address, is_router);
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

/// The interfaces that forward IPv6, which advertisements have to say as the kernel's own answers do:
/// neighbours drop a default router that says that it is none.
fn routers(announcements: &[Announcement]) -> BTreeSet<u32> {
    let mut asked = BTreeMap::new();
    for Announcement { interface, address } in announcements {
        if address.is_ipv6() {
            asked.insert(interface.index, &interface.name);
        }
    }
    // Without the file there is no IPv6.
    asked.retain(|_, name| {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/forwarding");
        fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
    });
    asked.into_keys().collect()
}

/// Lets frames out one by one.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    due: Instant,
}

impl Pace {
    fn new(interval: Duration) -> Self {
        let due = Instant::now();
        Self { interval, due }
    }

    /// Returns when the next frame may be sent. Tokio's timers are late by up to a millisecond:
    /// the frames that came due meanwhile go out together. A longer pause is not made up for.
    async fn next(&mut self) {
        const MADE_UP_FOR: Duration = Duration::from_millis(2);
        if self.interval.is_zero() {
            return;
        }
        sleep_until(self.due).await;
        let now = Instant::now();
        let earliest = now.checked_sub(MADE_UP_FOR).unwrap_or(now);
        self.due = self.due.max(earliest) + self.interval;
    }
}

/// Asks for about a second whether other hosts on the link have any of `addresses`, and
/// returns the MAC of the first that claims each; earlier when all are claimed.
///
/// IPv4 by ARP probes (RFC 5227), IPv6 as duplicate address detection does (RFC
/// 4862); the answers to the latter go to all nodes, which an interface without
/// IPv6 may not listen to. This host's own other interfaces on the same link
/// answer like any other host. A director that holds the address but is cut off
/// does not answer.
///
/// However many addresses there are, two sockets do: to open and to close one takes the
/// kernel milliseconds.
///
/// # Errors
///
/// When the interface is down or gone, or without CAP_NET_RAW.
pub async fn probe(
    interface: &Interface,
    addresses: &[IpAddr],
) -> Result<BTreeMap<IpAddr, MacAddress>, Error> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.iter().partition(|address| address.is_ipv4());
    let (mut claimed, others) =
        tokio::try_join!(probe_family(interface, &v4), probe_family(interface, &v6))?;
    claimed.extend(others);
    Ok(claimed)
}

/// Addresses of one IP version.
async fn probe_family(
    interface: &Interface,
    addresses: &[IpAddr],
) -> Result<BTreeMap<IpAddr, MacAddress>, Error> {
    let mut claimed = BTreeMap::new();
    let Some(first) = addresses.first() else {
        return Ok(claimed);
    };
    let explain = |address: IpAddr| {
        move |error| Error::Probe {
            address,
            interface: interface.name.clone(),
            error,
        }
    };
    let link = socket::link(interface.index).map_err(explain(*first))?;
    let socket = FrameSocket::receiver(link, first.is_ipv4()).map_err(Error::Socket)?;
    let start = Instant::now();
    let ask = async {
        for number in 0..QUESTIONS {
            sleep_until(start + QUESTION_INTERVAL * number).await;
            // Spread over the interval: hundreds at once overrun a switch's ARP policer.
            let mut pace = interval(Duration::from_millis(1));
            let at_once = addresses.len().div_ceil(BURSTS);
            for some in addresses.chunks(at_once) {
                pace.tick().await;
                for address in some {
                    let question = frame::question(interface.mac, *address);
                    let sent = socket.send(link, &question).await;
                    sent.map_err(explain(*address))?;
                }
            }
        }
        sleep_until(start + PROBE_TIME).await;
        Ok(())
    };
    let listen = async {
        // Whole, or a checksum would not verify.
        let mut frame = [0; 1514];
        while claimed.len() < addresses.len() {
            let received = socket.receive(&mut frame).await;
            let length = received.map_err(explain(*first))?;
            for address in addresses {
                if let Some(mac) = frame::claimant(&frame[..length], interface.mac, *address) {
                    claimed.entry(*address).or_insert(mac);
                }
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = ask => ended?,
        ended = listen => ended?,
    }
    Ok(claimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long so many frames take.
    async fn frames(pace: &mut Pace, number: u32) -> Duration {
        let begin = Instant::now();
        for _ in 0..number {
            pace.next().await;
        }
        begin.elapsed()
    }

    #[tokio::test]
    async fn frames_closer_than_timers_keep_their_pace() {
        let mut pace = Pace::new(INTERVAL);
        let took = frames(&mut pace, 2000).await;
        let whole = 2000 * INTERVAL;
        assert!(took >= whole * 9 / 10, "{took:?}");
        assert!(took < whole * 5, "{took:?}");
        // After a pause of 50 ms only the last 2 are made up for.
        sleep(Duration::from_millis(50)).await;
        let took = frames(&mut pace, 200).await;
        assert!(took >= Duration::from_millis(17), "{took:?}");
    }

    #[tokio::test]
    async fn without_an_interval_nothing_waits() {
        let mut pace = Pace::new(Duration::ZERO);
        let due = pace.due;
        frames(&mut pace, 3).await;
        assert_eq!(pace.due, due);
    }
}
