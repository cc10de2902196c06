use std::net::Ipv4Addr;

use netlink_packet_route::link::InfoKind;
use netlink_packet_route::route::RouteMessage;

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));

fn link_message(index: u32, name: &str, flags: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Mtu(1500),
        LinkAttribute::Address(MAC.to_vec()),
    ];
    message
}

fn new_link(index: u32, name: &str, up: bool) -> RouteNetlinkMessage {
    let flags = if up {
        LinkFlags::Up | LinkFlags::LowerUp
    } else {
        LinkFlags::Up
    };
    RouteNetlinkMessage::NewLink(link_message(index, name, flags))
}

fn link_event(index: u32, name: &str, up: bool) -> NetworkEvent {
    NetworkEvent::Link {
        index,
        name: name.into(),
        mac: MAC,
        up,
        mtu: 1500,
        ethernet: true,
        kind: None,
        master: None,
    }
}

fn address(index: u32, protocol: Option<u8>) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = 32;
    message.attributes = vec![AddressAttribute::Local(VIP)];
    message
        .attributes
        .extend(protocol.map(|p| AddressAttribute::Protocol(AddressProtocol::Other(p))));
    message
}

fn address_event(index: u32, ours: bool, present: bool) -> NetworkEvent {
    NetworkEvent::Address {
        index,
        address: VIP,
        prefix_length: 32,
        ours,
        present,
    }
}

fn neighbor(index: u32, state: NeighbourState, mac: [u8; 6]) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    message.header.state = state;
    message.attributes = vec![
        NeighbourAttribute::Destination(VIP.into()),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    RouteNetlinkMessage::NewNeighbour(message)
}

fn neighbor_event(index: u32, mac: Option<[u8; 6]>) -> NetworkEvent {
    NetworkEvent::Neighbor {
        index,
        address: VIP,
        mac,
    }
}

#[test]
fn only_changes_of_a_link_are_told() {
    let mut view = View::default();
    assert_eq!(
        view.apply(&new_link(2, "eth0", true)),
        [link_event(2, "eth0", true)]
    );
    assert_eq!(view.apply(&new_link(2, "eth0", true)), []);
    // Routes go down silently with their link.
    assert_eq!(
        view.apply(&new_link(2, "eth0", false)),
        [link_event(2, "eth0", false), NetworkEvent::RoutesChanged]
    );
}

#[test]
fn what_decides_about_default_interfaces() {
    let mut view = View::default();
    let mut message = link_message(
        3,
        "lo",
        LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Loopback,
    );
    let events = view.apply(&RouteNetlinkMessage::NewLink(message.clone()));
    assert!(matches!(
        events[0],
        NetworkEvent::Link {
            ethernet: false,
            ..
        }
    ));

    message.header.flags = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Controller(7));
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
            InfoKind::Veth,
        )]));
    let events = view.apply(&RouteNetlinkMessage::NewLink(message));
    let NetworkEvent::Link {
        ethernet,
        up,
        kind,
        master,
        ..
    } = &events[0]
    else {
        panic!("{events:?}");
    };
    // Up without a carrier is not up.
    assert_eq!(
        (*ethernet, *up, kind.as_deref(), *master),
        (true, false, Some("veth"), Some(7))
    );
}

#[test]
fn a_bridge_port_that_leaves_is_not_gone() {
    let mut view = View::default();
    view.apply(&new_link(2, "eth0", true));
    let mut message = LinkMessage::default();
    message.header.index = 2;
    message.header.interface_family = AddressFamily::Bridge;
    assert_eq!(
        view.apply(&RouteNetlinkMessage::DelLink(message.clone())),
        []
    );
    message.header.interface_family = AddressFamily::Unspec;
    assert_eq!(
        view.apply(&RouteNetlinkMessage::DelLink(message)),
        [
            NetworkEvent::LinkGone { index: 2 },
            NetworkEvent::RoutesChanged
        ]
    );
}

