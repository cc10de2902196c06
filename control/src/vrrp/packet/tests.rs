use super::*;
use proptest::prelude::*;

fn v4(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn datagram(advert: &Advert, source: &str, destination: &str) -> Datagram {
    let (source, destination) = (v4(source), v4(destination));
    Datagram {
        source,
        destination,
        ttl: TTL,
        message: advert.emit(source, destination),
        ah: None,
    }
}

fn v2() -> Advert {
    Advert {
        version: Version::V2,
        virtual_router_id: 51,
        priority: 100,
        advert_int: Duration::from_secs(1),
        authentication: Authentication::password("1111"),
        addresses: vec![v4("192.168.1.100")],
    }
}

fn v3(addresses: &[&str]) -> Advert {
    Advert {
        version: Version::V3,
        advert_int: Duration::from_millis(100),
        authentication: Authentication::None,
        addresses: addresses.iter().map(|text| v4(text)).collect(),
        ..v2()
    }
}

fn expected(advert: &Advert) -> Expected {
    Expected {
        version: advert.version,
        advert_int: advert.advert_int,
        authentication: advert.authentication,
        peers: Vec::new(),
        addresses: advert.addresses.clone(),
    }
}

fn hex(text: &str) -> Vec<u8> {
    let bytes = text.split_whitespace();
    bytes
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

/// Recorded from keepalived 2.2.7: we read them, and would send the same.
#[test]
fn as_keepalived_sends_them() {
    let v2 = Advert {
        priority: 50,
        addresses: vec![v4("10.77.0.100")],
        ..v2()
    };
    let over_ipv4 = Advert {
        priority: 150,
        ..v3(&["10.77.0.100"])
    };
    let over_ipv6 = Advert {
        virtual_router_id: 52,
        priority: 99,
        advert_int: Duration::from_millis(250),
        ..v3(&["fe80::51", "fd77::100"])
    };
    let (here, link_local) = ("10.77.0.3", "fe80::2825:9fff:feff:b7b8");
    let cases = [
        (
            v2,
            here,
            "21 33 32 01 01 01 3e b7 0a 4d 00 64 31 31 31 31 00 00 00 00",
        ),
        (over_ipv4, here, "31 33 96 01 00 0a 43 31 0a 4d 00 64"),
        (
            over_ipv6,
            link_local,
            "31 34 63 02 00 19 f1 5a fe 80 00 00 00 00 00 00 00 00 00 00 00 00 00 51 \
             fd 77 00 00 00 00 00 00 00 00 00 00 00 00 01 00",
        ),
    ];
    for (advert, source, bytes) in cases {
        let group = if source == here {
            "224.0.0.18"
        } else {
            "ff02::12"
        };
        let sent = datagram(&advert, source, group);
        assert_eq!(sent.message, hex(bytes), "{advert:?}");
        assert_eq!(Advert::parse(&sent), Ok(advert));
    }
}

#[test]
fn old_checksum_over_ipv4_is_accepted() {
    let mut old = datagram(&v3(&["10.0.0.9"]), "10.0.0.1", "224.0.0.18");
    old.message[6..8].fill(0);
    let checksum = Sum::ZERO.bytes(&old.message).checksum();
    old.message[6..8].copy_from_slice(&checksum.to_be_bytes());
    assert!(Advert::parse(&old).is_ok());
}

#[test]
fn over_ipv6_only_version_3() {
    let good = datagram(&v3(&["fe80::9", "fd00::9"]), "fe80::1", "ff02::12");
    assert_eq!(
        Advert::parse(&good),
        Ok(v3(&["fe80::9", "fd00::9"])),
        "round trip"
    );
    let mut old = good;
    old.message[0] = 0x21;
    assert_eq!(
        Advert::parse(&old),
        Err(Refusal::Version {
            found: 2,
            expected: 3
        })
    );
}

#[test]
fn refusals() {
    let good = datagram(&v2(), "10.0.0.1", "224.0.0.18");
    let wants = expected(&v2());
    let advert = Advert::parse(&good).unwrap();
    assert_eq!(wants.check(&advert, &good), Ok(()));
    assert!(wants.same_addresses(&advert));

    let cut = Datagram {
        message: good.message[..19].to_vec(),
        ..good.clone()
    };
    let (found, expected_length) = (19, 20);
    assert_eq!(
        Advert::parse(&cut),
        Err(Refusal::Truncated {
            found,
            expected: expected_length
        })
    );
    for place in 1..good.message.len() {
        let mut damaged = good.clone();
        damaged.message[place] ^= 0x10;
        assert!(Advert::parse(&damaged).is_err(), "byte {place}");
    }
    let mut kind = good.clone();
    kind.message[0] = 0x22;
    assert_eq!(Advert::parse(&kind), Err(Refusal::Type(2)));

    let check = |advert: &Advert, datagram: &Datagram| {
        wants
            .check(advert, datagram)
            .map_err(|refusal| refusal.name())
    };
    let routed = Datagram {
        ttl: 254,
        ..good.clone()
    };
    assert_eq!(check(&v2(), &routed), Err("ttl"));
    let password = Advert {
        authentication: Authentication::password("1112"),
        ..v2()
    };
    assert_eq!(check(&password, &good), Err("password"));
    let none = Advert {
        authentication: Authentication::None,
        ..v2()
    };
    assert_eq!(check(&none, &good), Err("auth_type"));
    let slow = Advert {
        advert_int: Duration::from_secs(2),
        ..v2()
    };
    assert_eq!(check(&slow, &good), Err("advert_int"));
    assert_eq!(check(&v3(&["10.0.0.9"]), &good), Err("version"));
}

#[test]
fn unicast_peers() {
    let peer = Peer {
        address: v4("10.0.0.1"),
        min_ttl: 250,
        max_ttl: 255,
    };
    let wants = Expected {
        peers: vec![peer],
        ..expected(&v2())
    };
    let from = |source: &str, ttl| {
        let good = datagram(&v2(), source, "10.0.0.2");
        wants
            .check(&v2(), &Datagram { ttl, ..good })
            .map_err(|refusal| refusal.name())
    };
    assert_eq!(from("10.0.0.1", 255), Ok(()));
    assert_eq!(from("10.0.0.1", 250), Ok(()));
    assert_eq!(from("10.0.0.1", 249), Err("ttl"));
    assert_eq!(from("10.0.0.3", 255), Err("not_a_peer"));
}

#[test]
fn no_password_in_a_log() {
    let text = format!("{:?} {:?}", v2(), expected(&v2()));
    assert!(text.contains("PASS") && !text.contains("49"), "{text}");
    let long = Authentication::password("123456789");
    assert!(long == Authentication::password("12345678"));
}

proptest! {
    #[test]
    fn round_trip(
        is_v2: bool, is_v6: bool, router in 1_u8.., priority: u8, interval in 1_u16..=4095,
        numbers in prop::collection::vec(any::<u32>(), 0..20), password in "[a-z]{0,8}",
    ) {
        let is_v6 = is_v6 && !is_v2;
        let address = |number: &u32| if is_v6 {
            IpAddr::from(std::net::Ipv6Addr::from(u128::from(*number)))
        } else {
            IpAddr::from(std::net::Ipv4Addr::from(*number))
        };
        let advert = Advert {
            version: if is_v2 { Version::V2 } else { Version::V3 },
            virtual_router_id: router,
            priority,
            advert_int: if is_v2 {
                Duration::from_secs(u64::from(interval % 256))
            } else {
                Duration::from_millis(u64::from(interval) * 10)
            },
            authentication: if is_v2 {
                Authentication::password(&password)
            } else {
                Authentication::None
            },
            addresses: numbers.iter().map(address).collect(),
        };
        let (source, group) = if is_v6 { ("fe80::1", "ff02::12") } else { ("10.0.0.1", "224.0.0.18") };
        prop_assert_eq!(Advert::parse(&datagram(&advert, source, group)), Ok(advert));
    }

    #[test]
    fn no_bytes_cause_a_panic(message in prop::collection::vec(any::<u8>(), 0..100), is_v6: bool, first in 0_usize..3) {
        let mut message = message;
        if let Some(kind) = message.first_mut() && first > 0 {
            *kind = [0x21, 0x31][first - 1];
        }
        let source = v4(if is_v6 { "fe80::1" } else { "10.0.0.1" });
        let datagram = Datagram { source, destination: source, ttl: 255, message, ah: None };
        if let Ok(advert) = Advert::parse(&datagram) {
            let _ = expected(&v2()).check(&advert, &datagram);
        }
    }
}
