//! Whole files: those in `configs/`, defaults and inheritance, and files that
//! are no text at all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::config::{
    Check, CheckKind, CheckSource, Config, Diagnostics, DnsCheck, Format, HttpGet, Queues,
    RecordType, UdpCheck, UdpReply, XdpMode, load, load_as, parse, to_toml,
};
use dataplane::conn::Timeouts;
use dataplane::service::{ForwardingMethod, Protocol, SchedulerKind, Tunnel};

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

fn config(text: &str) -> Config {
    let checked = parse(text, Path::new("test.toml"));
    checked.unwrap_or_else(|errors| panic!("{errors}")).config
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn every_example_is_valid_without_a_warning_and_prints_itself() {
    let mut count = 0;
    for entry in fs::read_dir(configs()).unwrap() {
        let path = entry.unwrap().path();
        if Format::of(&path) != Format::Toml {
            continue;
        }
        let checked = load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(checked.warnings.is_empty(), "{}", checked.warnings);
        let printed = to_toml(&checked.config);
        assert_eq!(config(&printed), checked.config, "{printed}");
        count += 1;
    }
    assert!(count >= 4, "{count} files");
}

/// The deployment that the lab rehearses and the documentation talks about.
#[test]
fn dr_toml_is_what_it_says() {
    let config = load(&configs().join("dr.toml")).unwrap().config;
    let [http, https] = config.virtual_servers.as_slice() else {
        panic!("{} virtual servers", config.virtual_servers.len());
    };
    for (server, port) in [(http, 80), (https, 443)] {
        assert_eq!(server.address(), socket(&format!("192.168.1.100:{port}")));
        assert_eq!(server.protocol(), Protocol::Tcp);
        assert_eq!(server.scheduler, SchedulerKind::WeightedRoundRobin);
        let servers = server.real_servers.iter();
        let servers: Vec<_> = servers.map(|s| (s.address.to_string(), s.weight)).collect();
        let expected = [("101", 1), ("102", 1), ("103", 2)];
        let expected = expected.map(|(host, weight)| (format!("192.168.1.{host}:{port}"), weight));
        assert_eq!(servers, expected);
    }
    let is_http = |check: &Check| matches!(check.kind, CheckKind::HttpGet(_));
    let checks = |index: usize| {
        let servers = config.virtual_servers[index].real_servers.iter();
        servers.flat_map(|s| &s.checks).collect::<Vec<_>>()
    };
    assert_eq!(checks(0).iter().filter(|c| is_http(c)).count(), 3);
    assert_eq!(checks(1).iter().filter(|c| !is_http(c)).count(), 3);
}

#[test]
fn an_empty_file_has_every_default() {
    let config = config("");
    assert_eq!(config.router_id, None);
    let appliance = &config.appliance;
    assert_eq!(appliance.control_socket, Path::new("/run/appliance.sock"));
    assert_eq!((appliance.http, &appliance.http_token_file), (None, &None));
    assert_eq!(appliance.max_connections, 1_048_576);
    assert_eq!(appliance.cores, [0; 0]);
    assert_eq!(appliance.timeouts, Timeouts::default());
    assert!(config.interfaces.is_empty());
    assert!(config.virtual_servers.is_empty());
}

#[test]
fn the_appliance_section_is_read() {
    let config = config(
        r#"
        global_defs.router_id = "LVS_DEVEL"
        [appliance]
        control_socket = "/tmp/a.sock"
        http = "[::1]:9180"
        http_token_file = "/tmp/token"
        cores = [2, 1]
        [appliance.timeouts]
        tcp = "15m"
        tcpfin = 0.25
        udp = 10
        [[interface]]
        name = "eth0"
        queues = [1, 0]
        mode = "zero-copy"
        "#,
    );
    assert_eq!(config.router_id.as_deref(), Some("LVS_DEVEL"));
    assert_eq!(config.appliance.control_socket, Path::new("/tmp/a.sock"));
    assert_eq!(config.appliance.http, Some("[::1]:9180".parse().unwrap()));
    let token = config.appliance.http_token_file.as_deref();
    assert_eq!(token, Some(Path::new("/tmp/token")));
    assert_eq!(config.appliance.cores, [2, 1]);
    let timeouts = Timeouts {
        established: Duration::from_secs(900),
        fin_wait: Duration::from_millis(250),
        udp: Duration::from_secs(10),
        ..Timeouts::default()
    };
    assert_eq!(config.appliance.timeouts, timeouts);
    assert_eq!(config.interfaces[0].queues, Queues::List(vec![1, 0]));
    assert_eq!(config.interfaces[0].mode, XdpMode::ZeroCopy);
}

fn checks(server: &str) -> Vec<Check> {
    let text = format!(
        r#"
        [[virtual_server]]
        address = "192.168.1.100:80"
        lb_kind = "DR"
        {server}
        "#
    );
    config(&text).virtual_servers[0].real_servers[0]
        .checks
        .clone()
}

/// keepalived.conf(5), "Virtual server(s)".
#[test]
fn check_defaults_are_keepalived_s() {
    let checks = checks(
        r#"
        [[virtual_server.real_server]]
        address = "192.168.1.101:80"
        HTTP_GET = { url = { path = "/" } }
        TCP_CHECK = {}
        "#,
    );
    let [tcp, http] = checks.as_slice() else {
        panic!("{checks:?}");
    };
    for check in [tcp, http] {
        assert_eq!(check.target, socket("192.168.1.101:80"));
        assert_eq!(check.source, CheckSource::default());
        assert_eq!(check.connect_timeout, Duration::from_secs(5));
        assert_eq!(check.delay_loop, Duration::from_secs(60));
        assert_eq!(check.warmup, Duration::from_secs(60));
        assert_eq!((check.retry, check.rise), (1, 1));
        assert!(!check.alpha);
    }
    assert_eq!(tcp.delay_before_retry, Duration::from_secs(1));
    assert_eq!(http.delay_before_retry, Duration::from_secs(3));
    let CheckKind::HttpGet(HttpGet {
        urls, virtualhost, ..
    }) = &http.kind
    else {
        panic!("{http:?}");
    };
    assert_eq!(urls[0].status_code, [(200, 299)]);
    assert_eq!(*virtualhost, None);
}

/// keepalived.conf(5) says them kind by kind.
#[test]
fn defaults_of_other_kinds_are_keepalived_s() {
    let checks = checks(
        r#"
        [[virtual_server.real_server]]
        address = "192.168.1.101:80"
        delay_loop = 7
        SSL_GET = { url = { path = "/" } }
        UDP_CHECK = { require_reply = true }
        DNS_CHECK = {}
        SMTP_CHECK = {}
        PING_CHECK = {}
        MISC_CHECK = { misc_path = "/bin/check 'a b'" }
        "#,
    );
    let names: Vec<_> = checks.iter().map(|check| check.kind.name()).collect();
    assert_eq!(
        names,
        [
            "SSL_GET",
            "UDP_CHECK",
            "DNS_CHECK",
            "SMTP_CHECK",
            "PING_CHECK",
            "MISC_CHECK"
        ]
    );
    let retries: Vec<_> = checks.iter().map(|check| check.retry).collect();
    assert_eq!(retries, [1, 1, 3, 1, 1, 0]);
    let delays = checks
        .iter()
        .map(|check| check.delay_before_retry.as_secs());
    assert_eq!(delays.collect::<Vec<_>>(), [3, 1, 7, 1, 1, 1]);
    assert_eq!(
        checks[1].kind,
        CheckKind::UdpCheck(UdpCheck {
            payload: None,
            reply: Some(UdpReply {
                content: Vec::new(),
                min_length: 0,
                max_length: 255,
            }),
        })
    );
    assert_eq!(
        checks[2].kind,
        CheckKind::DnsCheck(DnsCheck {
            record_type: RecordType::Soa,
            name: ".".into(),
        })
    );
    let CheckKind::MiscCheck(misc) = &checks[5].kind else {
        panic!("{:?}", checks[5]);
    };
    assert_eq!(misc.script.words, ["/bin/check", "a b"]);
    assert_eq!(misc.timeout, Duration::from_secs(7));
    assert!(!misc.dynamic);
}

/// The example of keepalived.conf(5).
#[test]
fn hexadecimal_is_free_in_its_form() {
    let checks = checks(
        r#"
        [[virtual_server.real_server]]
        address = "192.168.1.101:80"
        UDP_CHECK = { payload = "Ab12f 3 456 546443123", require_reply = "1x X2 x" }
        "#,
    );
    let CheckKind::UdpCheck(udp) = &checks[0].kind else {
        panic!("{checks:?}");
    };
    let expected = [
        0xab, 0x12, 0x0f, 0x03, 0x45, 0x06, 0x54, 0x64, 0x43, 0x12, 0x03,
    ];
    assert_eq!(udp.payload.as_deref(), Some(expected.as_slice()));
    assert_eq!(
        udp.reply.as_ref().unwrap().content,
        [(0x10, 0xf0), (0x02, 0x0f), (0x00, 0xf0)]
    );
}

#[test]
fn the_innermost_parameter_counts() {
    let checks = checks(
        r#"
        delay_loop = 6
        retry = 5
        alpha = true
        virtualhost = "virtual.example"
        connect_timeout = 9
        delay_before_retry = 8
        warmup = 7

        [[virtual_server.real_server]]
        address = "192.168.1.101:80"
        nb_get_retry = 4
        virtualhost = "real.example"
        delay_before_retry = 2
        TCP_CHECK = [
          { retry = 3, connect_timeout = 1, delay_loop = 30 },
          { alpha = false, warmup = 0, delay_before_retry = 0 },
        ]

        [[virtual_server.real_server.HTTP_GET]]
        connect_ip = "192.168.2.101"
        connect_port = 8080
        bindto = "192.168.2.1"
        url = [
          { path = "/a?b=c", status_code = "200-299 404", virtualhost = "url.example" },
          { path = "/", status_code = [200, "301-302 307"] },
        ]

        [[virtual_server.real_server.HTTP_GET]]
        virtualhost = "check.example"
        url = { path = "/", status_code = 204 }
        "#,
    );
    let seconds = |parameter: fn(&Check) -> Duration| {
        let seconds = checks.iter().map(|c| parameter(c).as_secs());
        seconds.collect::<Vec<_>>()
    };
    assert_eq!(seconds(|c| c.connect_timeout), [1, 9, 9, 9]);
    assert_eq!(seconds(|c| c.delay_loop), [30, 6, 6, 6]);
    assert_eq!(seconds(|c| c.delay_before_retry), [2, 0, 2, 2]);
    assert_eq!(seconds(|c| c.warmup), [7, 0, 7, 7]);
    let retries: Vec<_> = checks.iter().map(|c| c.retry).collect();
    assert_eq!(retries, [3, 4, 4, 4]);
    let alphas: Vec<_> = checks.iter().map(|c| c.alpha).collect();
    assert_eq!(alphas, [true, false, true, true]);
    assert_eq!(checks[2].target, socket("192.168.2.101:8080"));
    assert_eq!(
        checks[2].source.bindto,
        Some("192.168.2.1".parse().unwrap())
    );

    let http = checks[2..].iter().map(|check| {
        let CheckKind::HttpGet(get) = &check.kind else {
            panic!("{check:?}");
        };
        (&get.urls, get.virtualhost.as_deref())
    });
    let http: Vec<_> = http.collect();
    assert_eq!(http[0].1, Some("real.example"));
    assert_eq!(http[1].1, Some("check.example"));
    assert_eq!(http[0].0[0].virtualhost.as_deref(), Some("url.example"));
    assert_eq!(http[0].0[0].status_code, [(200, 299), (404, 404)]);
    assert_eq!(
        http[0].0[1].status_code,
        [(200, 200), (301, 302), (307, 307)]
    );
    assert_eq!(http[1].0[0].status_code, [(204, 204)]);
}

#[test]
fn inhibit_on_failure_is_inherited() {
    let config = config(
        r#"
        [[virtual_server]]
        address = "192.168.1.100:80"
        lb_kind = "DR"
        inhibit_on_failure = true
        real_server = [
          { address = "192.168.1.101:80" },
          { address = "192.168.1.102:80", inhibit_on_failure = false },
        ]
        "#,
    );
    let servers = config.virtual_servers[0].real_servers.iter();
    let inhibit: Vec<_> = servers.map(|s| s.inhibit_on_failure).collect();
    assert_eq!(inhibit, [true, false]);
}

#[test]
fn a_forwarding_method_is_inherited() {
    let config = config(
        r#"
        [[virtual_server]]
        address = "192.168.1.100:80"
        lb_kind = "TUN"
        tun_type = "gue"
        tun_port = 6080
        real_server = [
          { address = "192.168.1.101:80" },
          { address = "192.168.1.102:80", tun_port = 6081 },
          { address = "192.168.1.103:80", tun_type = "gre" },
          { address = "192.168.1.104:8080", lb_kind = "NAT" },
          { address = "192.168.1.105:80", lvs_method = "DR" },
        ]
        "#,
    );
    let servers = config.virtual_servers[0].real_servers.iter();
    let methods: Vec<_> = servers.map(|server| server.lb_kind).collect();
    let gue = |port| ForwardingMethod::Tunnel(Tunnel::Gue { port });
    assert_eq!(
        methods,
        [
            gue(6080),
            gue(6081),
            ForwardingMethod::Tunnel(Tunnel::Gre),
            ForwardingMethod::Nat,
            ForwardingMethod::Direct,
        ]
    );
}

/// The one problem of a file that cannot be used at all.
fn problem(path: &Path, format: Format) -> String {
    let errors: Diagnostics = load_as(path, &format).unwrap_err();
    assert_eq!(errors.iter().count(), 1, "{errors}");
    let errors = errors.to_string();
    let (file, message) = errors.split_once(": ").unwrap();
    assert_eq!(Path::new(file), path);
    message.to_owned()
}

#[test]
fn files_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("no.toml");
    let message = problem(&path, Format::Toml);
    assert_eq!(
        message,
        "found no such file, expected a configuration: check the path"
    );

    let message = problem(directory.path(), Format::Toml);
    assert_eq!(
        message,
        "found a directory, expected a file: name a file in it"
    );

    fs::write(&path, b"# a\n# \xc3\xbc \xff\n").unwrap();
    let errors = load_as(&path, &Format::Toml).unwrap_err().to_string();
    let expected = "found the byte 0xff, expected UTF-8 text: save the file as UTF-8";
    assert_eq!(errors, format!("{}:2:5: {expected}", path.display()));
}

#[test]
fn the_name_tells_the_format() {
    let keepalived = Format::Keepalived { config_id: None };
    for (name, format) in [
        ("a.toml", &Format::Toml),
        ("a.TOML", &Format::Toml),
        ("keepalived.conf", &keepalived),
        ("toml", &keepalived),
    ] {
        assert_eq!(&Format::of(Path::new(name)), format, "{name}");
    }
}

#[test]
fn passwords_are_not_debugged() {
    let config = config(
        r#"
        [[vrrp_instance]]
        name = "VI_1"
        interface = "eth0"
        virtual_router_id = 51
        authentication = { auth_type = "PASS", auth_pass = "s3cret" }
        virtual_ipaddress = ["192.168.1.100"]
        "#,
    );
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(
        to_toml(&config).contains("s3cret"),
        "the printed file works"
    );
}
