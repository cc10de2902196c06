//! Looks at the generator's frames behind a director: is each whole, and did each flow stay with
//! one real server?
//!
//! No I/O and no clock. What arrives was made by whoever can send to the interface, so nothing in it is
//! taken for granted.

mod flow;
mod pages;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use dataplane::service::{Address, MacAddress};
use dataplane::wire::Malformed;
use dataplane::wire::checksum::Sum;
use dataplane::wire::parse::{Kind, Parsed, parse};
use dataplane::wire::{ethernet, gre, gue};
use hdrhistogram::Histogram;

use crate::frame::{ETHERNET, MOST_FLOWS, Stamp};
use crate::interface::parse_mac;
use crate::report::{self, Found, Latency};
use crate::spread;
use flow::{Flow, Place};
use pages::{PAGE, Pages};

/// The longest latency that is told apart from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Most flows of all runs together that are followed: 32 bytes each.
const MOST_TRACKED: usize = 2 * MOST_FLOWS as usize;

/// How the director forwards, and so what names the real server in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By the destination's Ethernet address.
    Dr,
    /// By the destination's address and port.
    Nat,
    /// The same.
    FullNat,
    /// By the outer destination address.
    Tun,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "dr" => Ok(Self::Dr),
            "nat" => Ok(Self::Nat),
            "fullnat" => Ok(Self::FullNat),
            "tun" => Ok(Self::Tun),
            _ => Err("write dr, nat, fullnat or tun".to_owned()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dr => "dr",
            Self::Nat => "nat",
            Self::FullNat => "fullnat",
            Self::Tun => "tun",
        })
    }
}

/// A real server, as a frame names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Server {
    Mac([u8; 6]),
    Socket(SocketAddr),
    Host(IpAddr),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(octets) => MacAddress(*octets).fmt(f),
            Self::Socket(address) => address.fmt(f),
            Self::Host(address) => address.fmt(f),
        }
    }
}

/// A real server to expect, and its weight: `02:00:00:00:00:01=2`, `10.0.0.101:8080=1`, `10.0.0.101`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    pub server: Server,
    pub weight: f64,
}

impl FromStr for Expected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = text.rsplit_once('=').unwrap_or((text, "1"));
        let server = parse_mac(name)
            .map(|mac| Server::Mac(mac.0))
            .or_else(|_| name.parse().map(Server::Socket))
            .or_else(|_| name.parse().map(Server::Host));
        let weight = weight
            .parse()
            .ok()
            .filter(|weight| (0.0..=1e9).contains(weight));
        match (server, weight) {
            (Ok(server), Some(weight)) => Ok(Self { server, weight }),
            (_, _) => Err(
                "write SERVER=WEIGHT, the server as its Ethernet address (DR), as address:port (NAT) or \
                 as its address (TUN)"
                    .to_owned(),
            ),
        }
    }
}

impl Expected {
    /// Sees that the server is named as frames name it in that mode.
    ///
    /// # Errors
    /// It never comes in a frame under this name.
    pub fn check(&self, mode: Mode) -> Result<(), WrongName> {
        let (named_so, expected) = match mode {
            Mode::Dr => (matches!(self.server, Server::Mac(_)), "Ethernet address"),
            Mode::Nat | Mode::FullNat => (matches!(self.server, Server::Socket(_)), "address:port"),
            Mode::Tun => (matches!(self.server, Server::Host(_)), "address"),
        };
        let server = self.server;
        match named_so {
            true => Ok(()),
            false => Err(WrongName {
                server,
                mode,
                expected,
            }),
        }
    }
}

/// A real server that is not named as frames name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--server {server}: with --mode {mode} frames name a real server by its {expected}: write that"
)]
pub struct WrongName {
    server: Server,
    mode: Mode,
    expected: &'static str,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.server, self.weight)
    }
}

/// What one server got.
#[derive(Clone, Copy, Debug)]
struct Share {
    server: Server,
    weight: f64,
    flows: u64,
    frames: u64,
}

/// The flows of one run of the generator.
#[derive(Debug)]
struct Run {
    /// Of its first frame.
    first_round: u32,
    /// The furthest from that.
    rounds: u32,
    flows: Pages,
}

impl Run {
    /// It was under way when its first frame came: nothing is known of what went before, nor how far each of
    /// several workers is, which count rounds by themselves.
    fn is_under_way(&self) -> bool {
        self.first_round > 0
    }

    /// Flows below the highest of which nothing came, though there was a whole round in which each had its turn.
    fn silent(&self) -> u64 {
        let whole = if self.is_under_way() { 2 } else { 1 };
        if self.rounds < whole {
            return 0;
        }
        self.flows.silent()
    }
}

/// Everything that was found so far.
#[derive(Debug)]
pub struct Verifier {
    mode: Mode,
    /// The weights were given, so that a server without one should get nothing.
    weighted: bool,
    shares: Vec<Share>,
    numbers: HashMap<Server, u16>,
    runs: HashMap<u8, Run>,
    /// Flows of all runs, in whole pages.
    tracked: usize,
    latency: Histogram<u64>,
    /// A packet out of a tunnel, behind an Ethernet header.
    inner: Vec<u8>,
    found: Found,
}

