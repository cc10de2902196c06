//! Routes and rules that a master of VRRP adds and removes.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use dataplane::bpf::Prefix;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{self, RuleAttribute, RuleFlags, RuleHeader, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use rustix::io::Errno;

use super::super::{ADDRESS_PROTOCOL, Error};
use super::{Requests, unless};
use crate::routing::{RouteKind, RuleAction, VirtualRoute, VirtualRule};

/// Marks what is ours, as [`ADDRESS_PROTOCOL`] does addresses; what others added is left alone.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(ADDRESS_PROTOCOL);

impl Requests {
    /// Adds a route, marked as ours. False: there is one to the destination with the same metric,
    /// and it stays as it is.
    ///
    /// # Errors
    /// What the kernel says, with the route; or there is no such interface.
    pub async fn add_route(&self, route: &VirtualRoute) -> Result<bool, Error> {
        let doing = || format!("add the route {route}");
        let message = route_message(route).map_err(|error| {
            let doing = doing();
            Error::Refused { doing, error }
        })?;
        let message = RouteNetlinkMessage::NewRoute(message);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        unless(self.ask(message, flags, doing).await, &[Errno::EXIST])
    }

    /// Removes a route of ours. False: there is none.
    ///
    /// # Errors
    /// What the kernel says, with the route.
    pub async fn remove_route(&self, route: &VirtualRoute) -> Result<bool, Error> {
        let doing = || format!("remove the route {route}");
        let Ok(message) = route_message(route) else {
            return Ok(false); // it went with its interface
        };
        let message = RouteNetlinkMessage::DelRoute(message);
        let gone = [Errno::SRCH, Errno::NODEV, Errno::NETUNREACH];
        unless(self.ask(message, NLM_F_ACK, doing).await, &gone)
    }

    /// Adds a rule, marked as ours. False: it is there.
    ///
    /// # Errors
    /// What the kernel says, with the rule.
    pub async fn add_rule(&self, rule: &VirtualRule) -> Result<bool, Error> {
        let doing = || format!("add the rule {rule}");
        let message = RouteNetlinkMessage::NewRule(rule_message(rule));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        unless(self.ask(message, flags, doing).await, &[Errno::EXIST])
    }

    /// Removes a rule of ours. False: there is none.
    ///
    /// # Errors
    /// What the kernel says, with the rule.
    pub async fn remove_rule(&self, rule: &VirtualRule) -> Result<bool, Error> {
        let doing = || format!("remove the rule {rule}");
        let message = RouteNetlinkMessage::DelRule(rule_message(rule));
        unless(self.ask(message, NLM_F_ACK, doing).await, &[Errno::NOENT])
    }

    /// Removes the routes and rules that a killed director left behind: all with our mark if `within` is `None`, else
    /// only routes over one of these interfaces, as the rest may be that of a director that runs.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_left_routing(
        &self,
        within: Option<&BTreeSet<u32>>,
    ) -> Result<LeftRouting, Error> {
        use RouteNetlinkMessage as M;
        let mut left = LeftRouting::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut routes = RouteMessage::default();
            routes.header.address_family = family;
            let mut rules = RuleMessage::default();
            rules.header.family = family;
            let requests = [
                ("routes", M::GetRoute(routes)),
                ("rules", M::GetRule(rules)),
            ];
            for (what, request) in requests {
                for message in self.dump_one(what, request).await? {
                    let Some((deletion, over)) = deletion_of_ours(message) else {
                        continue;
                    };
                    let is_own = |within: &BTreeSet<u32>| over.is_some_and(|o| within.contains(&o));
                    if !within.is_none_or(is_own) {
                        left.spared += 1;
                        continue;
                    }
                    let doing = || format!("remove one of the {what} that were left behind");
                    let gone = [Errno::SRCH, Errno::NOENT];
                    let answer = self.ask(deletion, NLM_F_ACK, doing).await;
                    left.removed += usize::from(unless(answer, &gone)?);
                }
            }
        }
        Ok(left)
    }
}

/// Routes and rules with our mark that were there: how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftRouting {
    pub removed: usize,
    /// Those that may be another director's.
    pub spared: usize,
}

