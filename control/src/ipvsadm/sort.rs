//! ipvsadm's order of virtual servers and of real servers.
//!
//! IPv4 addresses are compared by the sign of their difference as 32-bit
//! integers, which wraps around: 10.1.1.2 comes after 192.168.1.2. That is no
//! order in the mathematical sense (three addresses can be in a circle), so
//! what comes out depends on the algorithm as well: the merge sort of glibc's
//! `qsort`.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};

use super::command::{Protocol, ServiceName};
use super::table::{Server, Service};

pub(super) fn services(services: &[Service]) -> Vec<&Service> {
    let mut sorted: Vec<&Service> = services.iter().collect();
    merge_sort(&mut sorted, &|a, b| compare_services(a.name, b.name));
    sorted
}

pub(super) fn servers(servers: &[Server]) -> Vec<&Server> {
    let mut sorted: Vec<&Server> = servers.iter().collect();
    merge_sort(&mut sorted, &|a, b| compare_addresses(a.address, b.address));
    sorted
}

/// Firewall marks last; then IPv4 before IPv6, by protocol, address and port.
fn compare_services(a: ServiceName, b: ServiceName) -> Ordering {
    let key = |name| match name {
        ServiceName::Address { protocol, address } => (0, protocol, Some(address)),
        ServiceName::Firewall { mark, .. } => (mark, Protocol::Tcp, None),
    };
    let ((mark_a, protocol_a, address_a), (mark_b, protocol_b, address_b)) = (key(a), key(b));
    let marks = mark_a.cmp(&mark_b);
    let (Some(address_a), Some(address_b)) = (address_a, address_b) else {
        return marks;
    };
    marks
        .then(address_a.is_ipv6().cmp(&address_b.is_ipv6()))
        .then(protocol_a.cmp(&protocol_b))
        .then_with(|| compare_addresses(address_a, address_b))
}

fn compare_addresses(a: SocketAddr, b: SocketAddr) -> Ordering {
    let hosts = match (a.ip(), b.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let difference = u32::from(a).wrapping_sub(u32::from(b));
            difference.cast_signed().cmp(&0)
        }
        (a, b) => a.cmp(&b),
    };
    hosts.then(a.port().cmp(&b.port()))
}

/// Halves from the top, equal elements in their order.
fn merge_sort<T: Copy>(elements: &mut [T], compare: &impl Fn(T, T) -> Ordering) {
    if elements.len() < 2 {
        return;
    }
    let (left, right) = elements.split_at_mut(elements.len() / 2);
    merge_sort(left, compare);
    merge_sort(right, compare);
    let (left, right) = (left.to_vec(), right.to_vec());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    for place in elements {
        let from_left = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) => compare(*a, *b).is_le(),
            (Some(_), None) => true,
            (None, _) => false,
        };
        let next = if from_left { left.next() } else { right.next() };
        if let Some(next) = next {
            *place = next;
        }
    }
}