#[test]
fn addresses_of_a_killed_appliance_are_recognised() {
    let mut view = View::default();
    for (index, protocol, ours) in [
        (2, Some(ADDRESS_PROTOCOL), true),
        (3, Some(4), false),
        (4, None, false),
    ] {
        let message = RouteNetlinkMessage::NewAddress(address(index, protocol));
        assert_eq!(
            view.apply(&message),
            [
                address_event(index, ours, true),
                NetworkEvent::RoutesChanged
            ]
        );
        assert_eq!(view.apply(&message), []);
    }
    // The kernel's message of removal need not say whose it was.
    assert_eq!(
        view.apply(&RouteNetlinkMessage::DelAddress(address(2, None))),
        [address_event(2, true, false), NetworkEvent::RoutesChanged]
    );
    assert_eq!(
        view.apply(&RouteNetlinkMessage::DelAddress(address(2, None))),
        []
    );
}

#[test]
fn neighbours_are_told_by_their_usable_mac() {
    use NeighbourState as S;
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    let mut view = View::default();
    // state, MAC in the message, event
    for (state, mac, event) in [
        (S::Incomplete, [0; 6], None),
        (S::Reachable, MAC, Some(Some(MAC))),
        (S::Stale, MAC, None),
        (S::Delay, MAC, None),
        (S::Probe, MAC, None),
        (S::Reachable, OTHER, Some(Some(OTHER))),
        (S::Failed, OTHER, Some(None)),
        (S::Failed, OTHER, None),
        (S::Permanent, MAC, Some(Some(MAC))),
    ] {
        assert_eq!(
            view.apply(&neighbor(2, state, mac)),
            event.map(|mac| neighbor_event(2, mac)).as_slice(),
            "{state}"
        );
    }
    let RouteNetlinkMessage::NewNeighbour(gone) = neighbor(2, S::Permanent, MAC) else {
        unreachable!("built so above");
    };
    assert_eq!(
        view.apply(&RouteNetlinkMessage::DelNeighbour(gone)),
        [neighbor_event(2, None)]
    );
}

#[test]
fn neighbours_that_are_none_are_left_out() {
    let mut view = View::default();
    let RouteNetlinkMessage::NewNeighbour(mut proxy) = neighbor(2, NeighbourState::Reachable, MAC)
    else {
        unreachable!("built so above");
    };
    proxy.header.flags = NeighbourFlags::Proxy;
    assert_eq!(view.apply(&RouteNetlinkMessage::NewNeighbour(proxy)), []);
    let mut multicast = NeighbourMessage::default();
    multicast.header.state = NeighbourState::Noarp;
    multicast.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(224, 0, 0, 18))),
        NeighbourAttribute::LinkLayerAddress(vec![1, 0, 0x5e, 0, 0, 18]),
    ];
    assert_eq!(
        view.apply(&RouteNetlinkMessage::NewNeighbour(multicast)),
        []
    );
}

#[test]
fn cached_routes_are_no_change() {
    let mut view = View::default();
    let mut route = RouteMessage::default();
    assert_eq!(
        view.apply(&RouteNetlinkMessage::NewRoute(route.clone())),
        [NetworkEvent::RoutesChanged]
    );
    route.header.flags = RouteFlags::Cloned;
    assert_eq!(view.apply(&RouteNetlinkMessage::NewRoute(route)), []);
}

#[test]
fn a_dump_after_a_loss_tells_the_differences() {
    let mut view = View::default();
    let mut known = vec![
        new_link(2, "eth0", true),
        new_link(3, "eth1", true),
        RouteNetlinkMessage::NewAddress(address(2, Some(ADDRESS_PROTOCOL))),
        neighbor(2, NeighbourState::Reachable, MAC),
        neighbor(3, NeighbourState::Reachable, MAC),
    ];
    assert_eq!(
        view.replace(&known),
        [
            link_event(2, "eth0", true),
            link_event(3, "eth1", true),
            address_event(2, true, true),
            neighbor_event(2, Some(MAC)),
            neighbor_event(3, Some(MAC)),
            NetworkEvent::RoutesChanged,
        ]
    );
    assert_eq!(view.replace(&known), [NetworkEvent::RoutesChanged]);

    // Missed: eth1 and all it had, the address, a neighbour's failure.
    known.remove(4);
    known.remove(2);
    known.remove(1);
    known[1] = neighbor(2, NeighbourState::Failed, MAC);
    assert_eq!(
        view.replace(&known),
        [
            neighbor_event(3, None),
            NetworkEvent::LinkGone { index: 3 },
            address_event(2, true, false),
            neighbor_event(2, None),
            NetworkEvent::RoutesChanged,
        ]
    );
}
