//! Which interfaces and queues the workers use.

use anyhow::{Context, bail, ensure};
use dataplane::service::PortIndex;
use dataplane::xsk::ethtool::Ethtool;
use dataplane::xsk::socket::BindMode;
use dataplane::xsk::umem::FrameSize;
use tracing::{info, warn};

use crate::config::{self, Queues, XdpMode};
use crate::controller::Port;
use crate::event::NetworkEvent;

/// What the way back to the kernel is called; interfaces have lower numbers.
pub(super) const WAY_BACK: PortIndex = PortIndex(255);

/// Ethernet header and two VLAN tags, in bytes: what comes on top of the MTU.
pub(crate) const LINK_HEADERS: usize = 14 + 8;

/// A link as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: [u8; 6],
    pub(super) up: bool,
    pub(super) mtu: u32,
    pub(super) ethernet: bool,
    pub(super) kind: Option<String>,
}

/// The links among what the kernel told.
pub(super) fn links(known: &[NetworkEvent]) -> Vec<Link> {
    let mut links = Vec::new();
    for event in known {
        if let NetworkEvent::Link {
            index,
            name,
            mac,
            up,
            mtu,
            ethernet,
            kind,
            ..
        } = event
        {
            links.push(Link {
                index: *index,
                name: name.clone(),
                mac: *mac,
                up: *up,
                mtu: *mtu,
                ethernet: *ethernet,
                kind: kind.clone(),
            });
        }
    }
    links
}

/// An interface that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) number: PortIndex,
    pub(super) link: Link,
    /// Receive queues, at least one, in ascending order.
    pub(super) queues: Vec<u32>,
    pub(super) mode: BindMode,
}

impl Interface {
    /// What the controller knows of it.
    pub(super) fn port(&self) -> Port {
        let Link {
            index,
            name,
            mac,
            up,
            ..
        } = &self.link;
        Port {
            number: self.number,
            index: *index,
            name: name.clone(),
            mac: *mac,
            up: *up,
            gone: false,
        }
    }
}

/// Chooses the interfaces that `configured` names, or by default every
/// Ethernet interface that is up. Those among `used` keep their number, unless they went: what returned is new.
///
/// # Errors
/// Each names the interface, what was found and what to do.
pub(super) fn choose(
    configured: &[config::Interface],
    links: &[Link],
    used: &[Port],
) -> anyhow::Result<Vec<Interface>> {
    let chosen: Vec<(Link, Queues, XdpMode)> = if configured.is_empty() {
        let usable = links.iter().filter(|link| by_default(link));
        usable
            .map(|link| (link.clone(), Queues::All, XdpMode::Auto))
            .collect()
    } else {
        let named = configured.iter().map(|interface| {
            let link = find(links, &interface.name)?;
            Ok((link.clone(), interface.queues.clone(), interface.mode))
        });
        named.collect::<anyhow::Result<_>>()?
    };
    ensure!(
        !chosen.is_empty(),
        "no Ethernet interface is up: set one up, or name one in an [[interface]] section"
    );
    let mut interfaces = Vec::with_capacity(chosen.len());
    let mut free =
        (0..WAY_BACK.0).filter(|number| used.iter().all(|port| port.number.0 != *number));
    for (link, queues, mode) in chosen {
        let known = used.iter().find(|port| is_it(port, &link));
        let number = known.map(|port| port.number);
        interfaces.push(Interface {
            number: number
                .or_else(|| free.next().map(PortIndex))
                .with_context(|| format!("more than {} interfaces", WAY_BACK.0))?,
            queues: self::queues(&link, &queues)?,
            mode: bind_mode(mode),
            link,
        });
    }
    Ok(interfaces)
}

/// True if workers still have this link by that port: the index alone is that of a link which went to another namespace
/// and came back, too.
pub(super) fn is_it(port: &Port, link: &Link) -> bool {
    port.index == link.index && !port.gone
}

/// Those that have the name of an interface in use that is gone: it was deleted and made anew, or moved away and back.
///
/// # Errors
/// As of [`choose`].
pub(super) fn made_anew(links: &[Link], used: &[Port]) -> anyhow::Result<Vec<Interface>> {
    let is_gone = |port: &&Port| !links.iter().any(|link| is_it(port, link));
    let successor = |gone: &Port| {
        let mut usable = links.iter().filter(|link| by_default(link));
        usable.find(|link| link.name == gone.name)
    };
    let anew = used.iter().filter(is_gone).filter_map(successor);
    let named = anew.map(|link| config::Interface {
        name: link.name.clone(),
        queues: Queues::All,
        mode: XdpMode::Auto,
    });
    let named: Vec<_> = named.collect();
    if named.is_empty() {
        return Ok(Vec::new()); // and not all of the host
    }
    choose(&named, links, used)
}