/// What deletes a route or rule with our mark, and the interface by which the route leads.
fn deletion_of_ours(message: RouteNetlinkMessage) -> Option<(RouteNetlinkMessage, Option<u32>)> {
    if let RouteNetlinkMessage::NewRoute(route) = message {
        let is_ours = route.header.protocol == PROTOCOL;
        let over = route.attributes.iter().find_map(|attribute| {
            if let RouteAttribute::Oif(index) = attribute {
                Some(*index)
            } else {
                None
            }
        });
        is_ours.then_some((RouteNetlinkMessage::DelRoute(route), over))
    } else if let RouteNetlinkMessage::NewRule(rule) = message {
        let mark = RuleAttribute::Protocol(PROTOCOL);
        let is_ours = rule.attributes.contains(&mark);
        is_ours.then_some((RouteNetlinkMessage::DelRule(rule), None))
    } else {
        None
    }
}

fn family(is_ipv4: bool) -> AddressFamily {
    match is_ipv4 {
        true => AddressFamily::Inet,
        false => AddressFamily::Inet6,
    }
}

/// A table in the header, or, beyond its byte, in an attribute.
fn table_in_header(table: u32) -> u8 {
    u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC)
}

fn route_message(route: &VirtualRoute) -> io::Result<RouteMessage> {
    let kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Prohibit => RouteType::Prohibit,
    };
    let is_on_link = route.is_unicast() && route.via.is_none() && route.is_ipv4();
    let scope = match route.scope {
        Some(scope) => scope.into(),
        None if is_on_link => RouteScope::Link,
        None => RouteScope::Universe,
    };
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(route.is_ipv4()),
        destination_prefix_length: route.destination.length(),
        table: table_in_header(route.table),
        protocol: PROTOCOL,
        scope,
        kind,
        ..RouteHeader::default()
    };
    if route.onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    if route.destination.length() != 0 {
        let destination = route.destination.address();
        attributes.push(RouteAttribute::Destination(destination.into()));
    }
    let address = |address: IpAddr| address.into();
    attributes.extend(route.via.map(address).map(RouteAttribute::Gateway));
    attributes.extend(route.src.map(address).map(RouteAttribute::PrefSource));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    if let Some(name) = &route.dev {
        let index = nix::net::if_::if_nametoindex(name.as_str())?;
        attributes.push(RouteAttribute::Oif(index));
    }
    Ok(message)
}

fn rule_message(rule: &VirtualRule) -> RuleMessage {
    let (action, table) = match rule.action {
        RuleAction::Table(table) => (rule::RuleAction::ToTable, Some(table)),
        RuleAction::Blackhole => (rule::RuleAction::Blackhole, None),
        RuleAction::Unreachable => (rule::RuleAction::Unreachable, None),
        RuleAction::Prohibit => (rule::RuleAction::Prohibit, None),
    };
    let length = |prefix: Option<Prefix>| prefix.map_or(0, |prefix| prefix.length());
    let mut message = RuleMessage::default();
    message.header = RuleHeader {
        family: family(rule.is_ipv4),
        dst_len: length(rule.to),
        src_len: length(rule.from),
        table: table.map_or(RouteHeader::RT_TABLE_UNSPEC, table_in_header),
        action,
        ..RuleHeader::default()
    };
    if rule.not {
        message.header.flags = RuleFlags::Invert;
    }
    // A prefix of no bits is every packet's, and no attribute.
    let address = |prefix: Option<Prefix>| {
        let some = prefix.filter(|prefix| prefix.length() != 0);
        some.map(|prefix| prefix.address())
    };
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Protocol(PROTOCOL));
    attributes.extend(table.map(RuleAttribute::Table));
    attributes.extend(address(rule.to).map(RuleAttribute::Destination));
    attributes.extend(address(rule.from).map(RuleAttribute::Source));
    attributes.extend(rule.fwmark.map(RuleAttribute::FwMark));
    attributes.extend(rule.fwmask.map(RuleAttribute::FwMask));
    attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    attributes.extend(rule.oif.clone().map(RuleAttribute::Oifname));
    attributes.extend(rule.priority.map(RuleAttribute::Priority));
    message
}
