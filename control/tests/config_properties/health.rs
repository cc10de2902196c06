//! Real servers, their checks and what belongs to a quorum.

use std::net::SocketAddr;
use std::time::Duration;

use control::config::{
    BodyRegex, Check, CheckKind, CheckSource, CheckUrl, DnsCheck, FileCheck, HttpGet, HttpProtocol,
    MiscCheck, Passive, Quorum, RealServer, RecordType, RegexOption, Tls, UdpCheck, UdpReply,
};
use control::scripts::{Script, ScriptUser};
use dataplane::service::{ForwardingMethod, Thresholds};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::notifications::alert;
use super::services::method;
use super::{host, interface_name, text, time};

fn regex() -> impl Strategy<Value = BodyRegex> {
    let options = vec![
        RegexOption::Caseless,
        RegexOption::Dotall,
        RegexOption::Extended,
        RegexOption::Multiline,
        RegexOption::Ungreedy,
        RegexOption::Utf,
    ];
    (
        "[a-z\"]{1,6}[.]?",
        subsequence(options, 0..6),
        any::<bool>(),
        0_usize..1 << 20,
        option::of(0_usize..1 << 20),
    )
        .prop_map(
            |(pattern, options, no_match, min_offset, max_offset)| BodyRegex {
                pattern,
                options,
                no_match,
                min_offset,
                max_offset,
            },
        )
}

fn host_name() -> impl Strategy<Value = String> {
    "[!-~]{1,12}"
}

fn url() -> impl Strategy<Value = CheckUrl> {
    let codes = vec((100_u16..=599, 0_u16..100), 1..4);
    let codes = codes.prop_map(|codes| {
        let range = |(first, more): (u16, u16)| (first, (first + more).min(599));
        codes.into_iter().map(range).collect()
    });
    (
        "/[!-~]{0,12}",
        codes,
        option::of(host_name()),
        option::of(any::<[u8; 16]>()),
        option::of(regex()),
    )
        .prop_map(|(path, status_code, virtualhost, digest, regex)| CheckUrl {
            path,
            status_code,
            virtualhost,
            digest,
            regex,
        })
}

fn source(is_v4: bool) -> impl Strategy<Value = CheckSource> {
    let bindto = option::of((1_u32..1 << 20).prop_map(move |n| host(is_v4, n)));
    (
        bindto,
        option::of(1_u16..),
        option::of(interface_name()),
        option::of(any::<u32>()),
    )
        .prop_map(|(bindto, bind_port, bind_if, fwmark)| CheckSource {
            bindto,
            bind_port,
            bind_if,
            fwmark,
        })
}

fn check(is_v4: bool, kind: impl Strategy<Value = CheckKind>) -> impl Strategy<Value = Check> {
    let target = (1_u32..1 << 20, 1_u16..).prop_map(move |(n, port)| (host(is_v4, n), port));
    let times = (time(), time(), time(), time());
    let counts = (0_u32..=65535, 1_u32..=65536);
    (kind, target, source(is_v4), times, counts, any::<bool>()).prop_map(
        |(kind, target, source, times, (retry, rise), alpha)| Check {
            kind,
            target: target.into(),
            source,
            through_vip: false,
            connect_timeout: times.0,
            delay_loop: times.1,
            retry,
            rise,
            delay_before_retry: times.2,
            warmup: times.3,
            alpha,
        },
    )
}

pub(super) fn script_user() -> impl Strategy<Value = ScriptUser> {
    ("[a-z_]{1,8}", option::of("[a-z_]{1,8}")).prop_map(|(user, group)| ScriptUser { user, group })
}

pub(super) fn script() -> impl Strategy<Value = Script> {
    let words = vec(text(), 1..4);
    (words, option::of(script_user())).prop_map(|(words, user)| Script { words, user })
}

fn http(tls: bool) -> impl Strategy<Value = CheckKind> {
    let protocols = vec![
        HttpProtocol::Http10,
        HttpProtocol::Http10Close,
        HttpProtocol::Http11,
        HttpProtocol::Http2,
    ];
    (
        vec(url(), 1..3),
        option::of(host_name()),
        select(protocols),
        any::<bool>(),
    )
        .prop_map(move |(urls, virtualhost, protocol, sni)| {
            let enable_sni = sni && virtualhost.is_some();
            CheckKind::HttpGet(HttpGet {
                tls: tls.then_some(Tls { enable_sni }),
                protocol,
                urls,
                virtualhost,
            })
        })
}

fn udp() -> impl Strategy<Value = CheckKind> {
    let pair = (any::<u8>(), select(vec![0xff, 0xf0, 0x0f, 0x00]));
    // Digits that may be anything are read as 0.
    let pair = pair.prop_map(|(value, mask)| (value & mask, mask));
    let lengths = (0_u16..1000, 0_u16..1000);
    let reply = (vec(pair, 0..5), lengths).prop_map(|(content, (least, more))| UdpReply {
        content,
        min_length: least,
        max_length: least + more,
    });
    let payload = option::of(vec(any::<u8>(), 1..5));
    (payload, option::of(reply))
        .prop_map(|(payload, reply)| CheckKind::UdpCheck(UdpCheck { payload, reply }))
}

