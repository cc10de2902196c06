//! Routes and rules of an instance: some of these, in this order.

use control::routing::{VirtualRoute, VirtualRule};
use proptest::prelude::*;
use proptest::sample::subsequence;

const ROUTES: [&str; 8] = [
    "10.1.0.0/16 via 10.0.0.1",
    "::/0 via fe80::1 dev eth0 src 2001:db8::9",
    "0.0.0.0/0 via 10.0.0.1 table 100 metric 7",
    "10.1.2.3/32 dev eth0 src 10.0.0.9 scope host",
    "blackhole 10.2.0.0/16",
    "prohibit 2001:db8:1::/48 table 4294967295",
    "10.3.0.0/16 via 10.9.0.1 dev eth0 onlink",
    "10.4.0.0/16 dev eth1 no_track",
];
const RULES: [&str; 5] = [
    "inet not from 10.0.0.9/32 to 10.1.0.0/16 table 100",
    "inet6 fwmark 16/0xff iif eth0 priority 0 prohibit",
    "inet oif eth1 blackhole",
    "inet iif eth1 table 7 no_track",
    "inet6 from 2001:db8::/32 unreachable",
];

pub(crate) fn routing() -> impl Strategy<Value = (Vec<VirtualRoute>, Vec<VirtualRule>)> {
    let routes = subsequence(ROUTES.to_vec(), 0..=ROUTES.len());
    let rules = subsequence(RULES.to_vec(), 0..=RULES.len());
    (routes, rules).prop_map(|(routes, rules)| {
        let routes = routes.iter().map(|text| text.parse().unwrap());
        (
            routes.collect(),
            rules.iter().map(|text| text.parse().unwrap()).collect(),
        )
    })
}
