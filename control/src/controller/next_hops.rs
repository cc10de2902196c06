//! Where frames for real servers go: routes and neighbours as the kernel sees
//! them, folded into next hops.
//!
//! The kernel's tables are the truth; this is a cache that asks for what is
//! missing. An unresolved neighbour is asked for once a second, a resolved one
//! is verified every five, so that a silent change of a real server's MAC is noticed although
//! the kernel itself sends it nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dataplane::service::{MacAddress, NextHop, PortIndex};

use crate::event::{Action, Route};

/// Time between two tries to resolve a neighbour.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two verifications of a resolved neighbour.
const VERIFY_INTERVAL: Duration = Duration::from_secs(5);

/// An interface that workers have a socket on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// What workers call it.
    pub number: PortIndex,
    /// The kernel's interface index.
    pub index: u32,
    pub name: String,
    pub mac: [u8; 6],
    pub up: bool,
    /// The kernel told that it went. What has its index now, if anything, is another interface: the sockets are dead.
    pub gone: bool,
}

/// What stands between a real server and a known next hop, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    Resolved,
    /// The kernel was not asked yet, or has not answered.
    Unknown,
    NoRoute,
    /// The route leads over an interface that the appliance does not use.
    OtherInterface,
    /// The real server is this host itself, and there is no way back to the kernel.
    ThisHost,
    Unresolved,
}

impl Resolution {
    /// One word for `show neighbors`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Unknown => "unknown",
            Self::NoRoute => "no route",
            Self::OtherInterface => "not on a used interface",
            Self::ThisHost => "this host, without a way back to its kernel",
            Self::Unresolved => "unresolved",
        }
    }
}

#[derive(Debug, Default)]
struct Destination {
    /// `None` until the kernel answered; then its answer.
    route: Option<Option<Route>>,
    /// It is an address of this host.
    is_local: bool,
    asked: Option<Instant>,
}

impl Destination {
    /// The neighbour through which `address`, which this is, is reached, if there is a route.
    fn neighbor(&self, address: IpAddr) -> Option<(u32, IpAddr)> {
        let route = self.route.as_ref()?.as_ref()?;
        Some((route.index, route.gateway.unwrap_or(address)))
    }
}

/// Next hops of all real servers.
#[derive(Debug)]
pub struct NextHops {
    ports: Vec<Port>,
    /// By which workers reach this host's kernel.
    way_back: Option<Port>,
    neighbors: HashMap<(u32, IpAddr), [u8; 6]>,
    destinations: BTreeMap<IpAddr, Destination>,
    /// How many destinations are reached through a neighbour: looked up for each change of any.
    reached_through: HashMap<(u32, IpAddr), usize>,
}

impl NextHops {
    pub(super) fn new(ports: Vec<Port>) -> Self {
        Self {
            ports,
            way_back: None,
            neighbors: HashMap::new(),
            destinations: BTreeMap::new(),
            reached_through: HashMap::new(),
        }
    }

    /// From now on these interfaces are used.
    pub(super) fn use_ports(&mut self, ports: Vec<Port>) {
        self.ports = ports;
    }

    /// Real servers that are this host itself are reached by this interface.
    pub(super) fn use_way_back(&mut self, port: Port) {
        self.way_back = Some(port);
    }

    /// True if that was the way back, which is gone.
    pub(super) fn lose_way_back(&mut self, index: u32) -> bool {
        self.way_back.take_if(|port| port.index == index).is_some()
    }

    /// True if workers reach this host's kernel.
    #[must_use]
    pub fn has_way_back(&self) -> bool {
        self.way_back.is_some()
    }

