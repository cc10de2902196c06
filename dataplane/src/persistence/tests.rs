use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(50);
const SECOND: u64 = 1000;

fn templates() -> Templates {
    let templates = Templates::new(0, FlowHasher::fixed());
    templates.allocate();
    templates
}

fn key(service: u32, client: u32) -> TemplateKey {
    TemplateKey {
        service: VirtualServerId(service),
        network: Address::v4(client.to_be_bytes()),
    }
}

/// As the director does it: the template's server, or the one that a
/// scheduler chose.
fn connect(templates: &Templates, key: &TemplateKey, scheduled: u32, now: u64) -> u32 {
    let before = templates.server(key, now);
    let server = before.unwrap_or(ServerId(scheduled));
    templates.bind(key, server, before, TIMEOUT, now).server.0
}

#[test]
fn clients_are_told_apart_by_granularity() {
    let persistence = Persistence {
        timeout: TIMEOUT,
        granularity: 24,
    };
    let of = |client: [u8; 4]| persistence.key(VirtualServerId(1), Address::v4(client));
    assert_eq!(of([10, 0, 0, 1]), of([10, 0, 0, 254]));
    assert_ne!(of([10, 0, 0, 1]), of([10, 0, 1, 1]));
}

#[test]
fn a_client_stays_with_its_server_until_the_timeout() {
    let templates = templates();
    let client = key(1, 7);
    assert_eq!(connect(&templates, &client, 3, 0), 3);
    templates.release(&client, ServerId(3), SECOND);
    assert_eq!(connect(&templates, &client, 4, 49 * SECOND), 3);
    templates.release(&client, ServerId(3), 49 * SECOND);
    // Renewed by the second connection.
    assert_eq!(templates.server(&client, 98 * SECOND), Some(ServerId(3)));
    assert_eq!(templates.server(&client, 99 * SECOND), None);
    assert_eq!(connect(&templates, &client, 4, 99 * SECOND), 4);
}

#[test]
fn each_virtual_server_and_client_has_its_own() {
    let templates = templates();
    connect(&templates, &key(1, 7), 3, 0);
    assert_eq!(templates.server(&key(2, 7), 0), None);
    assert_eq!(templates.server(&key(1, 8), 0), None);
}

#[test]
fn connections_keep_a_template_alive() {
    let templates = templates();
    let client = key(1, 7);
    connect(&templates, &client, 3, 0);
    connect(&templates, &client, 3, 0);
    assert_eq!(templates.server(&client, 500 * SECOND), Some(ServerId(3)));
    templates.release(&client, ServerId(3), 500 * SECOND);
    assert_eq!(templates.server(&client, 900 * SECOND), Some(ServerId(3)));
    // IPVS looks at 50 s and every minute after: next at 950 s.
    templates.release(&client, ServerId(3), 900 * SECOND);
    assert_eq!(templates.server(&client, 949 * SECOND), Some(ServerId(3)));
    assert_eq!(templates.server(&client, 950 * SECOND), None);
}

#[test]
fn a_server_that_is_gone_is_replaced() {
    let templates = templates();
    let client = key(1, 7);
    connect(&templates, &client, 3, 0);
    let before = templates.server(&client, SECOND);
    let bound = templates.bind(&client, ServerId(4), before, TIMEOUT, SECOND);
    assert_eq!(bound.server, ServerId(4));
    // A connection of the old server ends: the new one's count stays.
    templates.release(&client, ServerId(3), SECOND);
    let mut seen = Vec::new();
    templates.for_each(SECOND, |template| seen.push(*template));
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].server, seen[0].connections), (ServerId(4), 1));
    assert_eq!(
        seen[0].remaining(2 * SECOND),
        TIMEOUT - Duration::from_secs(1)
    );
}

