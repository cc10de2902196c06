//! The real servers of a file: united by address, with what each has to
//! listen on and how long its checks may take to notice its death.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::bpf::decap::TunnelEnd;
use dataplane::service::{self, ClientAddress, ForwardingMethod};

use super::{Config, PlanError, request_address};
use crate::config::{Check, CheckKind, CheckUrl, HttpGet};

/// Scheduling and measuring take time too: allowed on top of what the checks'
/// parameters add up to.
const SLACK: Duration = Duration::from_secs(1);

/// What an `HTTP_GET` is answered unless its url wants something else.
const STATUS_OK: u16 = 200;

/// One real server, whatever the number of virtual servers that it serves.
#[derive(Clone, Debug, PartialEq)]
pub struct RealServer {
    /// `rs1`, `rs2`, … in the order of the file.
    pub namespace: String,
    pub address: IpAddr,
    /// The addresses of virtual servers with DR or TUN, held on `lo`.
    pub vips: Vec<IpAddr>,
    /// Tunnels that end here.
    pub tunnel_ends: Vec<TunnelEnd>,
    /// NAT: what it answers has to pass the director.
    pub behind_director: bool,
    /// What its responder binds to.
    pub listen: Vec<Listen>,
    /// Paths that a check wants another status for than 200.
    pub statuses: Vec<(String, u16)>,
    /// `None`: some virtual server would keep it for ever, as no check of it
    /// can fail there.
    pub checks: Option<Bounds>,
    /// True if a check has to pass before it is used at all.
    pub starts_down: bool,
}

/// The longest that checks may take to notice a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From its death until it is out everywhere.
    pub out_within: Duration,
    /// From its return until it is in everywhere.
    pub back_within: Duration,
}

/// A transport protocol that clients and responders of the lab speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// That of a virtual server.
    ///
    /// # Errors
    /// Nobody here speaks it.
    pub(super) fn of(virtual_server: &crate::config::VirtualServer) -> Result<Self, PlanError> {
        match virtual_server.protocol() {
            service::Protocol::Tcp => Ok(Self::Tcp),
            service::Protocol::Udp => Ok(Self::Udp),
            service::Protocol::Sctp => Err(PlanError::Sctp(virtual_server.address())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A socket of a responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    pub protocol: Protocol,
    pub address: SocketAddr,
}

/// As the responder's command line has it: `tcp:10.0.0.1:80`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{protocol}:{}", self.address)
    }
}

/// Every real server of the file, once.
pub(super) fn real_servers(config: &Config) -> Result<Vec<RealServer>, PlanError> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (_, real) in pairs(config) {
        if !addresses.contains(&real.address.ip()) {
            addresses.push(real.address.ip());
        }
    }
    let numbered = addresses.into_iter().zip(1..);
    numbered
        .map(|(address, number)| real_server(config, address, number))
        .collect()
}

/// Checks that the lab's network can only fail.
pub(super) fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    for (virtual_server, real) in pairs(config) {
        for check in &real.checks {
            if check.target.ip() != real.address.ip() {
                notes.push(format!(
                    "virtual server {}, real server {}: its check connects to {}, which is \
                     another host: it will fail unless that is a real server of the file too",
                    virtual_server.key, real.address, check.target
                ));
            }
        }
    }
    notes
}

fn pairs(
    config: &Config,
) -> impl Iterator<Item = (&crate::config::VirtualServer, &crate::config::RealServer)> {
    let virtual_servers = config.virtual_servers.iter();
    virtual_servers.flat_map(|server| server.real_servers.iter().map(move |real| (server, real)))
}

/// True if the director translates the addresses of what goes to a real server.
pub(super) fn is_translated(real: &crate::config::RealServer) -> bool {
    real.lb_kind == ForwardingMethod::Nat
}

