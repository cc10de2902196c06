//! keepalived.conf: what is said about files, and what becomes of them.
//!
//! Every `keepalived/NAME.conf` is checked, and what is said about it compared
//! with `keepalived/NAME.txt`. `UPDATE_EXPECTED=1 cargo test -p control --test
//! keepalived` writes the `.txt` files anew.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::config::{
    CheckKind, Checked, Config, Diagnostics, Format, Severity, Tracked, import_keepalived, load_as,
    parse, parse_keepalived, to_toml,
};
use dataplane::service::{ForwardingMethod, Protocol, Tunnel};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The files of a directory whose names begin and end so, in order.
fn files(directory: &Path, start: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            path.is_file() && name.starts_with(start) && name.ends_with(end)
        })
        .collect();
    files.sort();
    files
}

fn shipped() -> Vec<PathBuf> {
    files(&Path::new(ROOT).join("../configs/keepalived"), "", ".conf")
}

fn cases() -> Vec<PathBuf> {
    files(&Path::new(ROOT).join("tests/keepalived"), "", ".conf")
}

fn keepalived() -> Format {
    let config_id = Some("main".to_owned());
    Format::Keepalived { config_id }
}

/// What is said about a file, under its name in the directory of the cases.
fn diagnose(case: &Path) -> String {
    let found = load_as(case, &keepalived());
    let found = found.map_or_else(|errors| errors, |checked| checked.warnings);
    let directory = format!("{}/", case.parent().unwrap().display());
    format!("{found}\n").replace(&directory, "")
}

