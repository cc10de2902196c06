use super::{VirtualRoute, VirtualRule};

#[test]
fn routes_in_the_words_of_ip_route_and_keepalived() {
    let cases = [
        ("10.1.0.0/16 via 10.0.0.1", "10.1.0.0/16 via 10.0.0.1"),
        ("to 10.1.0.0/16 gw 10.0.0.1", "10.1.0.0/16 via 10.0.0.1"),
        (
            "src 10.0.0.9 to 10.1.0.0/16 via 10.0.0.1 dev eth1",
            "10.1.0.0/16 via 10.0.0.1 dev eth1 src 10.0.0.9",
        ),
        ("default via 10.0.0.1", "0.0.0.0/0 via 10.0.0.1"),
        ("default via fe80::1 dev eth0", "::/0 via fe80::1 dev eth0"),
        ("10.1.2.3 dev eth0", "10.1.2.3/32 dev eth0"),
        (
            "blackhole 10.1.0.0/16 metric 7",
            "blackhole 10.1.0.0/16 metric 7",
        ),
        (
            "10.1.0.0/16 via 10.9.0.1 dev eth0 table main scope link preference 3 onlink",
            "10.1.0.0/16 via 10.9.0.1 dev eth0 metric 3 scope link onlink",
        ),
        (
            "10.1.0.0/16 no_track dev eth1",
            "10.1.0.0/16 dev eth1 no_track",
        ),
        (
            "0.0.0.0/0 gw 10.0.0.1 table 100",
            "0.0.0.0/0 via 10.0.0.1 table 100",
        ),
    ];
    for (text, expected) in cases {
        let route: VirtualRoute = text.parse().unwrap();
        assert_eq!(route.to_string(), expected, "{text}");
        assert_eq!(expected.parse(), Ok(route), "{text}");
    }
}

#[test]
fn what_is_no_route() {
    let cases = [
        ("", "a destination"),
        ("via 10.0.0.1", "a destination"),
        ("10.1.0.0/8 via 10.0.0.1", "10.0.0.0/8, without bits"),
        ("10.1.0.0/16 via", "an IP address after via"),
        ("10.1.0.0/16 via fe80::1", "one IP version"),
        ("10.1.0.0/16 10.2.0.0/16", "not \"10.2.0.0/16\""),
        ("10.1.0.0/16 via 10.0.0.1 nexthop", "not \"nexthop\""),
        ("10.1.0.0/16 dev a/b", "the name of an interface"),
        ("10.1.0.0/16 table small", "the number of a table"),
        ("10.1.0.0/16 table 0", "the number of a table"),
        ("10.1.0.0/16 scope near", "after scope"),
        ("blackhole 10.1.0.0/16 via 10.0.0.1", "neither via nor dev"),
        ("10.1.0.0/16 via 10.0.0.1 onlink", "via and dev"),
    ];
    for (text, expected) in cases {
        let error = text.parse::<VirtualRoute>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn rules_in_the_words_of_ip_rule_and_keepalived() {
    let cases = [
        ("from 10.0.0.9 table 100", "inet from 10.0.0.9/32 table 100"),
        (
            "not to 10.1.0.0/16 iif eth0 lookup main pref 7",
            "inet not to 10.1.0.0/16 iif eth0 priority 7 table 254",
        ),
        (
            "inet6 fwmark 0x10/255 prohibit",
            "inet6 fwmark 16/0xff prohibit",
        ),
        (
            "from all oif eth1 blackhole order 3",
            "inet oif eth1 priority 3 blackhole",
        ),
        (
            "no_track iif eth1 table 5",
            "inet iif eth1 table 5 no_track",
        ),
        ("to 2001:db8::/32 table 5", "inet6 to 2001:db8::/32 table 5"),
    ];
    for (text, expected) in cases {
        let rule: VirtualRule = text.parse().unwrap();
        assert_eq!(rule.to_string(), expected, "{text}");
        assert_eq!(expected.parse(), Ok(rule), "{text}");
    }
}

#[test]
fn what_is_no_rule() {
    let cases = [
        ("", "what to do"),
        ("from 10.0.0.9", "what to do"),
        ("from", "an address"),
        ("from 10.0.0.9 to fe80::1 table 1", "one IP version"),
        ("inet6 from 10.0.0.9 table 1", "one IP version"),
        ("fwmark x table 1", "MARK or MARK/MASK"),
        ("table 1 blackhole", "one of table"),
        ("tos 4 table 1", "not \"tos\""),
        ("priority table 1", "a number after priority"),
    ];
    for (text, expected) in cases {
        let error = text.parse::<VirtualRule>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}