/// Ethernet and up, and no virtual device above others.
fn by_default(link: &Link) -> bool {
    link.ethernet && link.up && !is_above_others(link.kind.as_deref())
}

/// True for what packets are not taken from unless it is named: of a bond its
/// members are used, and what a bridge or a VLAN device carries arrives at the device below. Nor
/// from a tap, which leads to a process of this host: a virtual machine, or another appliance.
pub(crate) fn is_above_others(kind: Option<&str>) -> bool {
    matches!(
        kind,
        Some("bond" | "team" | "bridge" | "vlan" | "macvlan" | "ipvlan" | "dummy" | "vrf" | "tun")
    )
}

fn find<'a>(links: &'a [Link], name: &str) -> anyhow::Result<&'a Link> {
    let Some(link) = links.iter().find(|link| link.name == name) else {
        let others = links
            .iter()
            .filter(|link| link.ethernet)
            .map(|link| link.name.as_str());
        let others: Vec<&str> = others.collect();
        let have = if others.is_empty() {
            "none".to_owned()
        } else {
            others.join(", ")
        };
        bail!("interface {name}: not found; this machine's Ethernet interfaces: {have}");
    };
    ensure!(
        link.ethernet,
        "interface {name}: not an Ethernet interface: AF_XDP needs one"
    );
    if !link.up {
        warn!("interface {name} is down: nothing is received until it is up");
    }
    if link.kind.as_deref() == Some("bond") {
        warn!(
            "interface {name} is a bond, on which AF_XDP may receive nothing: name its members instead"
        );
    }
    Ok(link)
}

fn queues(link: &Link, wanted: &Queues) -> anyhow::Result<Vec<u32>> {
    let name = &link.name;
    let count = Ethtool::open(name)
        .and_then(|ethtool| ethtool.rx_queues())
        .with_context(|| format!("interface {name}: cannot read its number of queues"))?;
    match wanted {
        Queues::All => Ok((0..count).collect()),
        Queues::List(list) => {
            let mut list = list.clone();
            list.sort_unstable();
            list.dedup();
            if let Some(missing) = list.iter().find(|queue| **queue >= count) {
                bail!(
                    "interface {name}: queues: found {missing}, the interface has the queues 0 to {}",
                    count - 1
                );
            }
            ensure!(
                !list.is_empty(),
                "interface {name}: queues: the list is empty"
            );
            Ok(list)
        }
    }
}

fn bind_mode(mode: XdpMode) -> BindMode {
    match mode {
        XdpMode::Auto => BindMode::Auto,
        XdpMode::ZeroCopy => BindMode::ZeroCopy,
        XdpMode::Copy => BindMode::Copy,
        XdpMode::Generic => BindMode::Generic,
    }
}

/// The mode of all sockets of a worker: they share their memory, which is
/// either the driver's to write or not.
///
/// # Errors
/// One interface demands zero-copy and another forbids it.
pub(super) fn socket_mode(interfaces: &[Interface]) -> anyhow::Result<BindMode> {
    let demands = |mode: BindMode| interfaces.iter().find(|interface| interface.mode == mode);
    let copies = demands(BindMode::Copy).or_else(|| demands(BindMode::Generic));
    match (demands(BindMode::ZeroCopy), copies) {
        (Some(zero), Some(copy)) => bail!(
            "interface {}: mode zero-copy cannot be combined with the mode of interface {}: \
             the interfaces of a worker share their memory; set both to auto",
            zero.link.name,
            copy.link.name
        ),
        (Some(_), None) => Ok(BindMode::ZeroCopy),
        (None, Some(_)) => Ok(BindMode::Copy),
        (None, None) => Ok(BindMode::Auto),
    }
}

/// The frame size that holds every interface's packets.
///
/// # Errors
/// An MTU is too big for any.
pub(super) fn frame_size(interfaces: &[Interface]) -> anyhow::Result<FrameSize> {
    let mut size = FrameSize::Bytes2048;
    for Interface { link, .. } in interfaces {
        let packet = link.mtu as usize + LINK_HEADERS;
        if packet > FrameSize::Bytes4096.max_packet() {
            bail!(
                "interface {}: MTU {} is too big for a frame: lower it to {} or less (ip link set dev {} mtu …)",
                link.name,
                link.mtu,
                longest_mtu(FrameSize::Bytes4096),
                link.name
            );
        }
        if packet > FrameSize::Bytes2048.max_packet() {
            size = FrameSize::Bytes4096;
        }
    }
    Ok(size)
}

