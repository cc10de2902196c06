//! What AF_XDP can do on an interface, and why not more: what `appliance probe` says.
//!
//! [`facts`] asks the kernel and changes nothing; [`judge`] is pure.

use std::io;

use dataplane::xsk::ethtool::{Ethtool, Offloads};
use dataplane::xsk::umem::FrameSize;
use serde::Serialize;

use crate::in_words::{count, in_words};
use crate::netlink::{HostLink, XdpFeatures, xdp_features};
use crate::run::{LINK_HEADERS, is_above_others};

/// Above it many drivers refuse native XDP: a page has to hold a frame with what the kernel adds.
const MTU_OF_MANY_DRIVERS: u32 = 3498;

/// What the kernel and the driver say.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) link: HostLink,
    /// Name and kind of the bond or bridge that it is a member of.
    pub(crate) master: Option<(String, Option<String>)>,
    pub(crate) driver: Option<String>,
    pub(crate) queues: Option<u32>,
    /// `Ok(None)`: the kernel is too old to know.
    pub(crate) features: io::Result<Option<XdpFeatures>>,
    /// The hardware verifies checksums of what is received.
    pub(crate) rx_checksum: Option<bool>,
    /// It writes those of what the kernel sends.
    pub(crate) tx_checksum: Option<bool>,
    pub(crate) offloads: Option<Offloads>,
    /// IPv4 UDP is spread over queues by ports, too.
    pub(crate) udp_by_ports: Option<bool>,
    /// Both directions of a flow come to one queue.
    pub(crate) symmetric: Option<bool>,
}

/// What is said of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) interface: String,
    /// Whether `run` takes it when the file has no `[[interface]]`.
    pub(crate) used_by_default: bool,
    /// What `run` would choose, or why it would not.
    pub(crate) verdict: String,
    pub(crate) facts: Vec<Fact>,
    /// What stands in the way or spoils forwarding, each with its remedy.
    pub(crate) remedies: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fact {
    pub(crate) name: &'static str,
    pub(crate) value: String,
}

/// Asks about a link of the host.
pub(crate) fn facts(link: &HostLink, all: &[HostLink]) -> Facts {
    let ethtool = Ethtool::open(&link.name).ok();
    let ethtool = ethtool.as_ref();
    let master = all.iter().find(|other| Some(other.index) == link.master);
    Facts {
        link: link.clone(),
        master: master.map(|master| (master.name.clone(), master.kind.clone())),
        driver: ethtool.and_then(|e| e.driver().ok()),
        queues: ethtool.and_then(|e| e.rx_queues().ok()),
        features: xdp_features(link.index),
        rx_checksum: ethtool.and_then(|e| e.rx_checksum_offload().ok()),
        tx_checksum: ethtool.and_then(|e| e.tx_checksum_offload().ok()),
        offloads: ethtool.and_then(|e| e.offloads().ok()),
        udp_by_ports: ethtool.and_then(|e| e.spreads_udp_by_ports().ok()),
        symmetric: ethtool.and_then(|e| e.spreads_symmetrically().ok()),
    }
}

/// What follows from the facts.
pub(crate) fn judge(facts: &Facts) -> Report {
    let Facts { link, driver, .. } = facts;
    let name = &link.name;
    let used_by_default = link.ethernet && link.up && !is_above_others(link.kind.as_deref());
    let features = facts.features.as_ref().ok().copied().flatten();
    let mut remedies = Vec::new();
    remedies_of_link(facts, &mut remedies);
    if features.is_some_and(|features| !features.native()) {
        remedies.push(
            "its driver has no native XDP: generic XDP works and is slow; use a card or a virtual one that has it \
             (virtio_net, ena, gve, ixgbe, i40e, ice, mlx5)"
                .to_owned(),
        );
    }
    remedies_of_receiving(facts, &mut remedies);
    Report {
        interface: name.clone(),
        used_by_default,
        verdict: verdict(facts, used_by_default, features),
        facts: vec![
            fact("driver", driver.clone().unwrap_or_else(unknown)),
            fact(
                "kind",
                link.kind.clone().unwrap_or_else(|| "hardware".to_owned()),
            ),
            fact("member of", member_of(facts)),
            fact("native XDP", word(&facts.features, XdpFeatures::native)),
            fact("zero-copy", word(&facts.features, XdpFeatures::zero_copy)),
            // XDP_USE_NEED_WAKEUP is older than what the appliance needs otherwise.
            fact("need_wakeup", "yes".to_owned()),
            fact(
                "XDP program",
                if link.xdp { "one is attached" } else { "none" }.to_owned(),
            ),
            fact(
                "receive queues",
                facts
                    .queues
                    .map_or_else(unknown, |queues| queues.to_string()),
            ),
            fact("UDP spread by ports", yes_no(facts.udp_by_ports)),
            fact("both directions on one queue", yes_no(facts.symmetric)),
            fact("MTU", link.mtu.to_string()),
            fact("checksum offload", checksum_offload(facts)),
            fact(
                "takes VLAN tags out",
                yes_no(facts.offloads.map(|o| o.rx_vlan)),
            ),
            fact(
                "joins TCP segments (LRO)",
                yes_no(facts.offloads.map(|o| o.large_receive)),
            ),
        ],
        remedies,
    }
}