fn dns() -> impl Strategy<Value = CheckKind> {
    let types = vec![
        RecordType::A,
        RecordType::Ns,
        RecordType::Cname,
        RecordType::Soa,
        RecordType::Mx,
        RecordType::Txt,
        RecordType::Aaaa,
    ];
    (select(types), "([a-z_-]{1,9}[.]){0,3}[a-z]{1,9}[.]?")
        .prop_map(|(record_type, name)| CheckKind::DnsCheck(DnsCheck { record_type, name }))
}

fn misc() -> impl Strategy<Value = CheckKind> {
    (script(), time(), any::<bool>()).prop_map(|(script, timeout, dynamic)| {
        CheckKind::MiscCheck(MiscCheck {
            script,
            timeout,
            dynamic,
        })
    })
}

/// In the order that a file gives them, and of those that connect nowhere
/// without what they do not print.
fn checks(server: SocketAddr) -> impl Strategy<Value = Vec<Check>> {
    let is_v4 = server.is_ipv4();
    let smtp = option::of(host_name()).prop_map(|helo_name| CheckKind::SmtpCheck { helo_name });
    let connecting = (
        vec(check(is_v4, Just(CheckKind::TcpCheck)), 0..2),
        vec(check(is_v4, http(false)), 0..2),
        vec(check(is_v4, http(true)), 0..2),
        vec(check(is_v4, udp()), 0..2),
        vec(check(is_v4, dns()), 0..2),
        vec(check(is_v4, smtp), 0..2),
        vec(check(is_v4, Just(CheckKind::PingCheck)), 0..2),
    );
    let misc = vec(check(is_v4, misc()), 0..2).prop_map(move |checks| {
        let here = |check| Check {
            target: server,
            source: CheckSource::default(),
            ..check
        };
        checks.into_iter().map(here).collect::<Vec<_>>()
    });
    let file = ("/[a-z]{1,9}", -9_i32..9, any::<bool>());
    let file = file.prop_map(move |(file, weight, reverse)| Check {
        kind: CheckKind::FileCheck(FileCheck {
            file,
            weight,
            reverse,
        }),
        target: server,
        source: CheckSource::default(),
        through_vip: false,
        connect_timeout: Duration::from_secs(5),
        delay_loop: Duration::from_secs(1),
        retry: 0,
        rise: 1,
        delay_before_retry: Duration::from_secs(1),
        warmup: Duration::ZERO,
        alpha: false,
    });
    (connecting, misc, vec(file, 0..2))
        .prop_map(|(c, misc, file)| [c.0, c.1, c.2, c.3, c.4, c.5, c.6, misc, file].concat())
}

/// The same by the forwarding method, for some of those that can.
fn through_vip(check: Check, lb_kind: ForwardingMethod) -> Check {
    let is_possible = matches!(
        check.kind,
        CheckKind::TcpCheck | CheckKind::HttpGet(_) | CheckKind::SmtpCheck { .. }
    ) && matches!(
        lb_kind,
        ForwardingMethod::Direct | ForwardingMethod::Tunnel(_)
    );
    if !is_possible || check.retry.is_multiple_of(2) {
        return check;
    }
    let bindto = check.source.bindto;
    Check {
        through_vip: true,
        source: CheckSource {
            bindto,
            ..CheckSource::default()
        },
        ..check
    }
}

fn thresholds() -> impl Strategy<Value = Thresholds> {
    (0_u32..=65535)
        .prop_flat_map(|upper| (Just(upper), 0..=upper))
        .prop_map(|(upper, lower)| Thresholds { upper, lower })
}

pub(super) fn real_server(
    address: SocketAddr,
    default: ForwardingMethod,
    is_tcp: bool,
) -> impl Strategy<Value = RealServer> {
    (
        option::of(method()),
        0_u32..=65535,
        (any::<bool>(), thresholds()),
        checks(address),
        option::of((1_u32..=65535, time())),
        (option::of(script()), option::of(script()), alert()),
    )
        .prop_map(
            move |(
                own,
                weight,
                (inhibit_on_failure, thresholds),
                checks,
                passive,
                (notify_up, notify_down, smtp_alert),
            )| {
                let lb_kind = own.unwrap_or(default);
                let checks = checks.into_iter().map(|check| through_vip(check, lb_kind));
                let checks = checks.collect();
                RealServer {
                    address,
                    lb_kind,
                    weight,
                    inhibit_on_failure,
                    thresholds,
                    checks,
                    passive: passive
                        .filter(|_| is_tcp)
                        .map(|(max_fails, fail_timeout)| Passive {
                            max_fails,
                            fail_timeout,
                        }),
                    notify_up,
                    notify_down,
                    smtp_alert,
                }
            },
        )
}

pub(super) fn quorum(
    sorry: SocketAddr,
    lb_kind: ForwardingMethod,
) -> impl Strategy<Value = Quorum> {
    let sorry_server = option::of(
        any::<bool>().prop_map(move |inhibit_on_failure| RealServer {
            address: sorry,
            lb_kind,
            weight: 1,
            inhibit_on_failure,
            thresholds: Thresholds::default(),
            checks: Vec::new(),
            passive: None,
            notify_up: None,
            notify_down: None,
            smtp_alert: None,
        }),
    );
    (
        1_u32..1 << 20,
        any::<Index>(),
        (option::of(script()), option::of(script())),
        sorry_server,
    )
        .prop_map(|(quorum, hysteresis, (up, down), sorry_server)| Quorum {
            quorum,
            hysteresis: u32::try_from(hysteresis.index(quorum as usize)).unwrap(),
            up,
            down,
            sorry_server,
        })
}
