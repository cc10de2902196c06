//! What holds for every configuration, and for every text.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "config_properties/health.rs"]
mod health;
#[path = "config_properties/notifications.rs"]
mod notifications;
#[path = "config_properties/routing.rs"]
mod routing;
#[path = "config_properties/services.rs"]
mod services;
#[path = "config_properties/tracks.rs"]
mod tracks;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use control::config::{
    Appliance, AuthType, Authentication, Config, Idle, Interface, Notify, Queues, Tracked, Tracks,
    VirtualAddress, Vmac, VrrpDefaults, VrrpInstance, VrrpScript, VrrpState, VrrpSyncGroup,
    XdpMode, parse, to_toml,
};
use control::scripts::Policy;
use control::vrrp::machine::Garp;
use control::vrrp::packet::{Peer, Version};
use dataplane::bpf::Prefix;
use dataplane::conn::Timeouts;
use dataplane::limits::WhenFull;
use dataplane::service::TcpMidstream;
use dataplane::snapshot::Expiry;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use health::{script, script_user};
use notifications::{alert, notifications};
use routing::routing;
use services::virtual_servers;
use tracks::{Trackable, files, processes};

fn time() -> impl Strategy<Value = Duration> {
    let micros = prop_oneof![
        1_000_u64..3_600_000_000,
        (1_u64..3600).prop_map(|s| s * 1_000_000)
    ];
    micros.prop_map(Duration::from_micros)
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9\"'\\\\ #=ü漢]{0,12}x"
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9\"'\\\\#=.ü-]{1,12}"
}

fn interface_name() -> impl Strategy<Value = String> {
    "[a-z\"#]{1,8}[0-9.-]{1,7}"
}

/// Hosts of one IP version, all different.
fn host(is_v4: bool, number: u32) -> IpAddr {
    if is_v4 {
        Ipv4Addr::from(0x0a00_0000 | number).into()
    } else {
        Ipv6Addr::from((0x2001_0db8 << 96) | u128::from(number)).into()
    }
}

fn appliance() -> impl Strategy<Value = Appliance> {
    let timeouts = proptest::array::uniform24(time());
    let timeouts = timeouts.prop_map(|t| Timeouts {
        established: t[0],
        syn_sent: t[1],
        syn_recv: t[2],
        fin_wait: t[3],
        time_wait: t[4],
        close: t[5],
        close_wait: t[6],
        last_ack: t[7],
        listen: t[8],
        synack: t[9],
        udp: t[10],
        sctp: std::array::from_fn(|state| t[11 + state]),
    });
    let midstream = select(vec![
        TcpMidstream::Reset,
        TcpMidstream::Drop,
        TcpMidstream::Schedule,
    ]);
    let idle = select(vec![Idle::Adaptive, Idle::Busy, Idle::Interrupt]);
    let expiry =
        (any::<bool>(), any::<bool>()).prop_map(|(nodest_conn, quiescent_template)| Expiry {
            nodest_conn,
            quiescent_template,
        });
    let cores = (btree_set(0_usize..1024, 0..4), option::of(4_u32..=1024));
    // Nor has a virtual server this address.
    let http = option::of((1_u16..).prop_map(|port| ([127, 0, 0, 9], port).into()));
    // No real server of these properties is in them.
    let prefix = prop_oneof![
        any::<u8>().prop_map(|last| format!("192.0.2.{last}")),
        (1_u16..).prop_map(|part| format!("2001:db8:{part:x}::/48")),
    ];
    let prefixes = btree_set(
        prefix.prop_map(|text| text.parse::<Prefix>().unwrap()),
        0..6,
    );
    let prefixes = (prefixes, 0_usize..6).prop_map(|(all, middle)| {
        let all: Vec<_> = all.into_iter().collect();
        let (deny, allow) = all.split_at(middle.min(all.len()));
        (deny.to_vec(), allow.to_vec())
    });
    (
        text(),
        1_u32..=1 << 27,
        midstream,
        cores,
        idle,
        (
            prefixes,
            expiry,
            select(vec![WhenFull::EvictHalfOpen, WhenFull::DropNew]),
            http,
        ),
        timeouts,
    )
        .prop_map(
            |(
                path,
                max_connections,
                tcp_midstream,
                (cores, workers),
                idle,
                ((deny, allow), expiry, when_full, http),
                timeouts,
            )| {
                Appliance {
                    control_socket: format!("/run/{path}").into(),
                    http,
                    http_token_file: http.map(|_| format!("/etc/{path}").into()),
                    max_connections,
                    tcp_midstream,
                    cores: cores.into_iter().collect(),
                    workers,
                    idle,
                    deny,
                    allow,
                    expiry,
                    when_full,
                    timeouts,
                }
            },
        )
}