fn real_server(config: &Config, address: IpAddr, number: usize) -> Result<RealServer, PlanError> {
    let mut vips = BTreeSet::new();
    let mut tunnel_ends = Vec::new();
    let mut behind_director = BTreeSet::new();
    let mut listen = BTreeSet::new();
    let mut statuses: Vec<(String, u16)> = Vec::new();
    let mut bounds: Vec<Option<Bounds>> = Vec::new();
    let mut starts_down = false;
    for (virtual_server, real) in pairs(config).filter(|(_, real)| real.address.ip() == address) {
        let requests = request_address(virtual_server.address());
        let protocol = Protocol::of(virtual_server)?;
        let mut listen_on = |address| listen.insert(Listen { protocol, address });
        if let ForwardingMethod::Tunnel(tunnel) = real.lb_kind {
            let end = TunnelEnd { address, tunnel };
            if !tunnel_ends.contains(&end) {
                tunnel_ends.push(end);
            }
        }
        match real.lb_kind {
            // The destination stays as it is: requests arrive at the virtual
            // server's address and port, checks at the real server's own.
            ForwardingMethod::Direct | ForwardingMethod::Tunnel(_) => {
                vips.insert(requests.ip());
                listen_on(requests);
                listen_on(SocketAddr::new(address, requests.port()));
            }
            ForwardingMethod::Nat | ForwardingMethod::FullNat => {
                let same_port = real.address.port() == 0;
                let port = if same_port { requests } else { real.address }.port();
                listen_on(SocketAddr::new(address, port));
            }
        }
        let told = virtual_server.options.full_nat.client_address;
        if real.lb_kind == ForwardingMethod::FullNat && told == ClientAddress::Proxy {
            return Err(PlanError::ProxyProtocol(real.address));
        }
        behind_director.insert(is_translated(real));
        bounds.push(Bounds::of(&real.checks));
        starts_down |= real.checks.iter().any(|check| check.alpha);
    }
    let checks = pairs(config).flat_map(|(_, real)| &real.checks);
    for check in checks.filter(|check| check.target.ip() == address) {
        listen.insert(Listen {
            protocol: Protocol::Tcp,
            address: check.target,
        });
        statuses.extend(unusual_statuses(check));
    }
    statuses.sort();
    statuses.dedup();
    if behind_director.len() > 1 {
        return Err(PlanError::TwoGateways(address));
    }
    Ok(RealServer {
        namespace: format!("rs{number}"),
        address,
        vips: vips.into_iter().collect(),
        tunnel_ends,
        behind_director: behind_director.contains(&true),
        listen: listen.into_iter().collect(),
        statuses,
        checks: slowest(&bounds),
        starts_down,
    })
}

impl Bounds {
    /// All checks must pass, so the first to notice takes the server out and
    /// the last to notice lets it back in.
    fn of(checks: &[Check]) -> Option<Self> {
        let outs = checks.iter().map(|check| {
            // The check may just have passed; then each try may run into its timeout.
            check.delay_loop
                + check.connect_timeout * (check.retry + 1)
                + check.delay_before_retry * check.retry
        });
        let backs = checks.iter().map(|check| {
            // A try may just have begun and must run into its timeout first.
            check.connect_timeout * 2 + check.delay_loop.max(check.delay_before_retry)
        });
        Some(Self {
            out_within: outs.min()? + SLACK,
            back_within: backs.max()? + SLACK,
        })
    }
}

/// The bounds over several virtual servers; `None` if one of them has none.
fn slowest(bounds: &[Option<Bounds>]) -> Option<Bounds> {
    let all: Option<Vec<Bounds>> = bounds.iter().copied().collect();
    all?.into_iter().reduce(|a, b| Bounds {
        out_within: a.out_within.max(b.out_within),
        back_within: a.back_within.max(b.back_within),
    })
}

/// Urls of `check` that 200 would fail, with a status that passes.
fn unusual_statuses(check: &Check) -> Vec<(String, u16)> {
    let CheckKind::HttpGet(HttpGet { urls, .. }) = &check.kind else {
        return Vec::new();
    };
    let wants_ok = |url: &&CheckUrl| {
        let mut ranges = url.status_code.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&STATUS_OK))
    };
    urls.iter()
        .filter(|url| !wants_ok(url))
        .filter_map(|url| Some((url.path.clone(), url.status_code.first()?.0)))
        .collect()
}