/// Two workers schedule a client's first two connections at once: the first
/// template stands for both.
#[test]
fn of_two_first_connections_one_decides() {
    let templates = templates();
    let client = key(1, 7);
    let first = templates.bind(&client, ServerId(3), None, TIMEOUT, 0);
    let second = templates.bind(&client, ServerId(4), None, TIMEOUT, 0);
    assert_eq!([first.server, second.server], [ServerId(3); 2]);
}

#[test]
fn workers_agree_under_contention() {
    let templates = templates();
    let choices: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let workers = [0, 1, 2, 3].map(|worker| {
            let templates = &templates;
            scope.spawn(move || {
                (0..100)
                    .map(|client| connect(templates, &key(1, client), worker, 0))
                    .collect()
            })
        });
        workers.map(|worker| worker.join().unwrap()).to_vec()
    });
    assert!(choices.windows(2).all(|pair| pair[0] == pair[1]));
    let mut connections = 0;
    templates.for_each(0, |template| connections += template.connections);
    assert_eq!(connections, 400);
}

#[test]
fn what_is_forgotten_is_scheduled_anew() {
    let templates = templates();
    let [first, second] = [key(1, 1), key(1, 2)];
    assert_eq!(connect(&templates, &first, 3, 0), 3);
    assert_eq!(connect(&templates, &second, 4, 0), 4);
    templates.forget(|template| template.server == ServerId(3));
    assert_eq!(templates.server(&first, 0), None);
    assert_eq!(templates.server(&second, 0), Some(ServerId(4)));
    // Of a connection that is older.
    templates.release(&first, ServerId(3), 0);
    assert_eq!(connect(&templates, &first, 5, 0), 5);
}

#[test]
fn without_memory_nothing_is_kept() {
    let templates = Templates::new(0, FlowHasher::fixed());
    assert_eq!(connect(&templates, &key(1, 7), 3, 0), 3);
    assert_eq!(templates.server(&key(1, 7), 0), None);
    templates.release(&key(1, 7), ServerId(3), 0);
}

/// A flood of clients: the size stays, those with connections stay longest.
#[test]
fn a_full_set_gives_way_to_new_clients() {
    let templates = templates();
    connect(&templates, &key(1, 0), 9, 0);
    let most = u32::try_from(templates.capacity()).unwrap();
    let mut evicted = 0;
    for client in 1..most * 4 {
        let bound = templates.bind(&key(1, client), ServerId(1), None, TIMEOUT, SECOND);
        templates.release(&key(1, client), ServerId(1), SECOND);
        evicted += u32::from(bound.evicted);
    }
    assert_eq!(templates.server(&key(1, 0), SECOND), Some(ServerId(9)));
    let mut kept = 0;
    templates.for_each(SECOND, |_| kept += 1);
    assert!(kept <= most);
    assert_eq!(evicted, most * 4 - kept);
}

proptest! {
    /// Against a plain map, with clients too few to fill a set.
    #[test]
    fn it_behaves_as_a_map(
        steps in prop::collection::vec((0_u32..4, 0_u32..3, 0_u64..70, any::<bool>()), 1..60),
    ) {
        let templates = templates();
        // Server, connections, end.
        let mut map: HashMap<u32, (u32, u32, u64)> = HashMap::new();
        let mut now = 0;
        for (client, server, wait, begins) in steps {
            now += wait * SECOND;
            map.retain(|_, (_, connections, end)| *connections > 0 || *end > now);
            let found = templates.server(&key(1, client), now).map(|server| server.0);
            prop_assert_eq!(found, map.get(&client).map(|known| known.0));
            if begins {
                let chosen = connect(&templates, &key(1, client), server, now);
                let known = map.entry(client).or_insert((server, 0, 0));
                known.1 += 1;
                known.2 = now + 50 * SECOND;
                prop_assert_eq!(chosen, known.0);
            } else if let Some((server, connections, end)) = map.get_mut(&client) {
                templates.release(&key(1, client), ServerId(*server), now);
                *connections = connections.saturating_sub(1);
                while *connections == 0 && *end < now {
                    *end += 60 * SECOND;
                }
            }
        }
    }
}