/// The longest MTU of an interface whose packets fit in frames of a size.
pub(super) fn longest_mtu(size: FrameSize) -> usize {
    size.max_packet() - LINK_HEADERS
}

/// Says what is known to spoil forwarding on an interface.
pub(super) fn say_traps(interface: &Interface) {
    let name = &interface.link.name;
    let driver = Ethtool::open(name).and_then(|ethtool| ethtool.driver());
    if driver.is_ok_and(|driver| driver == "veth") {
        info!(
            "interface {name} is a veth: its peer must send complete checksums, \
             or real servers drop what it sends (ethtool -K PEER tx off)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, kind: Option<&str>) -> Link {
        Link {
            index: 1,
            name: name.into(),
            mac: [0; 6],
            up: true,
            mtu: 1500,
            ethernet: true,
            kind: kind.map(Into::into),
        }
    }

    fn interface(name: &str, mode: BindMode, mtu: u32) -> Interface {
        Interface {
            number: PortIndex(0),
            link: Link {
                mtu,
                ..link(name, None)
            },
            queues: vec![0],
            mode,
        }
    }

    #[test]
    fn by_default_only_what_is_up_and_not_above_others() {
        assert!(by_default(&link("eth0", None)));
        assert!(by_default(&link("veth0", Some("veth"))));
        assert!(!by_default(&link("bond0", Some("bond"))));
        assert!(!by_default(&link("br0", Some("bridge"))));
        assert!(!by_default(&link("appliance0", Some("tun"))));
        assert!(!by_default(&Link {
            up: false,
            ..link("eth1", None)
        }));
        assert!(!by_default(&Link {
            ethernet: false,
            ..link("lo", None)
        }));
    }

    #[test]
    fn an_absent_interface_is_named_with_those_that_exist() {
        let error = find(&[link("eth0", None), link("eth1", None)], "eth9").unwrap_err();
        assert_eq!(
            error.to_string(),
            "interface eth9: not found; this machine's Ethernet interfaces: eth0, eth1"
        );
    }

    #[test]
    fn what_was_not_made_anew_is_not_looked_for() {
        let used = Port {
            number: PortIndex(0),
            ..interface("eth0", BindMode::Auto, 1500).port()
        };
        let anew = |links: &[Link]| made_anew(links, std::slice::from_ref(&used)).unwrap();
        assert!(anew(&[link("eth0", None), link("eth1", None)]).is_empty());
        let other = |name: &str, up| Link {
            index: 2,
            up,
            ..link(name, None)
        };
        assert!(anew(&[other("eth1", true)]).is_empty());
        assert!(anew(&[other("eth0", false)]).is_empty());
        // Moved to another namespace and back, it has its old index.
        let returned = Port {
            gone: true,
            name: "no-such-interface".to_owned(),
            ..used.clone()
        };
        let found = made_anew(&[link("no-such-interface", None)], &[returned]);
        assert!(found.is_err());
        // Whose queues are counted then.
        let found = made_anew(
            &[other("no-such-interface", true)],
            &[Port {
                name: "no-such-interface".to_owned(),
                ..used.clone()
            }],
        );
        let error = found.unwrap_err().to_string();
        assert!(error.contains("no-such-interface: cannot read"), "{error}");
    }

    #[test]
    fn one_mode_for_all_sockets() {
        let auto = interface("a", BindMode::Auto, 1500);
        let zero = interface("b", BindMode::ZeroCopy, 1500);
        let generic = interface("c", BindMode::Generic, 1500);
        assert_eq!(
            socket_mode(std::slice::from_ref(&auto)).unwrap(),
            BindMode::Auto
        );
        assert_eq!(
            socket_mode(&[auto.clone(), zero.clone()]).unwrap(),
            BindMode::ZeroCopy
        );
        assert_eq!(
            socket_mode(&[auto, generic.clone()]).unwrap(),
            BindMode::Copy
        );
        assert!(socket_mode(&[zero, generic]).is_err());
    }

    #[test]
    fn frames_fit_the_largest_mtu() {
        let mtu = |mtu| {
            frame_size(&[
                interface("a", BindMode::Auto, 1500),
                interface("b", BindMode::Auto, mtu),
            ])
        };
        assert_eq!(mtu(1500).unwrap(), FrameSize::Bytes2048);
        assert_eq!(mtu(3000).unwrap(), FrameSize::Bytes4096);
        assert!(
            mtu(9000)
                .unwrap_err()
                .to_string()
                .contains("lower it to 3754")
        );
    }
}