fn interfaces() -> impl Strategy<Value = Vec<Interface>> {
    let list = btree_set(0_u32..4096, 1..4).prop_map(|q| Queues::List(q.into_iter().collect()));
    let queues = prop_oneof![Just(Queues::All), list];
    let mode = select(vec![
        XdpMode::Auto,
        XdpMode::ZeroCopy,
        XdpMode::Copy,
        XdpMode::Generic,
    ]);
    btree_map(interface_name(), (queues, mode), 0..3).prop_map(|interfaces| {
        let interface = |(name, (queues, mode))| Interface { name, queues, mode };
        interfaces.into_iter().map(interface).collect()
    })
}

fn notify() -> impl Strategy<Value = Notify> {
    let told = || option::of(script());
    let all = (told(), told(), told(), told(), told(), alert());
    all.prop_map(|(master, backup, fault, stop, any, smtp_alert)| Notify {
        master,
        backup,
        fault,
        stop,
        any,
        smtp_alert,
    })
}

fn scripts() -> impl Strategy<Value = Vec<VrrpScript>> {
    let count = 1_u32..=i32::MAX.unsigned_abs();
    let rest = (time(), time(), count.clone(), count, any::<bool>());
    btree_map(text(), (script(), rest, -253_i16..=253), 0..3).prop_map(|scripts| {
        let script = |(name, (script, rest, weight))| {
            let (interval, timeout, rise, fall, init_fail) = rest;
            VrrpScript {
                name,
                script,
                interval,
                timeout,
                rise,
                fall,
                init_fail,
                weight,
            }
        };
        scripts.into_iter().map(script).collect()
    })
}

fn virtual_addresses(
    is_v4: bool,
    numbers: std::ops::Range<u32>,
) -> impl Strategy<Value = Vec<VirtualAddress>> {
    let label = if is_v4 {
        option::of("[a-z0-9:]{1,15}").boxed()
    } else {
        Just(None).boxed()
    };
    let longest = if is_v4 { 32 } else { 128 };
    let scope = option::of(select(vec![0_u8, 200, 253, 254]));
    let rest = (
        1_u8..=longest,
        option::of(interface_name()),
        label,
        scope,
        any::<bool>(),
    );
    btree_map(numbers, rest, 1..4).prop_map(move |addresses| {
        let address =
            |(number, (prefix_length, interface, label, scope, no_track))| VirtualAddress {
                address: host(is_v4, number),
                prefix_length,
                interface,
                label,
                scope,
                no_track,
            };
        addresses.into_iter().map(address).collect()
    })
}

fn garp() -> impl Strategy<Value = Garp> {
    let count = 1_u32..=1000;
    let lower = 0_u32..=1000;
    (time(), count.clone(), time(), count, time(), lower).prop_map(
        |(master_delay, master_repeat, master_refresh, refresh, lower_prio_delay, lower)| Garp {
            master_delay,
            master_repeat,
            master_refresh,
            master_refresh_repeat: refresh,
            lower_prio_delay,
            lower_prio_repeat: lower,
        },
    )
}

/// What depends on the IP version: version, interval, password, addresses,
/// sources and peers.
type Spoken = (
    Version,
    Duration,
    Option<Authentication>,
    Vec<VirtualAddress>,
    Option<IpAddr>,
    Vec<Peer>,
);

