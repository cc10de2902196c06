//! What grows with the number of real servers grows with it, and not with its square:
//! `bench/scale` measures how long it takes, this finds out cheaply when it no longer holds.
//!
//! Times are of this thread's CPU, and the ratio of two sizes is judged, so that a slow or busy
//! machine does not matter.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use control::config::{self, Config};
use control::controller::{Controller, Port};
use control::event::{Action, Event, NetworkEvent, Route};
use dataplane::service::PortIndex;
use dataplane::snapshot::Snapshot;

/// Virtual servers of the two sizes, each with twenty real servers.
const FEW: usize = 20;
const MANY: usize = 8 * FEW;
/// The square would be 64 times as much.
const MOST_RATIO: f64 = 24.0;

/// The least CPU time that this thread needed in three runs.
fn least<T>(mut prepare: impl FnMut() -> T, mut run: impl FnMut(T)) -> Duration {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap();
        Duration::new(u64::try_from(time.tv_sec).unwrap(), nanoseconds)
    };
    let runs = (0..3).map(|_| {
        let prepared = prepare();
        let begin = now();
        run(prepared);
        now() - begin
    });
    runs.min().unwrap()
}

/// A file of so many virtual servers, whose real servers are hosts of their own.
fn file(services: usize, weight: u32) -> String {
    let mut text = String::new();
    for service in 0..services {
        let (high, low) = (service / 250, service % 250);
        write!(
            text,
            "[[virtual_server]]\naddress = \"10.{high}.0.{low}:80\"\nlb_algo = \"wrr\"\nlb_kind = \"DR\"\n"
        )
        .unwrap();
        for server in 1..=20 {
            let weight = if service + server == 1 { weight } else { 3 };
            write!(
                text,
                "[[virtual_server.real_server]]\naddress = \"10.{high}.{server}.{low}:80\"\nweight = {weight}\n\
                 TCP_CHECK = {{ connect_timeout = 3 }}\n"
            )
            .unwrap();
        }
    }
    text
}

fn parsed(text: &str) -> Config {
    config::parse(text, Path::new("scale.toml")).unwrap().config
}

fn controller(config: Config) -> Controller {
    let port = Port {
        number: PortIndex(0),
        index: 2,
        name: "eth0".into(),
        mac: [2, 0, 0, 0, 0, 1],
        up: true,
        gone: false,
    };
    let mut controller = Controller::new(config, vec![port]);
    controller.start(Instant::now());
    controller
}

/// The kernel tells of each real server where it is.
fn find_all(controller: &mut Controller) {
    let addresses: Vec<IpAddr> = controller.next_hops().destinations().collect();
    let now = Instant::now();
    for destination in &addresses {
        let route = Some(Route {
            index: 2,
            gateway: None,
        });
        let destination = *destination;
        black_box(controller.handle(
            Event::Route {
                destination,
                route,
                local: false,
            },
            now,
        ));
    }
    for address in addresses {
        let neighbor = NetworkEvent::Neighbor {
            index: 2,
            address,
            mac: Some([2, 0, 0, 0, 0, 9]),
        };
        let actions = controller.handle(Event::Network(neighbor), now);
        assert!(actions.contains(&Action::Publish), "{address}");
    }
}

fn assert_linear(what: &str, of: impl Fn(usize) -> Duration) {
    let (few, many) = (of(FEW), of(MANY));
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    println!("{what}: {few:?} for {FEW}, {many:?} for {MANY}: {ratio:.1} times as much");
    assert!(ratio < MOST_RATIO, "{what}: {few:?}, then {many:?}");
}

#[test]
fn cost_grows_with_the_file_and_not_with_its_square() {
    assert_linear("check", |services| {
        least(|| file(services, 3), |text| drop(black_box(parsed(&text))))
    });
    let config = |services| parsed(&file(services, 3));
    assert_linear("start", |services| {
        let config = config(services);
        least(
            || config.clone(),
            |config| drop(black_box(controller(config))),
        )
    });
    assert_linear("next hops", |services| {
        let config = config(services);
        let prepare = || controller(config.clone());
        least(prepare, |mut controller| find_all(&mut controller))
    });
    assert_linear("reload and snapshot", |services| {
        let mut controller = controller(config(services));
        let before = controller.snapshot(&Snapshot::empty());
        let ports = controller.ports().to_vec();
        let mut weight = 3;
        let prepare = || {
            weight += 1;
            parsed(&file(services, weight))
        };
        least(prepare, |config| {
            let reloaded = controller.reload(config, ports.clone(), Instant::now());
            let (changes, actions) = reloaded.unwrap();
            assert_eq!(changes.len(), 1, "{changes:?}");
            assert_eq!(actions, [Action::Publish], "nothing else is touched");
            black_box(controller.snapshot(&before));
        })
    });
}