    /// Follows exactly these addresses; asks for the routes of new ones.
    pub(super) fn follow(
        &mut self,
        addresses: impl Iterator<Item = IpAddr>,
        actions: &mut Vec<Action>,
    ) {
        let addresses: BTreeSet<IpAddr> = addresses.collect();
        self.destinations
            .retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.destinations.entry(address).or_insert_with(|| {
                actions.push(Action::LookUpRoute {
                    destination: address,
                });
                Destination::default()
            });
        }
        self.reached_through.clear();
        for (address, destination) in &self.destinations {
            if let Some(neighbor) = destination.neighbor(*address) {
                *self.reached_through.entry(neighbor).or_default() += 1;
            }
        }
    }

    /// True if a destination is reached through this neighbour.
    pub(super) fn is_next_hop(&self, index: u32, address: IpAddr) -> bool {
        self.reached_through.contains_key(&(index, address))
    }

    /// Some route or address changed: every lookup is repeated. Until the
    /// answer comes the old one is used.
    pub(super) fn routes_changed(&self, actions: &mut Vec<Action>) {
        actions.extend(
            self.destinations
                .keys()
                .map(|&destination| Action::LookUpRoute { destination }),
        );
    }

    /// The kernel's answer to a lookup.
    pub(super) fn route(
        &mut self,
        destination: IpAddr,
        route: Option<Route>,
        is_local: bool,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(entry) = self.destinations.get_mut(&destination) else {
            return;
        };
        let before = entry.neighbor(destination);
        entry.route = Some(route);
        entry.is_local = is_local;
        entry.asked = None;
        let after = entry.neighbor(destination);
        if before != after {
            if let Some(before) = before
                && let Some(count) = self.reached_through.get_mut(&before)
            {
                *count -= 1;
                if *count == 0 {
                    self.reached_through.remove(&before);
                }
            }
            if let Some(after) = after {
                *self.reached_through.entry(after).or_default() += 1;
            }
        }
        ask(
            &self.ports,
            &self.neighbors,
            destination,
            entry,
            now,
            actions,
        );
    }

    /// A neighbour was found (`mac`) or lost. Returns the MAC address that
    /// was known before.
    pub(super) fn neighbor(
        &mut self,
        index: u32,
        address: IpAddr,
        mac: Option<[u8; 6]>,
    ) -> Option<[u8; 6]> {
        match mac {
            Some(mac) => self.neighbors.insert((index, address), mac),
            None => self.neighbors.remove(&(index, address)),
        }
    }

    /// The MAC address of one of our own interfaces changed.
    pub(super) fn own_mac(&mut self, index: u32, mac: [u8; 6]) {
        for port in self.ports.iter_mut().filter(|port| port.index == index) {
            port.mac = mac;
        }
    }

    /// Asks for what is missing and verifies what is old.
    pub(super) fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let before = actions.len();
        for (&address, destination) in &mut self.destinations {
            ask(
                &self.ports,
                &self.neighbors,
                address,
                destination,
                now,
                actions,
            );
        }
        // Thousands of real servers may be behind one gateway.
        let mut asked = HashSet::new();
        let asks = actions.split_off(before).into_iter();
        actions.extend(asks.filter(|action| {
            let Action::ProbeNeighbor { index, address, .. } = action else {
                return true;
            };
            asked.insert((*index, *address))
        }));
    }

    /// The next hop of a real server, and if there is none, why.
    pub fn next_hop(&self, address: IpAddr) -> Result<NextHop, Resolution> {
        if self.is_local(address) {
            let way_back = self.way_back.as_ref().ok_or(Resolution::ThisHost)?;
            let mac = MacAddress(way_back.mac);
            return Ok(NextHop {
                port: way_back.number,
                destination: mac,
                source: mac,
            });
        }
        let route = self.route_to(address)?;
        let interface = self.port_of(route).ok_or(Resolution::OtherInterface)?;
        let neighbor = route.gateway.unwrap_or(address);
        let mac = self
            .neighbors
            .get(&(route.index, neighbor))
            .ok_or(Resolution::Unresolved)?;
        Ok(NextHop {
            port: interface.number,
            destination: MacAddress(*mac),
            source: MacAddress(interface.mac),
        })
    }

    /// True if a real server is this host itself.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        (self.destinations.get(&address)).is_some_and(|destination| destination.is_local)
    }

    /// Gateway of the route to a real server, if it is not on the link.
    #[must_use]
    pub fn gateway(&self, address: IpAddr) -> Option<IpAddr> {
        self.route_to(address).ok()?.gateway
    }

    /// The interface of the route to a real server, if the appliance uses it,
    /// whether or not the next hop is resolved.
    #[must_use]
    pub fn interface(&self, address: IpAddr) -> Option<&Port> {
        if self.is_local(address) {
            return self.way_back.as_ref();
        }
        self.port_of(self.route_to(address).ok()?)
    }

    fn route_to(&self, address: IpAddr) -> Result<&Route, Resolution> {
        let destination = self.destinations.get(&address).ok_or(Resolution::Unknown)?;
        let route = destination.route.as_ref().ok_or(Resolution::Unknown)?;
        route.as_ref().ok_or(Resolution::NoRoute)
    }

    fn port_of(&self, route: &Route) -> Option<&Port> {
        self.ports.iter().find(|port| port.index == route.index)
    }

    /// Every address that is followed.
    pub fn destinations(&self) -> impl Iterator<Item = IpAddr> {
        self.destinations.keys().copied()
    }
}

