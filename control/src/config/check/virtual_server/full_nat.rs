//! `local_addresses` and `client_address`, for real servers that are reached by FULLNAT.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::service::{ClientAddress, ForwardingMethod, FullNat, Protocol};

use super::super::super::raw::{Remembered, Table, Value};
use super::super::super::report::Report;
use super::super::super::{RealServer, VirtualServer};

/// Most local addresses of a virtual server: each takes memory of every worker.
const MOST: usize = 256;

/// A list as it is written, for messages about it.
pub(super) type Written = Vec<(Remembered, IpAddr)>;

/// What a virtual server says for FULLNAT, and where.
pub(super) fn read(
    table: &Table<'_>,
    protocol: Option<Protocol>,
    report: &mut Report<'_>,
) -> (FullNat, Written) {
    let written = local_addresses(table, report);
    let client_address = table
        .get("client_address")
        .and_then(|value| client_address(&value, protocol, report));
    let full_nat = FullNat {
        local_addresses: written.iter().map(|(_, ip)| (*ip).into()).collect(),
        client_address: client_address.unwrap_or_default(),
    };
    (full_nat, written)
}

fn local_addresses(table: &Table<'_>, report: &mut Report<'_>) -> Written {
    let Some(list) = table.get("local_addresses") else {
        return Vec::new();
    };
    let elements = list.list(report).unwrap_or_default();
    if elements.len() > MOST {
        list.reject(
            format_args!("at most {MOST} addresses"),
            "remove some, each has 64512 ports",
            report,
        );
    }
    let mut seen = BTreeMap::new();
    let addresses = elements.into_iter().filter_map(|element| {
        let ip = element.host(report)?;
        let ip = element.check_not_link_local(ip, report)?;
        if ip.is_loopback() {
            element.reject(
                "an address that real servers can answer to",
                "loopback addresses never leave a host",
                report,
            );
            return None;
        }
        if seen.insert(ip, ()).is_some() {
            element.reject("each address once", "remove one", report);
            return None;
        }
        Some((element.remembered(), ip))
    });
    addresses.collect()
}

fn client_address(
    value: &Value<'_>,
    protocol: Option<Protocol>,
    report: &mut Report<'_>,
) -> Option<ClientAddress> {
    let wanted = value.choice(&ClientAddress::NAMES, &[], report)?;
    let (expected, remedy) = match (wanted, protocol) {
        (ClientAddress::Toa, Some(Protocol::Udp)) => (
            "it for TCP only: it is a TCP option",
            r#"write "proxy", or remove it"#,
        ),
        (ClientAddress::Toa | ClientAddress::Proxy, Some(Protocol::Sctp)) => (
            "nothing of the kind for SCTP, which has no place for it",
            r#"write "none", or remove it"#,
        ),
        (_, Some(Protocol::Tcp | Protocol::Udp | Protocol::Sctp) | None) => return Some(wanted),
    };
    value.reject(expected, remedy, report);
    None
}

/// What a virtual server says has to suit its real servers.
pub(super) fn fits<'s>(
    table: &Table<'_>,
    full_nat: &FullNat,
    one_packet: bool,
    default: Option<ForwardingMethod>,
    servers: impl Iterator<Item = &'s RealServer> + Clone,
    report: &mut Report<'_>,
) {
    let mut used = servers.filter(|server| server.lb_kind == ForwardingMethod::FullNat);
    let is_used = default == Some(ForwardingMethod::FullNat) || used.clone().next().is_some();
    if !is_used {
        let unused = ["local_addresses", "client_address"].map(|key| table.get(key));
        // Of a method that is wrong nothing is known.
        for value in unused.into_iter().flatten().filter(|_| default.is_some()) {
            value.reject(r#"it with lb_kind = "FULLNAT" only"#, "remove it", report);
        }
        return;
    }
    if one_packet && let Some(value) = table.get("ops") {
        value.reject(
            "false with FULLNAT: a connection of one packet takes no reply",
            "remove it",
            report,
        );
    }
    let Some(list) = table.get("local_addresses") else {
        let example = r#"local_addresses = ["192.168.1.201"], addresses for the director alone, to which the real servers reply"#;
        table.report_absent("local_addresses", example, report);
        return;
    };
    let own = &full_nat.local_addresses;
    let reaches = |server: &&RealServer| {
        let mut own = own.iter();
        own.any(|local| local.is_v4() == server.address.is_ipv4())
    };
    if !own.is_empty()
        && let Some(server) = used.find(|server| !reaches(server))
    {
        let version = if server.address.is_ipv4() {
            "IPv4"
        } else {
            "IPv6"
        };
        list.reject(
            format_args!(
                "an {version} address, from which to reach {}",
                server.address
            ),
            "add one",
            report,
        );
    }
}

/// A local address is nothing else in the file: the replies to it are the director's.
pub(super) fn check_others(
    written: &[(Remembered, IpAddr)],
    servers: &[VirtualServer],
    report: &mut Report<'_>,
) {
    for (value, ip) in written {
        let is_virtual = |server: &&VirtualServer| {
            let address = (*ip).into();
            server.destinations_hold(address)
        };
        let is_real = |server: &&RealServer| server.address.ip() == *ip;
        if let Some(server) = servers.iter().find(is_virtual) {
            value.reject(
                format_args!(
                    "an address other than that of virtual_server {}",
                    server.key
                ),
                "use one that is free",
                report,
            );
        } else if let Some(server) = servers
            .iter()
            .flat_map(VirtualServer::all_servers)
            .find(is_real)
        {
            value.reject(
                format_args!(
                    "an address other than that of real_server {}",
                    server.address
                ),
                "use one that is free",
                report,
            );
        }
    }
}
