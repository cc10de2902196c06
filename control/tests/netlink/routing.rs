//! Routes and rules of a master.

use std::collections::BTreeSet;

use control::netlink::{LeftRouting, Requests};
use control::routing::{VirtualRoute, VirtualRule};

use super::harness::{inside, sh};

#[test]
fn routes_and_rules_come_go_and_are_recognised() {
    inside(
        "routing::routes_and_rules_come_go_and_are_recognised",
        || async {
            let requests = Requests::open().unwrap();
            let routes = [
                (
                    "10.1.0.0/16 via 10.9.0.2 src 10.9.0.1 metric 7",
                    "10.1.0.0/16 via 10.9.0.2 dev v0 proto 169 src 10.9.0.1 metric 7",
                ),
                (
                    "10.2.0.0/16 dev v0",
                    "10.2.0.0/16 dev v0 proto 169 scope link",
                ),
                (
                    "10.3.0.0/16 via 10.77.0.1 dev v0 onlink table 300",
                    "10.3.0.0/16 via 10.77.0.1 dev v0 table 300 proto 169 onlink",
                ),
                ("blackhole 10.4.0.0/16", "blackhole 10.4.0.0/16 proto 169"),
                (
                    "default via fd09::2 table 300",
                    "default via fd09::2 dev v0 table 300 proto 169",
                ),
            ];
            let rules = [
                (
                    "from 10.9.0.100 table 300 priority 50",
                    "50: from 10.9.0.100 lookup 300 proto 169",
                ),
                (
                    "inet6 not to 2001:db8::/32 fwmark 1/0xf prohibit priority 51",
                    "51: not from all to 2001:db8::/32 fwmark 0x1/0xf prohibit proto 169",
                ),
            ];
            let routes = routes.map(|(text, shown)| (text.parse::<VirtualRoute>().unwrap(), shown));
            let rules = rules.map(|(text, shown)| (text.parse::<VirtualRule>().unwrap(), shown));
            let show = || {
                let all = "ip -4 route show table all; ip -6 route show table all; ip -4 rule; ip -6 rule";
                let text = sh(all).replace('\t', " ");
                let lines = text
                    .lines()
                    .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
                lines.collect::<Vec<_>>()
            };
            let is_shown = |wanted: &str| show().iter().any(|line| line.starts_with(wanted));
            sh("ip route add 10.5.0.0/16 dev v0");
            for round in 0..2 {
                for (route, shown) in &routes {
                    assert!(requests.add_route(route).await.unwrap(), "{route}");
                    assert!(is_shown(shown), "{shown}: {:#?}", show());
                    assert!(!requests.add_route(route).await.unwrap(), "{route} twice");
                }
                for (rule, shown) in &rules {
                    assert!(requests.add_rule(rule).await.unwrap(), "{rule}");
                    assert!(is_shown(shown), "{shown}: {:#?}", show());
                    assert!(!requests.add_rule(rule).await.unwrap(), "{rule} twice");
                }
                if round == 0 {
                    for (rule, _) in &rules {
                        assert!(requests.remove_rule(rule).await.unwrap(), "{rule}");
                        assert!(!requests.remove_rule(rule).await.unwrap(), "{rule} twice");
                    }
                    for (route, _) in &routes {
                        assert!(requests.remove_route(route).await.unwrap(), "{route}");
                        assert!(
                            !requests.remove_route(route).await.unwrap(),
                            "{route} twice"
                        );
                    }
                    // That of somebody else stays as it is.
                    let others: VirtualRoute = "10.5.0.0/16 dev v0".parse().unwrap();
                    assert!(!requests.add_route(&others).await.unwrap());
                    assert!(!requests.remove_route(&others).await.unwrap());
                } else {
                    // Beside another director: those that lead over an interface of one's own.
                    let index = nix::net::if_::if_nametoindex("v0").unwrap();
                    for (within, removed, spared) in [
                        (Some(BTreeSet::new()), 0, 7),
                        (Some(BTreeSet::from([index])), 4, 3),
                        (None, 3, 0),
                    ] {
                        let left = requests.remove_left_routing(within.as_ref()).await;
                        assert_eq!(left.unwrap(), LeftRouting { removed, spared });
                    }
                }
                assert!(
                    !show().iter().any(|line| line.contains("proto 169")),
                    "{:#?}",
                    show()
                );
            }
            assert!(is_shown("10.5.0.0/16 dev v0"));
            let left = requests.remove_left_routing(None).await.unwrap();
            assert_eq!(left, LeftRouting::default());
            let nowhere: VirtualRoute = "10.6.0.0/16 via 10.77.0.1".parse().unwrap();
            let error = requests.add_route(&nowhere).await.unwrap_err().to_string();
            assert!(
                error.starts_with("cannot add the route 10.6.0.0/16 via 10.77.0.1: "),
                "{error}"
            );
        },
    );
}