#[test]
fn diagnostics_are_as_expected() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let cases = cases();
    assert!(cases.len() >= 4, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let expected_path = case.with_extension("txt");
        let found = diagnose(&case);
        if update {
            fs::write(&expected_path, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if found != expected {
            wrong.push(format!(
                "{}: found\n{found}expected\n{expected}",
                case.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ten_mistakes_are_ten_errors() {
    let case = Path::new(ROOT).join("tests/keepalived/ten-mistakes.conf");
    let found: Diagnostics = load_as(&case, &keepalived()).unwrap_err();
    let errors = found.iter().filter(|d| d.severity == Severity::Error);
    let remedies = errors.filter(|d| d.position.is_some() && d.message.contains(": "));
    assert_eq!(remedies.count(), 10, "{found}");
}

/// The import of a file means the same as the file, and needs no correction.
#[test]
fn shipped_files_are_imported() {
    let shipped = shipped();
    assert!(shipped.len() >= 7, "{} files", shipped.len());
    for path in shipped {
        for id in ["node1", "node2", "node3"] {
            let imported = import_keepalived(&path, Some(id)).unwrap();
            let toml = to_toml(&imported.config);
            let again: Checked = parse(&toml, Path::new("imported.toml")).unwrap();
            assert_eq!(again.config, imported.config, "{}", path.display());
            assert!(!again.warnings.has_unmapped(), "{}", path.display());
            let format = Format::Keepalived {
                config_id: Some(id.to_owned()),
            };
            // A keyword that only an import leaves out is still an error here.
            if let Ok(checked) = load_as(&path, &format) {
                assert_eq!(checked.config, imported.config, "{}", path.display());
            }
        }
    }
}

/// keepalived's own samples: each keyword is carried over or named.
#[test]
fn keepaliveds_samples_are_understood() {
    let directory = Path::new("/usr/share/doc/keepalived/samples");
    if !directory.is_dir() {
        // Not every image keeps a package's documentation.
        skip::partly(format!(
            "{} is not there, install keepalived",
            directory.display()
        ));
        return;
    }
    let samples = files(directory, "keepalived.conf.", "");
    assert!(samples.len() > 20, "{} samples", samples.len());
    for path in samples {
        let found = match import_keepalived(&path, Some("main")) {
            Ok(checked) => checked.warnings,
            Err(errors) => errors,
        };
        for diagnostic in &found {
            assert!(diagnostic.position.is_some(), "{diagnostic}");
            let text = diagnostic.to_string();
            // A group without its `group`: keepalived does not know them either.
            let is_theirs = text.contains("\"VI_2\"") || text.contains("\"VI_3\"");
            for words in ["unknown keyword", "syntax:", "a whole number"] {
                assert!(is_theirs || !text.contains(words), "{text}");
            }
        }
    }
}

fn config(text: &str) -> Config {
    match parse_keepalived(text, Path::new("test.conf")) {
        Ok(checked) => checked.config,
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn defaults_are_keepaliveds() {
    let config = config(
        "virtual_server 192.0.2.1 80 {\n real_server 192.0.2.2 {\n TCP_CHECK {\n }\n }\n }\n\
         virtual_server 2001:db8::1 443 {\n protocol tcp\n lb_kind DR\n real_server 2001:db8::2 8443 {\n HTTP_GET {\n url {\n path /\n }\n }\n }\n }",
    );
    let [udp, tcp] = config.virtual_servers.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!(udp.protocol(), Protocol::Udp);
    assert_eq!(udp.lb_kind, ForwardingMethod::Nat);
    assert_eq!(udp.scheduler.to_string(), "wlc");
    let server = &udp.real_servers[0];
    assert_eq!(server.address.to_string(), "192.0.2.2:80");
    assert_eq!(server.weight, 1);
    let check = &server.checks[0];
    assert_eq!(check.delay_loop, Duration::from_secs(60));
    assert_eq!(check.connect_timeout, Duration::from_secs(5));
    assert_eq!(
        (check.retry, check.delay_before_retry),
        (1, Duration::from_secs(1))
    );
    assert_eq!(tcp.address().to_string(), "[2001:db8::1]:443");
    let server = &tcp.real_servers[0];
    assert_eq!(
        server.address.to_string(),
        "[2001:db8::2]:443",
        "DR keeps the port"
    );
    assert_eq!(server.checks[0].delay_before_retry, Duration::from_secs(3));
}

#[test]
fn what_is_written_is_what_is_meant() {
    let config = config(
        "global_defs\n{\nrouter_id \"LVS 1\"\nlvs_timeouts tcp 600 udp 007\n}\n\
         virtual_server_group G {\n192.0.2.1-2 80\n192.0.2.8/31 81\n}\n\
         virtual_server group G {\nprotocol TCP\nlvs_sched wrr\nlvs_method TUN\ndelay_loop .5\n\
         real_server 198.51.100.1 { weight 3\nlvs_method TUN type gue port 6080\nalpha off\nTCP_CHECK { nb_get_retry 4 } }\n}",
    );
    assert_eq!(config.router_id.as_deref(), Some("LVS 1"));
    assert_eq!(
        config.appliance.timeouts.established,
        Duration::from_secs(600)
    );
    assert_eq!(config.appliance.timeouts.udp, Duration::from_secs(7));
    let addresses = config
        .virtual_servers
        .iter()
        .map(|v| v.address().to_string());
    let addresses: Vec<_> = addresses.collect();
    let expected = [
        "192.0.2.1:80",
        "192.0.2.2:80",
        "192.0.2.8:81",
        "192.0.2.9:81",
    ];
    assert_eq!(addresses, expected);
    for service in &config.virtual_servers {
        assert_eq!(service.lb_kind, ForwardingMethod::Tunnel(Tunnel::Ipip));
        let server = &service.real_servers[0];
        let gue = ForwardingMethod::Tunnel(Tunnel::Gue { port: 6080 });
        assert_eq!(server.lb_kind, gue);
        assert_eq!(server.weight, 3);
        assert_eq!(server.checks[0].retry, 4);
        assert_eq!(server.checks[0].delay_loop, Duration::from_millis(500));
    }
}

#[test]
fn conditional_lines_follow_the_config_id() {
    let path = Path::new(ROOT).join("../configs/keepalived/three-nodes.conf");
    for (id, priority) in [("node1", 100), ("node2", 99), ("node3", 98)] {
        let config = import_keepalived(&path, Some(id)).unwrap().config;
        assert_eq!(config.vrrp_instances[0].priority, priority, "{id}");
        assert_eq!(config.router_id.as_deref(), Some(id));
        assert_eq!(config.virtual_servers.len(), 2);
        let servers = config.virtual_servers.iter().map(|v| v.real_servers.len());
        assert_eq!(servers.collect::<Vec<_>>(), [3, 3]);
    }
}

#[test]
fn a_file_check_has_the_file_and_the_weight_of_a_track_file() {
    let config = config(
        "virtual_server 192.168.1.100 80 {\n protocol TCP\n real_server 192.168.1.101 80 {\n\
           FILE_CHECK {\n track_file load\n }\n\
           FILE_CHECK {\n weight -1\n track_file load\n }\n FILE_CHECK {\n track_file up\n }\n }\n}\n\
         track_file load {\n file /run/load\n weight 2\n}\n\
         vrrp_track_file up {\n file \"/run/up\"\n}\n",
    );
    let server = &config.virtual_servers[0].real_servers[0];
    let checks = server.checks.iter().map(|check| {
        let CheckKind::FileCheck(file) = &check.kind else {
            panic!("{:?}", check.kind);
        };
        (file.file.as_str(), file.weight)
    });
    let checks: Vec<_> = checks.collect();
    assert_eq!(
        checks,
        [("/run/load", 2), ("/run/load", -1), ("/run/up", 1)]
    );
}

/// keepalived sends no name then, and says nothing.
#[test]
fn enable_sni_without_a_name_is_a_warning() {
    let text = "virtual_server 192.0.2.1 443 {\n protocol TCP\n lb_kind DR\n real_server 192.0.2.2 443 {\n\
                SSL_GET {\n enable_sni\n url {\n path /\n }\n }\n }\n }";
    let warnings = parse_keepalived(text, Path::new("test.conf"))
        .unwrap()
        .warnings;
    let said = warnings.to_string();
    assert!(said.contains("enable_sni: no virtualhost"), "{said}");
}

/// keepalived: "zero port only valid for persistent services - setting".
#[test]
fn a_virtual_server_of_every_port_is_persistent() {
    let config = config(
        "virtual_server 192.0.2.1 {\n protocol TCP\n lb_kind DR\n }\n\
         virtual_server 192.0.2.2 0 {\n protocol TCP\n lb_kind DR\n persistence_timeout 50\n }\n\
         virtual_server_group G {\n192.0.2.3 80\n192.0.2.4\n}\n\
         virtual_server group G {\n protocol TCP\n lb_kind DR\n }\n\
         virtual_server 192.0.2.5 80 {\n protocol TCP\n lb_kind DR\n }",
    );
    let persistence = config.virtual_servers.iter().map(|server| {
        let persistence = server.options.persistence?;
        Some(persistence.timeout.as_secs())
    });
    let expected = [Some(360), Some(50), Some(360), Some(360), None];
    assert_eq!(persistence.collect::<Vec<_>>(), expected);
}

/// keepalived's `pgr_handler` sets the timeout, if there is none.
#[test]
fn a_granularity_alone_makes_persistent() {
    let config = config(
        "virtual_server 192.0.2.1 80 {\n protocol TCP\n lb_kind DR\n persistence_granularity 255.255.255.0\n }\n\
         virtual_server 2001:db8::1 80 {\n protocol TCP\n lb_kind DR\n persistence_granularity 64\n }\n\
         virtual_server 192.0.2.2 80 {\n protocol TCP\n lb_kind DR\n persistence_granularity 255.255.0.0\n \
         persistence_timeout 50\n }",
    );
    let persistence = config.virtual_servers.iter().map(|server| {
        let persistence = server.options.persistence?;
        Some((persistence.timeout.as_secs(), persistence.granularity))
    });
    let expected = [Some((360, 24)), Some((360, 64)), Some((50, 16))];
    assert_eq!(persistence.collect::<Vec<_>>(), expected);
}

/// As `keepalived -t` takes them, in one line or several.
#[test]
fn words_of_a_block_may_share_a_line() {
    let instance = |name: &str, id: u8| {
        format!(
            "vrrp_instance {name} {{\n interface eth0\n virtual_router_id {id}\n\
             virtual_ipaddress {{\n 192.0.2.{id}\n }}\n }}\n"
        )
    };
    let config = config(&format!(
        "global_defs {{\n notification_email {{ a@b.org c@d.org }}\n smtp_server 192.0.2.9\n }}\n{}{}{}\
         vrrp_sync_group G {{\n group {{\n VI_1 VI_2\n VI_3\n }}\n }}",
        instance("VI_1", 1),
        instance("VI_2", 2),
        instance("VI_3", 3),
    ));
    assert_eq!(config.vrrp_sync_groups[0].group, ["VI_1", "VI_2", "VI_3"]);
    let mail = config.notifications.mail.unwrap();
    assert_eq!(mail.to, ["a@b.org", "c@d.org"]);
}

/// The weights of one member alone would part the group: keepalived's `vrrp_complete_instance`.
#[test]
fn weights_of_members_of_a_sync_group_count_where_it_is_said() {
    let text = |word: &str| {
        format!(
            "vrrp_script plain {{\n script /bin/true\n }}\n\
             vrrp_script heavy {{\n script /bin/true\n weight -60\n }}\n\
             track_file one {{\n file /run/one\n }}\n\
             track_file two {{\n file /run/two\n weight 2\n }}\n\
             vrrp_instance VI_1 {{\n interface eth0\n virtual_router_id 51\n\
               virtual_ipaddress {{\n 192.0.2.1\n }}\n\
               track_script {{\n plain\n heavy\n }}\n track_file {{\n one\n two\n }}\n\
               track_interface {{\n eth1 weight -5\n }}\n }}\n\
             vrrp_sync_group G {{\n group {{\n VI_1\n }}\n{word}\n\
               track_script {{\n heavy\n }}\n }}"
        )
    };
    let tracked = |word: &str| {
        let config = config(&text(word));
        assert_eq!(config.vrrp_sync_groups[0].tracks.script[0].name, "heavy");
        let tracks = &config.vrrp_instances[0].tracks;
        let all = tracks.script.iter().chain(&tracks.file);
        let all = all.chain(&tracks.interface);
        let all = all.map(|tracked| (tracked.name.clone(), tracked.weight));
        all.collect::<Vec<_>>()
    };
    let named = |name: &str, weight| (name.to_owned(), weight);
    let without = [
        named("plain", None),
        named("one", Some(0)),
        named("eth1", Some(0)),
    ];
    assert_eq!(tracked(""), without);
    let with = [
        named("plain", None),
        named("heavy", None),
        named("one", None),
        named("two", None),
        named("eth1", Some(-5)),
    ];
    assert_eq!(tracked("sync_group_tracking_weight"), with);
    assert_eq!(tracked("global_tracking"), with);
}

/// A weight may be reversed where the script is written; noreverse takes that back.
#[test]
fn the_weight_of_a_script_may_be_reversed() {
    let config = config(
        "vrrp_script chk {\n script /bin/true\n weight -20 reverse\n }\n\
         track_file load {\n file /run/load\n weight 3 reverse\n }\n\
         vrrp_instance VI_1 {\n interface eth0\n virtual_router_id 51\n\
           virtual_ipaddress {\n 192.0.2.1\n }\n\
           track_script {\n chk\n }\n track_file {\n load weight 2\n }\n }\n\
         vrrp_sync_group G {\n group {\n VI_1\n }\n track_script {\n chk weight 1 noreverse\n }\n\
           sync_group_tracking_weight\n }",
    );
    let of = |tracked: &Tracked| (tracked.weight, tracked.reverse);
    let tracks = &config.vrrp_instances[0].tracks;
    assert_eq!(of(&tracks.script[0]), (Some(-20), true));
    assert_eq!(of(&tracks.file[0]), (Some(2), true));
    let tracks = &config.vrrp_sync_groups[0].tracks;
    assert_eq!(of(&tracks.script[0]), (Some(1), false));
}

/// keepalived: "notify_master script already specified - ignoring".
/// As keepalived 2.2.7 runs them.
#[test]
fn escapes_of_a_command_are_resolved_before_it_is_taken_apart() {
    let words = |command: &str| {
        let text = format!("vrrp_script s {{\n script {command}\n}}\n");
        config(&text).vrrp_scripts[0].script.words.clone()
    };
    let cases: [(&str, &[&str]); 4] = [
        (
            r#""/bin/sh -c 'test \"$(cat F)\" = ok'""#,
            &["/bin/sh", "-c", r#"test "$(cat F)" = ok"#],
        ),
        (
            r#""/bin/a \"a b\" 'c d' e\\ f""#,
            &["/bin/a", "a b", "c d", "e f"],
        ),
        ("\"/bin/a\tb\"", &["/bin/a", "b"]),
        (r#""/bin/a 'b\tc'""#, &["/bin/a", "b\tc"]),
    ];
    for (command, expected) in cases {
        assert_eq!(words(command), expected, "{command}");
    }
}

#[test]
fn of_a_mail_address_with_a_name_the_address_counts() {
    let text = "global_defs {\n notification_email {\n \"Ops <ops@example.com>\"\n a@b.c\n }\n \
                notification_email_from \"LB <lb@example.com>\"\n}\n";
    let mail = config(text).notifications.mail.unwrap();
    assert_eq!(mail.to, ["ops@example.com", "a@b.c"]);
    assert_eq!(mail.from.as_deref(), Some("lb@example.com"));
    let wrong = parse_keepalived(&text.replace("lb@", "l b@"), Path::new("test.conf"));
    assert!(wrong.unwrap_err().to_string().contains("bare address"));
}

#[test]
fn arguments_outside_of_quotes_are_a_warning() {
    let text = "vrrp_script s {\n script /bin/a b\n}\nvrrp_track_process p {\n process a b\n}\n";
    let checked = parse_keepalived(text, Path::new("test.conf"));
    let warnings = checked.unwrap().warnings.to_string();
    assert!(
        warnings.contains("2:16: ") && warnings.contains("in double quotes"),
        "{warnings}"
    );
    assert!(!warnings.contains("5:"), "{warnings}");
}

#[test]
fn of_scripts_and_fifos_the_first_counts() {
    let config = config(
        "global_defs {\n notify_fifo /run/a\n notify_fifo /run/b\n }\n\
         vrrp_instance VI_1 {\n interface eth0\n virtual_router_id 51\n priority 7\n priority 8\n\
           notify_master /bin/a\n notify_master /bin/b\n vmac_garp_intvl 10\n\
           virtual_ipaddress {\n 192.0.2.1\n }\n\
           virtual_routes {\n 192.0.2.128/25 via 192.0.2.9 protocol static\n }\n }",
    );
    let instance = &config.vrrp_instances[0];
    assert_eq!(instance.priority, 8);
    let script = instance.notify.master.as_ref().unwrap();
    assert_eq!(script.words, ["/bin/a"]);
    assert_eq!(instance.virtual_routes.len(), 1);
    let fifo = config.notifications.fifo.as_ref().unwrap();
    assert_eq!(fifo.path.to_string_lossy(), "/run/a");
}

#[test]
fn no_track_is_carried_over() {
    let config = config(
        "vrrp_instance VI_1 {\n interface eth0\n virtual_router_id 51\n\
           virtual_ipaddress {\n 192.0.2.1/24 dev eth1 no_track label eth1:0\n 192.0.2.2/24 dev eth2\n }\n\
           virtual_ipaddress_excluded {\n 2001:db8::1/64 dev eth3 no_track\n }\n\
           virtual_routes {\n 192.0.2.128/25 dev eth4 no_track\n 198.51.100.0/24 dev eth5\n }\n\
           virtual_rules {\n from 192.0.2.1 iif eth6 table 100 no_track\n iif eth7 oif eth8 prohibit\n }\n }",
    );
    let instance = &config.vrrp_instances[0];
    let watched: Vec<_> = instance.other_interfaces().into_iter().collect();
    assert_eq!(watched, ["eth2", "eth5", "eth7", "eth8"]);
    assert_eq!(
        instance.virtual_ipaddress[0].label.as_deref(),
        Some("eth1:0")
    );
}

/// Wherever it is written, and in each virtual server of a group.
#[test]
fn the_weight_of_a_virtual_server_is_the_default_of_its_real_servers() {
    let config = config(
        "virtual_server_group G {\n192.0.2.1-2 80\n}\n\
         virtual_server group G {\n protocol TCP\n lb_kind DR\n real_server 192.0.2.3 80 {\n }\n\
           weight 7\n real_server 192.0.2.4 80 {\n weight 2\n }\n real_server 192.0.2.5 80 {\n weight 0\n }\n }",
    );
    assert_eq!(config.virtual_servers.len(), 2);
    for service in &config.virtual_servers {
        let weights = service.real_servers.iter().map(|server| server.weight);
        assert_eq!(weights.collect::<Vec<_>>(), [7, 2, 0]);
    }
}

/// As keepalived 2.2.7 dumps them, but for the `connect_timeout` of a host that
/// has none: there it is 0, and such a check never succeeds.
#[test]
fn every_host_of_an_smtp_check_is_checked() {
    let config = config(
        "virtual_server 192.0.2.1 25 {\n protocol TCP\n real_server 192.0.2.2 25 {\n\
           SMTP_CHECK {\n connect_port 27\n connect_timeout 9\n helo_name early\n retry 2\n\
             host {\n connect_ip 192.0.2.3\n }\n\
             host {\n connect_port 26\n connect_timeout 4\n bindto 192.0.2.9\n }\n\
             helo_name later\n }\n }\n }",
    );
    let checks = config.virtual_servers[0].real_servers[0].checks.iter();
    let checks = checks.map(|check| {
        let CheckKind::SmtpCheck {
            helo_name: Some(name),
        } = &check.kind
        else {
            panic!("{:?}", check.kind);
        };
        let (target, bindto) = (check.target, check.source.bindto);
        let timeout = check.connect_timeout;
        format!(
            "{target} from {bindto:?} {name} {} {timeout:?}",
            check.retry
        )
    });
    let expected = [
        "192.0.2.2:27 from None later 2 9s",
        "192.0.2.3:25 from None later 2 9s",
        "192.0.2.2:26 from Some(192.0.2.9) later 2 4s",
    ];
    assert_eq!(checks.collect::<Vec<_>>(), expected);
}

/// With more than all servers weigh the sorry server would have everything for
/// ever. `keepalived -t` says the same of these, and the values are those it dumps.
#[test]
fn a_quorum_is_no_more_than_the_real_servers_weigh() {
    let cases = [
        ("quorum 5", "3", (3, 0)),
        ("quorum 5\nhysteresis 4", "3", (3, 2)),
        ("quorum 2\nhysteresis 2", "9", (2, 1)),
        ("quorum 3\nhysteresis 1", "9", (3, 1)),
        // Drained: the sorry server has everything, as in keepalived.
        ("quorum 5", "0", (1, 0)),
    ];
    for (quorum, weight, expected) in cases {
        let config = config(&format!(
            "virtual_server 192.0.2.1 80 {{\n protocol TCP\n lb_kind DR\n {quorum}\n sorry_server 192.0.2.9 80\n\
             real_server 192.0.2.2 80 {{\n weight {weight}\n }}\n }}"
        ));
        let found = &config.virtual_servers[0].quorum;
        assert_eq!((found.quorum, found.hysteresis), expected, "{quorum}");
    }
}