fn spoken() -> impl Strategy<Value = Spoken> {
    (any::<bool>(), any::<bool>()).prop_flat_map(|(is_v2, is_v4)| {
        let is_v2 = is_v2 && is_v4;
        let version = if is_v2 { Version::V2 } else { Version::V3 };
        let advert_int = if is_v2 {
            (1_u64..=255).prop_map(Duration::from_secs).boxed()
        } else {
            let hundredths = 1_u64..=4095;
            hundredths
                .prop_map(|n| Duration::from_millis(10 * n))
                .boxed()
        };
        let kind = select(vec![AuthType::Pass, AuthType::Ah]);
        let password = (kind, text());
        let password = password.prop_map(|(kind, auth_pass)| Authentication { kind, auth_pass });
        let authentication = option::of(password);
        let authentication = authentication.prop_map(move |found| found.filter(|_| is_v2));
        let source = option::of((1_u32..99).prop_map(move |n| host(is_v4, n)));
        let peers = btree_map(1_u32..1 << 20, (any::<u8>(), any::<u8>()), 0..3);
        let peers = peers.prop_map(move |peers| {
            let peer = |(number, (min_ttl, max_ttl))| Peer {
                address: host(is_v4, number),
                min_ttl,
                max_ttl,
            };
            peers.into_iter().map(peer).collect()
        });
        let addresses = virtual_addresses(is_v4, 1..1 << 20);
        (
            Just(version),
            advert_int,
            authentication,
            addresses,
            source,
            peers,
        )
    })
}

/// One instance, which tracks all of them.
fn instance(tracked: &Trackable) -> impl Strategy<Value = VrrpInstance> + use<> {
    let names = tracked.names();
    let state = select(vec![VrrpState::Master, VrrpState::Backup]);
    let ids = (text(), interface_name(), 1_u8.., 1_u8.., state);
    let excluded = (any::<bool>(), any::<bool>()).prop_flat_map(|(is_v4, is_some)| {
        let addresses = virtual_addresses(is_v4, 1 << 21..1 << 22);
        addresses.prop_map(move |all| if is_some { all } else { Vec::new() })
    });
    let flags = any::<[bool; 8]>();
    let preempt_delay = (0_u64..=1_000_000_000).prop_map(Duration::from_micros);
    let interfaces = btree_map(interface_name(), option::of(-253_i16..=253), 0..3);
    let weight = option::of(-253_i16..=253);
    (
        ids,
        spoken(),
        excluded,
        flags,
        preempt_delay,
        garp(),
        (interfaces, notify(), routing()),
        weight,
    )
        .prop_map(
            move |(ids, spoken, excluded, flags, preempt_delay, garp, others, weight)| {
                let (interfaces, notify, (virtual_routes, virtual_rules)) = others;
                let tracked = |(name, weight): (String, Option<i16>)| Tracked {
                    name,
                    reverse: flags[4] && weight.is_some(),
                    weight,
                };
                let named = |names: &[String]| {
                    let all = names.iter().map(|name| tracked((name.clone(), weight)));
                    all.collect::<Vec<_>>()
                };
                let (name, interface, virtual_router_id, priority, state) = ids;
                // Of one that begins as master they are taken back.
                let may_wait = state == VrrpState::Backup && priority != 255;
                let (version, advert_int, authentication, addresses, source, peers) = spoken;
                VrrpInstance {
                    name,
                    state,
                    vmac: flags[7].then(|| Vmac {
                        name: format!("v.{virtual_router_id}"),
                        xmit_base: flags[0] || !peers.is_empty(),
                    }),
                    interface,
                    version,
                    virtual_router_id,
                    priority,
                    advert_int,
                    authentication,
                    virtual_ipaddress: addresses,
                    virtual_ipaddress_excluded: excluded,
                    virtual_routes,
                    virtual_rules,
                    no_accept: flags[6] && priority != 255,
                    strict_mode: false,
                    nopreempt: flags[0] && may_wait,
                    preempt_delay: preempt_delay * u32::from(may_wait),
                    dont_track_primary: flags[1],
                    mcast_src_ip: source,
                    unicast_src_ip: source,
                    unicast_ttl: if peers.is_empty() { 255 } else { priority },
                    unicast_peer: peers,
                    garp,
                    lower_prio_no_advert: flags[2],
                    higher_prio_send_advert: flags[3],
                    tracks: Tracks {
                        script: named(&names.scripts),
                        interface: interfaces.into_iter().map(tracked).collect(),
                        file: named(&names.files),
                        process: named(&names.processes),
                    },
                    notify,
                    notify_priority_changes: flags[5],
                }
            },
        )
}

