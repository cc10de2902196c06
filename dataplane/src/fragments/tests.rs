use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header,
    PacketBuilder,
};
use proptest::prelude::*;

use super::*;
use crate::wire;

fn key(number: u32) -> FragmentKey {
    FragmentKey {
        source: Address::v4([10, 0, 0, 1]),
        destination: Address::v4([192, 168, 1, 100]),
        identification: number,
        protocol: 17,
    }
}

fn table(datagrams: usize) -> FragmentTable<u64> {
    FragmentTable::new(FragmentOptions {
        datagrams,
        ..FragmentOptions::default()
    })
}

#[test]
fn an_attack_is_bounded_and_counted() {
    let mut table = table(1024);
    let evicted = (0..100_000).filter(|number| table.insert(key(*number), 1, 0));
    let evicted = evicted.count();
    assert_eq!(table.decisions.len(), 1024);
    let kept = (0..100_000).filter(|number| table.get(&key(*number), 0).is_some());
    assert_eq!(100_000 - kept.count(), evicted);
    assert!(evicted >= 100_000 - 1024);

    // After it, the table serves as before.
    assert!(!table.insert(key(7), 77, 30_000));
    assert_eq!(table.get(&key(7), 30_001), Some(77));
}

#[test]
fn later_fragments_go_where_the_first_went_until_the_timeout() {
    let mut table = table(64);
    table.insert(key(1), 11, 0);
    table.insert(key(2), 22, 10);
    assert_eq!(table.get(&key(1), 29_999), Some(11));
    assert_eq!(table.get(&key(1), 30_000), None);
    assert_eq!(table.get(&key(2), 30_000), Some(22));
    assert_eq!(table.get(&key(3), 0), None);
}

#[test]
fn a_first_fragment_that_comes_twice_takes_one_place() {
    let mut table = table(8);
    for time in 0..100 {
        assert!(!table.insert(key(1), 11, time));
    }
    for other in 2..=8 {
        assert!(!table.insert(key(other), u64::from(other), 100));
    }
    table.insert(key(1), 12, 100);
    assert_eq!(table.get(&key(1), 100), Some(12));
}

#[test]
fn the_oldest_decision_goes_first() {
    let mut table = table(WAYS); // one set
    let evicted = (0..10).filter(|number| table.insert(key(*number), 1, u64::from(*number)));
    assert_eq!(evicted.count(), 2);
    let kept: Vec<u32> = (0..10)
        .filter(|number| table.get(&key(*number), 10).is_some())
        .collect();
    assert_eq!(kept, [2, 3, 4, 5, 6, 7, 8, 9]);
}

/// Those that the last fragment overtook have a second.
#[test]
fn a_datagram_that_has_passed_is_kept_for_a_second() {
    let mut table = table(64);
    table.insert(key(1), 11, 0);
    table.pass(&key(1), 100);
    assert_eq!(table.get(&key(1), 1099), Some(11));
    // Its last fragment, sent again, keeps nothing longer.
    table.pass(&key(1), 1099);
    assert_eq!(table.get(&key(1), 1099), Some(11));
    assert_eq!(table.get(&key(1), 1100), None);
    // Nor does one at the end of its time.
    table.insert(key(2), 22, 0);
    table.pass(&key(2), 29_900);
    assert_eq!(table.get(&key(2), 30_000), None);
    // Its number is used again: another datagram.
    table.insert(key(1), 12, 2000);
    assert_eq!(table.get(&key(1), 20_000), Some(12));
    // Of an unknown one there is nothing to keep.
    table.pass(&key(3), 2000);
    assert_eq!(table.get(&key(3), 2000), None);
}

#[test]
fn what_gives_way_and_has_passed_is_no_eviction() {
    let mut table = table(WAYS); // one set
    for number in 0..100_000 {
        let now = u64::from(number) / 100;
        assert!(!table.insert(key(number), 1, now), "{number}");
        table.pass(&key(number), now);
    }
    // One that goes on is older than all, and stays.
    table.insert(key(100_000), 2, 1000);
    for number in 100_001..100_100 {
        assert!(!table.insert(key(number), 1, 30_500));
        table.pass(&key(number), 30_500);
    }
    assert_eq!(table.get(&key(100_000), 30_500), Some(2));
}

proptest! {
    #[test]
    fn the_last_fragment_says_so(is_v4 in any::<bool>(), offset in 1_u16..1000) {
        let frame = if is_v4 { v4(1, offset, 1) } else { v6(1, offset, 1) };
        let parsed = wire::parse(&frame).unwrap();
        let last = |frame: &[u8]| is_last(frame, parsed.l3_offset, is_v4);
        prop_assert!(!last(&frame));
        let mut ends = frame.clone();
        // `MF`; for IPv6 the lowest bit of the offset's second byte, behind 8 bytes of options.
        let (byte, bit) = if is_v4 { (14 + 6, 0x20) } else { (14 + 40 + 8 + 3, 1) };
        ends[byte] ^= bit;
        prop_assert!(last(&ends));
        prop_assert!(!last(&frame[..20]));
    }

    #[test]
    fn fragments_of_a_datagram_have_one_key_and_others_have_another(
        [first_id, second_id] in any::<[u32; 2]>(),
        is_v4 in any::<bool>(),
        later in 1_u16..1000,
    ) {
        let key_of = |id: u32, offset: u16, source: u8| {
            let frame = if is_v4 { v4(id, offset, source) } else { v6(id, offset, source) };
            let parsed = wire::parse(&frame).unwrap();
            FragmentKey::new(&frame, &parsed).unwrap()
        };
        prop_assert_eq!(key_of(first_id, 0, 1), key_of(first_id, later, 1));
        prop_assert_ne!(key_of(first_id, 0, 1), key_of(first_id, later, 2));
        let same = if is_v4 { first_id & 0xffff == second_id & 0xffff } else { first_id == second_id };
        prop_assert_eq!(key_of(first_id, 0, 1) == key_of(second_id, later, 1), same);
    }
}

fn v4(id: u32, offset: u16, source: u8) -> Vec<u8> {
    let header = Ipv4Header {
        identification: (id & 0xffff) as u16,
        dont_fragment: false,
        more_fragments: true,
        fragment_offset: IpFragOffset::try_new(offset).unwrap(),
        time_to_live: 64,
        source: [10, 0, 0, source],
        destination: [192, 168, 1, 100],
        ..Ipv4Header::default()
    };
    written(IpHeaders::Ipv4(header, Default::default()))
}

/// With destination options in front of the fragment header.
fn v6(id: u32, offset: u16, source: u8) -> Vec<u8> {
    let options = etherparse::Ipv6RawExtHeader::new_raw(
        IpNumber::IPV6_FRAGMENTATION_HEADER,
        &[1, 4, 0, 0, 0, 0],
    );
    let offset = IpFragOffset::try_new(offset).unwrap();
    let extensions = Ipv6Extensions {
        hop_by_hop_options: Some(options.unwrap()),
        fragment: Some(Ipv6FragmentHeader::new(IpNumber::UDP, offset, true, id)),
        ..Ipv6Extensions::default()
    };
    let header = Ipv6Header {
        hop_limit: 64,
        source: [0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, source],
        destination: [0x20; 16],
        ..Ipv6Header::default()
    };
    written(IpHeaders::Ipv6(header, extensions))
}

fn written(ip: IpHeaders) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [2; 6])
        .ip(ip)
        .write(&mut frame, IpNumber::UDP, &[0, 1, 0, 2, 0, 40, 0, 0])
        .unwrap();
    frame
}