impl Verifier {
    /// Nothing found yet. Without `expected`, all servers that get something should get as much.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the bounds are constants")]
    pub fn new(mode: Mode, expected: &[Expected]) -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3);
        let mut verifier = Self {
            mode,
            weighted: !expected.is_empty(),
            shares: Vec::new(),
            numbers: HashMap::new(),
            runs: HashMap::new(),
            tracked: 0,
            #[expect(clippy::unwrap_used, reason = "1 to a minute by 3 digits is possible")]
            latency: latency.unwrap(),
            inner: Vec::new(),
            found: Found::default(),
        };
        for expected in expected {
            let number = verifier.number(expected.server);
            verifier.shares[usize::from(number)].weight = expected.weight;
        }
        verifier
    }

    /// Looks at a frame that arrived at `now` nanoseconds.
    pub fn look(&mut self, frame: &[u8], now: u64) {
        self.found.frames += 1;
        let mut inner = std::mem::take(&mut self.inner);
        match self.mode {
            Mode::Tun => match unpack(frame, &mut inner) {
                Ok(Some(outer)) => self.look_inside(&inner, Some(Server::Host(outer)), now),
                Ok(None) => self.found.malformed += 1,
                Err(malformed) => self.complain(malformed),
            },
            Mode::Dr | Mode::Nat | Mode::FullNat => self.look_inside(frame, None, now),
        }
        self.inner = inner;
    }

    fn look_inside(&mut self, frame: &[u8], outer: Option<Server>, now: u64) {
        let parsed = match parse(frame) {
            Ok(parsed) => parsed,
            Err(malformed) => return self.complain(malformed),
        };
        let Some(packet) = Packet::of(frame, &parsed) else {
            self.found.malformed += 1;
            return;
        };
        if !packet.verifies(&parsed) {
            // Its stamp may be what is wrong.
            self.found.bad_l4_checksums += 1;
            return;
        }
        let Some(stamp) = Stamp::read(packet.payload) else {
            self.found.malformed += 1;
            return;
        };
        if let Some(age) = stamp.age(now) {
            self.latency.saturating_record(age.max(1));
        }
        let server = outer.unwrap_or_else(|| match self.mode {
            Mode::Dr => Server::Mac(ethernet::destination(frame).unwrap_or_default().0),
            Mode::Nat | Mode::FullNat | Mode::Tun => {
                let address = IpAddr::from(parsed.destination);
                Server::Socket((address, parsed.destination_port).into())
            }
        });
        self.place(stamp, server);
    }

    /// Where the frame is in its flow, and whether its server is the flow's.
    fn place(&mut self, stamp: Stamp, server: Server) {
        let run = self.runs.entry(stamp.run).or_insert_with(|| Run {
            first_round: stamp.round,
            rounds: 0,
            flows: Pages::default(),
        });
        // Those of a worker that is behind the first one's are none.
        let ahead = stamp.round.wrapping_sub(run.first_round).cast_signed();
        run.rounds = run.rounds.max(u32::try_from(ahead).unwrap_or(0));
        let number = stamp.flow as usize;
        if !run.flows.has_page(number) {
            if self.tracked + PAGE > MOST_TRACKED {
                self.found.unfollowed += 1;
                return;
            }
            self.tracked += PAGE;
        }
        let is_under_way = run.is_under_way();
        let flow = run.flows.flow(number);
        let first = flow.server;
        if first.is_none() && is_under_way {
            *flow = Flow::beginning(stamp.round);
        }
        if let Some(first) = first
            && let Some(share) = self.shares.get_mut(usize::from(first))
            && share.server == server
        {
            share.frames += 1;
        } else {
            let newcomer = number_of(&mut self.shares, &mut self.numbers, server);
            let share = &mut self.shares[usize::from(newcomer)];
            share.frames += 1;
            if first.is_none() {
                flow.server = Some(newcomer);
                share.flows += 1;
            } else {
                self.found.moved_frames += 1;
                self.found.moved_flows += u64::from(!flow.moved);
                flow.moved = true;
            }
        }
        match flow.note(stamp.round) {
            Place::Newest => {}
            Place::Late => self.found.reordered += 1,
            Place::Twice => self.found.duplicates += 1,
        }
    }

    fn complain(&mut self, malformed: Malformed) {
        if malformed == Malformed::BadIpChecksum {
            self.found.bad_ip_checksums += 1;
        } else {
            self.found.malformed += 1;
        }
    }

    fn number(&mut self, server: Server) -> u16 {
        number_of(&mut self.shares, &mut self.numbers, server)
    }

    /// Everything so far.
    #[must_use]
    pub fn found(&self) -> Found {
        let mut found = self.found.clone();
        for run in self.runs.values() {
            found.silent_flows += run.silent();
            for flow in run.flows.known() {
                found.flows += 1;
                found.lost += flow.missing();
            }
        }
        let mut shares = self.shares.clone();
        shares.sort_by_key(|share| share.server);
        let weight = |share: &Share| if self.weighted { share.weight } else { 1.0 };
        let weights: f64 = shares.iter().map(weight).sum();
        found.spread = spread::test(
            &shares
                .iter()
                .map(|share| (share.flows, weight(share)))
                .collect::<Vec<_>>(),
        );
        let part = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let server = |share: &Share| report::Server {
            server: share.server.to_string(),
            flows: share.flows,
            share: part(share.flows as f64, found.flows as f64),
            expected_share: part(weight(share), weights),
            frames: share.frames,
        };
        found.servers = shares.iter().map(server).collect();
        found.latency = (!self.latency.is_empty()).then(|| {
            let quantile = |q| self.latency.value_at_quantile(q) as f64 / 1e3;
            Latency {
                frames: self.latency.len(),
                min: self.latency.min() as f64 / 1e3,
                mean: self.latency.mean() / 1e3,
                p50: quantile(0.5),
                p90: quantile(0.9),
                p99: quantile(0.99),
                p999: quantile(0.999),
                max: self.latency.max() as f64 / 1e3,
            }
        });
        found
    }
}