/// Asks for the neighbour of one destination, if it is time to.
fn ask(
    ports: &[Port],
    neighbors: &HashMap<(u32, IpAddr), [u8; 6]>,
    address: IpAddr,
    destination: &mut Destination,
    now: Instant,
    actions: &mut Vec<Action>,
) {
    let Some((index, neighbor)) = destination.neighbor(address) else {
        return;
    };
    if !ports.iter().any(|port| port.index == index) {
        return;
    }
    let resolved = neighbors.contains_key(&(index, neighbor));
    let interval = if resolved {
        VERIFY_INTERVAL
    } else {
        RESOLVE_INTERVAL
    };
    if destination
        .asked
        .is_none_or(|asked| now.saturating_duration_since(asked) >= interval)
    {
        destination.asked = Some(now);
        actions.push(Action::ProbeNeighbor {
            index,
            address: neighbor,
            resolved,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_itself_is_reached_by_the_way_back() {
        let mut next_hops = NextHops::new(Vec::new());
        let server: IpAddr = "10.9.0.2".parse().unwrap();
        let mut actions = Vec::new();
        next_hops.follow([server].into_iter(), &mut actions);
        next_hops.route(server, None, true, Instant::now(), &mut actions);
        assert_eq!(next_hops.next_hop(server), Err(Resolution::ThisHost));
        let way_back = Port {
            number: PortIndex(255),
            index: 0,
            name: "appliance0".to_owned(),
            mac: [2, 0, 0, 0, 0, 9],
            up: true,
            gone: false,
        };
        next_hops.use_way_back(way_back.clone());
        let hop = next_hops.next_hop(server).unwrap();
        assert_eq!(
            (hop.port, hop.destination.0),
            (way_back.number, way_back.mac)
        );
        assert_eq!(next_hops.interface(server), Some(&way_back));
        assert!(!next_hops.lose_way_back(7));
        assert!(next_hops.lose_way_back(way_back.index));
        assert_eq!(next_hops.next_hop(server), Err(Resolution::ThisHost));
        // The address moved elsewhere.
        next_hops.route(server, None, false, Instant::now(), &mut actions);
        assert_eq!(next_hops.next_hop(server), Err(Resolution::NoRoute));
    }

    #[test]
    fn the_interface_is_known_before_the_neighbour_is() {
        let port = |index, name: &str| Port {
            number: PortIndex(u16::try_from(index).unwrap()),
            index,
            name: name.to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            up: true,
            gone: false,
        };
        let mut next_hops = NextHops::new(vec![port(7, "eth0"), port(9, "eth1")]);
        let [server, elsewhere, gateway]: [IpAddr; 3] =
            ["10.9.0.3", "10.8.0.3", "192.168.1.254"].map(|text| text.parse().unwrap());
        let mut actions = Vec::new();
        next_hops.follow([server, elsewhere].into_iter(), &mut actions);
        assert_eq!(next_hops.interface(server), None);

        let now = Instant::now();
        for (destination, index) in [(server, 9), (elsewhere, 1)] {
            let gateway = Some(gateway);
            next_hops.route(
                destination,
                Some(Route { index, gateway }),
                false,
                now,
                &mut actions,
            );
        }
        assert_eq!(next_hops.next_hop(server), Err(Resolution::Unresolved));
        let interface = next_hops.interface(server).map(|port| port.name.as_str());
        assert_eq!(interface, Some("eth1"));
        assert_eq!(
            next_hops.next_hop(elsewhere),
            Err(Resolution::OtherInterface)
        );
        assert_eq!(next_hops.interface(elsewhere), None);
    }

    #[test]
    fn a_gateway_of_many_servers_is_asked_for_once() {
        let mut next_hops = NextHops::new(vec![Port {
            number: PortIndex(0),
            index: 9,
            name: "eth0".to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            up: true,
            gone: false,
        }]);
        let servers: [IpAddr; 3] =
            ["10.9.0.3", "10.9.0.4", "10.9.0.5"].map(|text| text.parse().unwrap());
        let mut actions = Vec::new();
        next_hops.follow(servers.into_iter(), &mut actions);
        let now = Instant::now();
        let gateways = ["192.168.1.254", "192.168.1.254", "192.168.1.253"];
        for (server, gateway) in servers.into_iter().zip(gateways) {
            let gateway = gateway.parse().ok();
            let route = Route { index: 9, gateway };
            next_hops.route(server, Some(route), false, now, &mut actions);
        }
        let mut asked = Vec::new();
        next_hops.tick(now + RESOLVE_INTERVAL, &mut asked);
        assert_eq!(asked.len(), 2, "{asked:?}");
    }
}