fn fact(name: &'static str, value: String) -> Fact {
    Fact { name, value }
}

fn unknown() -> String {
    "its driver does not say".to_owned()
}

fn yes_no(known: Option<bool>) -> String {
    match known {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => unknown(),
    }
}

fn word(features: &io::Result<Option<XdpFeatures>>, has: fn(XdpFeatures) -> bool) -> String {
    match features {
        Ok(Some(features)) => yes_no(Some(has(*features))),
        Ok(None) => "the kernel does not say (Linux 6.3 does): run tries it".to_owned(),
        Err(error) => format!("cannot be read: {}", in_words(error)),
    }
}

fn member_of(facts: &Facts) -> String {
    match &facts.master {
        Some((name, Some(kind))) => format!("the {kind} {name}"),
        Some((name, None)) => name.clone(),
        None => "nothing".to_owned(),
    }
}

/// What AF_XDP sends and receives has no part in it: see [`dataplane::xsk::ethtool`].
fn checksum_offload(facts: &Facts) -> String {
    if facts.rx_checksum.is_none() && facts.tx_checksum.is_none() {
        return unknown();
    }
    let [rx, tx] = [facts.rx_checksum, facts.tx_checksum].map(yes_no);
    format!("receive {rx}, transmit {tx}")
}

/// What `run` would do.
fn verdict(facts: &Facts, by_default: bool, features: Option<XdpFeatures>) -> String {
    let link = &facts.link;
    if !link.ethernet {
        return "cannot be used: not an Ethernet interface".to_owned();
    }
    if !by_default {
        let why = match link.kind.as_deref() {
            _ if !link.up => "it is down".to_owned(),
            Some("bond" | "team") => "of a bond its members are used".to_owned(),
            Some("bridge") => "what a bridge carries arrives at its ports".to_owned(),
            Some("tun") => "a tap leads to a process of this host".to_owned(),
            Some(kind) => format!("what a {kind} carries arrives at the interface below"),
            None => "it is virtual".to_owned(),
        };
        return format!("not used unless an [[interface]] section names it: {why}");
    }
    let mode = match features {
        Some(features) if features.zero_copy() => "native XDP, zero-copy unless the driver refuses",
        Some(features) if features.native() => "native XDP, copy mode",
        Some(_) => "generic XDP, copy mode",
        None => "the best mode that works",
    };
    let queues = facts.queues.map_or(1, |queues| queues as usize);
    format!(
        "used: {mode}, {}, so {} at most",
        count(queues, "queue"),
        count(queues, "worker")
    )
}

fn remedies_of_link(facts: &Facts, remedies: &mut Vec<String>) {
    let link = &facts.link;
    let name = &link.name;
    if !link.up {
        remedies.push(format!("it is down: ip link set dev {name} up"));
    }
    if link.xdp {
        remedies.push(format!(
            "an XDP program is attached; unless that is a running appliance, stop its owner, or: \
             ip link set dev {name} xdp off"
        ));
    }
    if link.kind.as_deref() == Some("bond") {
        remedies.push("AF_XDP may receive nothing on a bond: name its members".to_owned());
    }
    if let Some((master, Some(kind))) = &facts.master
        && kind == "bridge"
    {
        remedies.push(format!(
            "what it forwards for other hosts stays with the bridge {master}; virtual servers work for frames \
             to the MAC address of {master} or of {name}"
        ));
    }
    let largest = FrameSize::Bytes4096.max_packet() - LINK_HEADERS;
    if link.mtu as usize > largest {
        remedies.push(format!(
            "its MTU is too big for a frame: ip link set dev {name} mtu {largest}"
        ));
    } else if link.mtu > MTU_OF_MANY_DRIVERS {
        remedies.push(format!(
            "many drivers refuse native XDP with such an MTU: ip link set dev {name} mtu {MTU_OF_MANY_DRIVERS}"
        ));
    }
}

