//! The table against a model, in simulated time.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::flow::{FlowHasher, FlowKey};
use crate::service::{Address, GatewayId, Protocol, ServerId};

fn key(client: u16) -> FlowKey {
    FlowKey::new(
        Address::v4([10, 0, 0, 1]),
        client,
        Address::v4([10, 0, 0, 2]),
        80,
        Protocol::Tcp,
    )
}

fn table(capacity: u32) -> ConnectionTable {
    ConnectionTable::new(capacity, FlowHasher::fixed(), &Timeouts::default())
}

fn insert(
    table: &mut ConnectionTable,
    client: u16,
    state: State,
    now: u64,
) -> Result<EntryIndex, TableFull> {
    let key = key(client);
    let new = New {
        server: ServerId(u32::from(client)),
        state,
        reply: None,
        templated: false,
        for_one_packet: false,
    };
    table.insert(table.place(&key), key, new, now)
}

fn find(table: &ConnectionTable, client: u16) -> Option<EntryIndex> {
    let key = key(client);
    let (entry, direction) = table.find(table.place(&key), &key)?;
    assert_eq!(direction, Direction::Request);
    Some(entry)
}

/// A translated connection is found by either key until it is removed, whatever else is there.
#[test]
fn translated_connections_are_found_both_ways() {
    let mut table = table(1000);
    table.translate_replies();
    let reply_key = |client| {
        let server = Address::v4([10, 0, 0, 3]);
        FlowKey::new(
            server,
            8080,
            Address::v4([10, 0, 0, 1]),
            client,
            Protocol::Tcp,
        )
    };
    for client in 0..1000 {
        let reply = (client % 2 == 0).then(|| Reply {
            key: reply_key(client),
            ..Reply::default()
        });
        let new = New {
            server: ServerId(client.into()),
            state: State::Established,
            reply,
            templated: false,
            for_one_packet: false,
        };
        let key = key(client);
        table.insert(table.place(&key), key, new, 0).unwrap();
    }
    let both = |table: &ConnectionTable, client| {
        let (request, reply) = (key(client), reply_key(client));
        [request, reply].map(|key| table.find(table.place(&key), &key))
    };
    for client in 0..1000 {
        let [request, reply] = both(&table, client);
        let (entry, direction) = request.unwrap();
        assert_eq!(direction, Direction::Request);
        assert_eq!(reply.is_some(), client % 2 == 0);
        if let Some(reply) = reply {
            assert_eq!(reply, (entry, Direction::Reply));
            let candidate = table
                .lookup()
                .candidate::<true>(table.place(&reply_key(client)), || ());
            let found = table.translated(candidate, &reply_key(client));
            // A rival with the same tag may be the candidate instead.
            if let Some((entry, _, direction)) = found {
                assert_eq!(table.get(entry).key(), key(client));
                assert_eq!(direction, Direction::Reply);
            }
        }
        table.remove(entry);
        assert_eq!(both(&table, client), [None, None]);
    }
    assert!(table.is_empty());
}

#[test]
fn replies_of_any_connection_get_another_way() {
    let mut table = table(10);
    table.translate_replies();
    table.translate_wide_replies();
    let wide = |port| {
        let [client, service] = [1, 2].map(|number| Address::from_octets([0xfd ^ number; 16]));
        FlowKey::new(client, port, service, 80, Protocol::Tcp)
    };
    for keys in [[key(1), key(2)], [wide(1), wide(2)]] {
        let new = New {
            server: ServerId(1),
            state: State::Established,
            reply: Some(Reply {
                key: keys[1],
                ..Reply::default()
            }),
            templated: false,
            for_one_packet: false,
        };
        let entry = table
            .insert(table.place(&keys[0]), keys[0], new, 0)
            .unwrap();
        let way = Way::Gateway(GatewayId(7));
        table.set_way(entry, way);
        assert_eq!(table.get(entry).key(), keys[0]);
        assert_eq!(table.reply(entry).map(|reply| reply.way), Some(way));
    }
}

/// Nothing that only its keys say goes on by a connection that ends with its first packet.
#[test]
fn a_connection_for_one_packet_takes_no_second_one() {
    let mut table = table(10);
    table.translate_replies();
    let own = key(1);
    let reply = Reply {
        key: key(2),
        ..Reply::default()
    };
    let new = New {
        server: ServerId(1),
        state: State::Udp,
        reply: Some(reply),
        templated: false,
        for_one_packet: true,
    };
    table.insert(table.place(&own), own, new, 0).unwrap();
    let candidate = table.lookup().candidate::<true>(table.place(&own), || ());
    assert!(table.translated(candidate, &own).is_none());
}

/// Removes all that has expired, with the smallest budget, and names it.
fn expire(table: &mut ConnectionTable, now: u64) -> Vec<u32> {
    let mut gone = Vec::new();
    let mut idle = 0;
    while idle < 2000 {
        match table.expired(now, &mut 1) {
            Some(entry) => gone.push(table.remove(entry).server().0),
            None => idle += 1,
        }
    }
    gone
}

#[test]
fn a_million_connections_take_less_than_100_mb() {
    let table = table(1_000_000);
    assert!(table.memory() <= 100_000_000, "{} bytes", table.memory());
    assert_eq!(table.capacity(), 1_000_000);
}