/// The number of a server, a new one if need be. A server beyond 65535 shares the last one's: no
/// director has so many.
fn number_of(shares: &mut Vec<Share>, numbers: &mut HashMap<Server, u16>, server: Server) -> u16 {
    *numbers.entry(server).or_insert_with(|| {
        let number = u16::try_from(shares.len()).unwrap_or(u16::MAX);
        if shares.len() == usize::from(number) {
            shares.push(Share {
                server,
                weight: 0.0,
                flows: 0,
                frames: 0,
            });
        }
        number
    })
}

/// Transport header and payload of a frame.
#[derive(Clone, Copy, Debug)]
struct Packet<'a> {
    segment: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None` for what the generator does not send: neither UDP nor TCP, or a later fragment.
    fn of(frame: &'a [u8], parsed: &Parsed) -> Option<Self> {
        if !matches!(parsed.kind, Kind::Packet | Kind::FirstFragment) {
            return None;
        }
        let l3 = frame.get(parsed.l3_offset.into()..)?;
        let length = match l3.first()? >> 4 {
            4 => u16::from_be_bytes(*l3.get(2..)?.first_chunk()?).into(),
            _ => 40 + usize::from(u16::from_be_bytes(*l3.get(4..)?.first_chunk()?)),
        };
        let segment = l3.get(usize::from(parsed.l4_offset - parsed.l3_offset)..length)?;
        let header = match parsed.protocol {
            UDP => 8,
            TCP => usize::from(segment.get(12)? >> 4) * 4,
            _ => return None,
        };
        let payload = segment.get(header..)?;
        Some(Self { segment, payload })
    }

    /// True if the checksum is right, or absent, or of a fragment, which alone cannot tell.
    fn verifies(&self, parsed: &Parsed) -> bool {
        let is_absent = parsed.protocol == UDP && self.segment.get(6..8) == Some(&[0, 0]);
        if parsed.kind != Kind::Packet || (is_absent && parsed.source.is_v4()) {
            return true;
        }
        let length = u32::try_from(self.segment.len()).unwrap_or(u32::MAX);
        let (source, destination) = (parsed.source, parsed.destination);
        let sum = Sum::ZERO.pseudo_header(source, destination, parsed.protocol, length);
        sum.bytes(self.segment).fold() == 0xffff
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const IPIP: u8 = 4;
const IPV6_IN_IP: u8 = 41;

/// Writes the packet in a tunnel into `inner`, behind an Ethernet header, and returns the outer
/// destination. `None` if there is no tunnel.
///
/// # Errors
/// The outer headers are wrong.
fn unpack(frame: &[u8], inner: &mut Vec<u8>) -> Result<Option<IpAddr>, Malformed> {
    const IPV4_TYPE: u16 = ethernet::ethertype::IPV4;
    const IPV6_TYPE: u16 = ethernet::ethertype::IPV6;
    let outer = parse(frame)?;
    let Some(behind) = frame.get(outer.l4_offset.into()..) else {
        return Ok(None);
    };
    let of_protocol = |protocol| match protocol {
        IPIP => Some(IPV4_TYPE),
        IPV6_IN_IP => Some(IPV6_TYPE),
        _ => None,
    };
    let unpacked = match outer.protocol {
        gre::PROTOCOL => gre::read(behind).and_then(|(kind, at)| Some((kind, behind.get(at..)?))),
        UDP => behind.get(8..).and_then(|datagram| {
            let kind = of_protocol(gue::read(datagram)?)?;
            Some((kind, datagram.get(gue::HEADER_LEN..)?))
        }),
        protocol => of_protocol(protocol).map(|kind| (kind, behind)),
    };
    let Some((ethertype, packet)) = unpacked else {
        return Ok(None);
    };
    inner.clear();
    inner.resize(ETHERNET - 2, 0);
    inner.extend(ethertype.to_be_bytes());
    inner.extend(packet);
    Ok(Some(Address::into(outer.destination)))
}