fn config() -> impl Strategy<Value = Config> {
    let trackable = (scripts(), files(), processes());
    trackable.prop_flat_map(|(scripts, files, processes)| {
        let trackable = Trackable {
            scripts,
            files,
            processes,
        };
        let instances = vec(instance(&trackable), 0..2);
        let delays = (time(), 0_u64..=1_000_000).prop_map(|(startup_delay, micros)| VrrpDefaults {
            startup_delay,
            garp_interval: Duration::from_micros(micros),
        });
        let policy = (option::of(script_user()), any::<bool>())
            .prop_map(|(user, security)| Policy { user, security });
        (
            // In boxes: all of it on one stack overflows it.
            (option::of(text()), policy, notifications().boxed()),
            appliance().boxed(),
            interfaces(),
            Just(trackable),
            instances,
            virtual_servers().boxed(),
            delays,
            (option::of(text()), notify()),
        )
            .prop_map(
                |(global, appliance, interfaces, trackable, instances, servers, vrrp, group)| {
                    let members: Vec<_> = instances.iter().map(|i| i.name.clone()).collect();
                    let (group, notify) = group;
                    let group = group.filter(|_| !members.is_empty());
                    let group = group.map(|name| VrrpSyncGroup {
                        name,
                        group: members,
                        tracks: Tracks::default(),
                        notify,
                    });
                    let (router_id, policy, notifications) = global;
                    Config {
                        router_id,
                        scripts: policy,
                        notifications,
                        vrrp,
                        appliance,
                        interfaces,
                        vrrp_scripts: trackable.scripts,
                        track_files: trackable.files,
                        track_processes: trackable.processes,
                        vrrp_instances: instances,
                        vrrp_sync_groups: group.into_iter().collect(),
                        virtual_servers: servers,
                    }
                },
            )
    })
}

const DR: &str = include_str!("../../configs/dr.toml");

/// What an edit puts in: pieces of TOML, and characters that are hard on
/// whoever counts bytes.
const PIECES: [&str; 24] = [
    "[",
    "]",
    "[[",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "=",
    ",",
    ".",
    "\n",
    "\r\n",
    "\\",
    "#",
    "0x",
    "1e999",
    "-1",
    "inf",
    "ü漢\u{1f980}",
    "\u{0}",
    "\u{feff}",
    "[[virtual_server]]\n",
];

/// A range of the text by its characters, and what goes in its place.
type Edit = (Index, usize, &'static str);

fn edited(edits: &[Edit]) -> String {
    let mut characters: Vec<char> = DR.chars().collect();
    for (place, length, piece) in edits {
        let start = place.index(characters.len() + 1);
        let end = (start + length).min(characters.len());
        characters.splice(start..end, piece.chars());
    }
    characters.into_iter().collect()
}

/// Either a configuration that prints itself, or errors inside the text.
fn check_text(text: &str) {
    match parse(text, Path::new("fuzzed.toml")) {
        Ok(checked) => {
            let printed = to_toml(&checked.config);
            let again = parse(&printed, Path::new("printed.toml"));
            let again = again.unwrap_or_else(|errors| panic!("{printed}{errors}"));
            assert_eq!(again.config, checked.config);
        }
        Err(errors) => {
            assert!(errors.has_errors());
            let lines = text.matches('\n').count() + 1;
            for error in &errors {
                let position = error.position.unwrap();
                assert!((1..=lines).contains(&position.line), "{error}");
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_printed_configuration_parses_to_itself(config in config()) {
        let printed = to_toml(&config);
        let parsed = parse(&printed, Path::new("printed.toml"));
        let parsed = parsed.unwrap_or_else(|errors| panic!("{printed}{errors}"));
        prop_assert_eq!(parsed.config, config);
    }

    #[test]
    fn an_edited_file_is_no_problem(
        edits in vec((any::<Index>(), 0_usize..40, select(PIECES.to_vec())), 1..6)
    ) {
        check_text(&edited(&edits));
    }

    #[test]
    fn pieces_of_toml_are_no_problem(pieces in vec(select(PIECES.to_vec()), 0..40)) {
        check_text(&pieces.concat());
    }

    #[test]
    fn any_text_is_no_problem(text in "\\PC{0,200}") {
        check_text(&text);
    }
}