#[test]
fn fills_to_its_capacity_and_not_further() {
    let mut table = table(1000);
    for client in 0..1000 {
        insert(&mut table, client, State::Established, 0).unwrap();
    }
    assert_eq!(
        insert(&mut table, 1000, State::Established, 0),
        Err(TableFull)
    );
    assert!((0..1000).all(|client| find(&table, client).is_some()));
    assert_eq!(
        table.oldest_evictable(30),
        None,
        "established connections are not evicted"
    );
    let entry = find(&table, 500).unwrap();
    assert_eq!(table.remove(entry).server(), ServerId(500));
    assert_eq!(find(&table, 500), None);
    insert(&mut table, 1000, State::Established, 0).unwrap();
    assert_eq!(table.len(), 1000);
    assert_eq!(table.scan(0, usize::MAX).count(), 1000);
}

#[test]
fn every_state_expires_at_its_timeout_and_within_a_slot() {
    for (state, timeout) in [
        (State::SynRecv, 60_000),
        (State::Established, 900_000),
        (State::FinWait, 120_000),
        (State::TimeWait, 120_000),
        (State::Close, 10_000),
        (State::Udp, 300_000),
    ] {
        let start = 123_456_789;
        let mut table = table(10);
        expire(&mut table, start);
        insert(&mut table, 1, state, start).unwrap();
        // As a worker does: time passes in small steps.
        for now in (start..start + timeout).step_by(50) {
            assert_eq!(
                table.expired(now, &mut 64),
                None,
                "{state} after {} ms",
                now - start
            );
        }
        assert_eq!(expire(&mut table, start + timeout + 512), [1], "{state}");
        assert!(table.is_empty());
    }
}

#[test]
fn a_refresh_keeps_it_alive_and_a_shorter_state_moves_the_timer() {
    let mut table = table(10);
    let entry = insert(&mut table, 1, State::Established, 0).unwrap();
    for minute in 1..60 {
        table.get_mut(entry).refresh(minute * 60_000);
        assert!(expire(&mut table, minute * 60_000).is_empty());
    }
    let now = 3_600_000;
    table.set_state(entry, State::Close, now);
    assert!(expire(&mut table, now + 9_999).is_empty());
    assert_eq!(expire(&mut table, now + 10_512), [1]);
}

#[test]
fn the_oldest_evictable_is_the_one_that_was_silent_longest() {
    let mut table = table(10);
    let first = insert(&mut table, 1, State::SynRecv, 0).unwrap();
    let second = insert(&mut table, 2, State::SynRecv, 10).unwrap();
    assert_eq!(table.oldest_evictable(30), Some(first));
    table.set_state(first, State::SynRecv, 20); // the SYN again
    assert_eq!(table.oldest_evictable(30), Some(second));
    table.set_state(second, State::Established, 30);
    assert_eq!(table.oldest_evictable(30), Some(first));
}

#[test]
fn a_pause_of_days_loses_no_timer() {
    let mut table = table(100);
    for client in 0..100 {
        insert(&mut table, client, State::Udp, u64::from(client) * 1000).unwrap();
    }
    assert_eq!(expire(&mut table, 3 * 24 * 3600 * 1000).len(), 100);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, State),
    State(u16, State),
    Refresh(u16),
    Remove(u16),
    Wait(u64),
}

fn state() -> impl Strategy<Value = State> {
    prop::sample::select(State::all().to_vec())
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0_u16..40;
    prop_oneof![
        4 => (client.clone(), state()).prop_map(|(client, state)| Step::Insert(client, state)),
        2 => (client.clone(), state()).prop_map(|(client, state)| Step::State(client, state)),
        2 => client.clone().prop_map(Step::Refresh),
        1 => client.prop_map(Step::Remove),
        2 => (0_u64..200_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens, the table holds what the model holds, and nothing
    /// expires early or more than a slot and a half late.
    #[test]
    fn agrees_with_a_model(steps in prop::collection::vec(step(), 1..300)) {
        let timeouts = Timeouts::default().by_state();
        let mut table = table(32);
        let mut model: HashMap<u16, (State, u64)> = HashMap::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Insert(client, state) if !model.contains_key(&client) => {
                    let inserted = insert(&mut table, client, state, now).is_ok();
                    prop_assert_eq!(inserted, model.len() < 32);
                    if inserted {
                        model.insert(client, (state, now));
                    }
                }
                Step::State(client, state) if model.contains_key(&client) => {
                    table.set_state(find(&table, client).unwrap(), state, now);
                    model.insert(client, (state, now));
                }
                Step::Refresh(client) if model.contains_key(&client) && !model[&client].0.is_half_open() => {
                    let entry = find(&table, client).unwrap();
                    table.get_mut(entry).refresh(now);
                    model.get_mut(&client).unwrap().1 = now;
                }
                Step::Remove(client) if model.contains_key(&client) => {
                    table.remove(find(&table, client).unwrap());
                    model.remove(&client);
                }
                Step::Wait(time) => {
                    now += time;
                    for client in expire(&mut table, now) {
                        let client = u16::try_from(client).unwrap();
                        let (state, seen) = model.remove(&client).unwrap();
                        prop_assert!(now - seen >= u64::from(timeouts[state.index()]));
                    }
                    for (state, seen) in model.values() {
                        prop_assert!(now - seen <= u64::from(timeouts[state.index()]) + 512);
                    }
                }
                Step::Insert(..) | Step::State(..) | Step::Refresh(_) | Step::Remove(_) => {}
            }
            prop_assert_eq!(table.len() as usize, model.len());
            for (client, (state, _)) in &model {
                let entry = find(&table, *client).unwrap();
                prop_assert_eq!(table.get(entry).state(), *state);
            }
        }
    }
}
