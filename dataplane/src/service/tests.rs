use super::*;

#[test]
fn addresses_keep_their_bytes() {
    for (text, is_v4) in [
        ("10.1.2.3", true),
        ("2001:db8::1:2", false),
        ("::", false),
        ("::2:ffff:0:1", false),
    ] {
        let ip: IpAddr = text.parse().unwrap();
        let address = Address::from(ip);
        assert_eq!(IpAddr::from(address), ip);
        assert_eq!(address.is_v4(), is_v4, "{text}");
        assert_eq!(Address::from_octets(address.octets()), address);
        assert!(address.octets().ends_with(&address.last_octets()));
    }
}

#[test]
fn thresholds_have_a_hysteresis() {
    let walk = |thresholds: Thresholds, counts: &[u32]| {
        let mut overloaded = false;
        let states = counts.iter().map(|count| {
            overloaded = thresholds.overloads(*count, overloaded);
            overloaded
        });
        states.collect::<Vec<_>>()
    };
    let [upper, lower] = [10, 4];
    let both = walk(Thresholds { upper, lower }, &[9, 10, 9, 4, 3, 9]);
    assert_eq!(both, [false, true, true, true, false, false]);
    // Without a lower one: three quarters, 7.5.
    let quarters = walk(Thresholds { upper, lower: 0 }, &[10, 8, 7]);
    assert_eq!(quarters, [true, true, false]);
    assert_eq!(walk(Thresholds::default(), &[u32::MAX]), [false]);
}

#[test]
fn networks_keep_their_leading_bits() {
    for (address, prefix, network) in [
        ("10.1.2.3", 32, "10.1.2.3"),
        ("10.1.2.3", 24, "10.1.2.0"),
        ("10.1.255.3", 17, "10.1.128.0"),
        ("10.1.2.3", 0, "0.0.0.0"),
        ("2001:db8:1:2::3", 128, "2001:db8:1:2::3"),
        ("2001:db8:1:2::3", 48, "2001:db8:1::"),
        ("2001:db8::", 0, "::"),
    ] {
        let [address, network] =
            [address, network].map(|text| Address::from(text.parse::<IpAddr>().unwrap()));
        assert_eq!(address.network(prefix), network, "{address}/{prefix}");
    }
}

#[test]
fn schedulers_display_as_they_are_named() {
    for (name, kind) in SchedulerKind::NAMES {
        assert_eq!(kind.to_string(), name);
        assert_eq!(kind.flags().count(), 0);
    }
    let flags = HashFlags {
        port: true,
        fallback: true,
    };
    let names: Vec<_> = SchedulerKind::MaglevHash(flags).flags().collect();
    assert_eq!(names, ["mh-fallback", "mh-port"]);
}

#[test]
fn service_keys_read_as_they_display() {
    for text in ["TCP 192.168.1.100:80", "UDP [2001:db8::1]:53"] {
        assert_eq!(text.parse::<ServiceKey>().unwrap().to_string(), text);
    }
    for text in ["", "TCP", "tcp 1.2.3.4:80", "TCP 1.2.3.4"] {
        assert_eq!(text.parse::<ServiceKey>(), Err(NotAServiceKey));
    }
}