fn remedies_of_receiving(facts: &Facts, remedies: &mut Vec<String>) {
    let name = &facts.link.name;
    if let Some(offloads) = facts.offloads {
        if offloads.rx_vlan {
            remedies.push(format!(
                "VLAN tags would be hidden from XDP; if there are any: ethtool -K {name} rxvlan off txvlan off"
            ));
        }
        if offloads.large_receive {
            remedies.push(format!(
                "joined TCP segments cannot be forwarded, and many drivers refuse native XDP: ethtool -K {name} lro off"
            ));
        }
    }
    if facts.queues == Some(1) && facts.driver.as_deref() != Some("veth") {
        remedies.push(format!(
            "one queue feeds one worker; if the card has more: ethtool -L {name} combined N"
        ));
    }
    if facts.udp_by_ports == Some(false) && facts.queues.is_some_and(|queues| queues > 1) {
        remedies.push(format!(
            "UDP of one client comes to one queue: ethtool -N {name} rx-flow-hash udp4 sdfn (udp6, too)"
        ));
    }
    if facts.driver.as_deref() == Some("veth") {
        remedies.push(
            "its peer must send complete checksums, or real servers drop what it sends: ethtool -K PEER tx off"
                .to_owned(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts_of(name: &str, features: u64) -> Facts {
        Facts {
            link: HostLink {
                index: 2,
                name: name.to_owned(),
                up: true,
                ethernet: true,
                mtu: 1500,
                ..HostLink::default()
            },
            master: None,
            driver: Some("ixgbe".to_owned()),
            queues: Some(4),
            features: Ok(Some(XdpFeatures::from_bits(features))),
            rx_checksum: Some(true),
            tx_checksum: Some(false),
            offloads: Some(Offloads {
                rx_vlan: false,
                large_receive: false,
            }),
            udp_by_ports: Some(true),
            symmetric: Some(false),
        }
    }

    #[test]
    fn a_good_card_has_no_remedies() {
        let report = judge(&facts_of("eth0", 0b1011));
        assert!(report.used_by_default);
        assert_eq!(
            report.verdict,
            "used: native XDP, zero-copy unless the driver refuses, 4 queues, so 4 workers at most"
        );
        assert_eq!(report.remedies, [""; 0]);
        let checksums = report.facts.iter().find(|f| f.name == "checksum offload");
        let checksums = checksums.map(|fact| fact.value.as_str());
        assert_eq!(checksums, Some("receive yes, transmit no"));
    }

    #[test]
    fn every_trap_has_a_remedy() {
        let mut facts = facts_of("eth0", 0);
        facts.link.xdp = true;
        facts.link.mtu = 9000;
        facts.udp_by_ports = Some(false);
        facts.offloads = Some(Offloads {
            rx_vlan: true,
            large_receive: true,
        });
        let report = judge(&facts);
        let has = |part: &str| report.remedies.iter().filter(|r| r.contains(part)).count();
        for part in [
            "ip link set dev eth0 xdp off",
            "ip link set dev eth0 mtu 3754",
            "no native XDP",
            "ethtool -K eth0 rxvlan off",
            "ethtool -K eth0 lro off",
            "ethtool -N eth0 rx-flow-hash udp4 sdfn",
        ] {
            assert_eq!(has(part), 1, "{part}: {:?}", report.remedies);
        }
        assert!(report.verdict.contains("generic XDP"), "{}", report.verdict);
    }

    #[test]
    fn what_is_not_taken_by_itself_says_why() {
        let verdict = |change: fn(&mut Facts)| {
            let mut facts = facts_of("x", 0b11);
            change(&mut facts);
            judge(&facts).verdict
        };
        let bond = verdict(|facts| facts.link.kind = Some("bond".to_owned()));
        assert!(bond.ends_with("of a bond its members are used"), "{bond}");
        let down = verdict(|facts| facts.link.up = false);
        assert!(down.ends_with("it is down"), "{down}");
        let other = verdict(|facts| facts.link.ethernet = false);
        assert!(other.starts_with("cannot be used"), "{other}");
    }
}
