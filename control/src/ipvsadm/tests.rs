//! Against what ipvsadm 1.31 printed: `tests/ipvsadm/README.md` says how.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::command::{
    Command, List, Method, Netmask, Protocol, SchedulerFlags, ServerSpec, ServiceName, ServiceSpec,
    SetTimeouts, TunnelChecksum, TunnelType, What,
};
use super::names::{Few, Names};
use super::table::{Connection, Numbers, Server, Service, Timeouts};
use super::{UsageError, connection_header, connection_row, list, parse, save};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/ipvsadm")
}

fn read(path: &str) -> String {
    let path = golden().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parse_line(line: &str) -> Result<Command, UsageError> {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    parse(&words, &Few)
}

#[test]
fn every_command_line_ends_as_with_ipvsadm() {
    let text = read("command-lines.txt");
    let lines: Vec<&str> = text.lines().collect();
    let mut wrong = Vec::new();
    for case in lines.chunks(2) {
        let [line, expected] = case else {
            panic!("half a case: {case:?}");
        };
        let line = line.strip_prefix("$ ").unwrap();
        let found = match parse_line(line) {
            Ok(_) => "0".to_owned(),
            Err(error) => format!("{} {}", error.status, error.message.trim_end()),
        };
        if found != *expected {
            wrong.push(format!("{line}: expected {expected:?}, found {found:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(lines.len() > 3000);
}

fn command(line: &str) -> Command {
    parse_line(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn name(protocol: Protocol, text: &str) -> ServiceName {
    ServiceName::Address {
        protocol,
        address: address(text),
    }
}

fn service_spec(name: ServiceName) -> ServiceSpec {
    ServiceSpec {
        name,
        scheduler: "wlc".to_owned(),
        flags: SchedulerFlags::default(),
        persistent: None,
        netmask: Netmask::Ipv4(Ipv4Addr::BROADCAST),
        one_packet: false,
        engine: None,
    }
}

#[test]
fn virtual_servers_have_what_was_asked_for() {
    let web = name(Protocol::Tcp, "192.168.1.110:80");
    assert_eq!(
        command("-A -t 192.168.1.110:80"),
        Command::AddService(service_spec(web))
    );
    let persistent = ServiceSpec {
        scheduler: "sh".to_owned(),
        flags: SchedulerFlags([true, true, false]),
        persistent: Some(360),
        netmask: Netmask::Ipv6(64),
        engine: Some("sip".to_owned()),
        one_packet: true,
        ..service_spec(name(Protocol::Udp, "[2001:db8::1]:53"))
    };
    assert_eq!(
        command("-E -u [2001:db8::1]:53 -p -M 64 -s sh -b sh-port,sh-fallback --pe sip -o"),
        Command::EditService(persistent)
    );
    let mark = ServiceName::Firewall {
        mark: 7,
        ipv6: true,
    };
    assert_eq!(command("-D -f 7 -6"), Command::DeleteService(mark));
    assert_eq!(command("-Z -f 7 -6"), Command::Zero(Some(mark)));
}

#[test]
fn real_servers_have_what_was_asked_for() {
    let web = name(Protocol::Tcp, "192.168.1.110:80");
    let added = |line: &str| {
        let Command::AddServer(service, server) = command(line) else {
            panic!("{line}");
        };
        assert_eq!(service, web);
        server
    };
    let direct = ServerSpec {
        address: address("192.168.1.11:80"),
        method: Method::Gatewaying,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let base = "-a -t 192.168.1.110:80 -r 192.168.1.11";
    assert_eq!(added(base), direct);
    // Only NAT can change the port.
    assert_eq!(added(&format!("{base}:81 -g")), direct);
    let nat = ServerSpec {
        address: address("192.168.1.11:81"),
        method: Method::Masquerading,
        weight: 5,
        upper_threshold: 9,
        lower_threshold: 3,
    };
    assert_eq!(added(&format!("{base}:81 -m -w 5 -x 9 -y 3")), nat);
    let gue = TunnelType::Gue { port: 6080 };
    let tunnel = ServerSpec {
        method: Method::Tunnel(gue, TunnelChecksum::Checksum),
        ..direct
    };
    let line = format!("{base} -i --tun-type gue --tun-port 6080 --tun-csum");
    assert_eq!(added(&line), tunnel);
    assert_eq!(
        command("-d -t 192.168.1.110:80 -r 192.168.1.11:81"),
        Command::DeleteServer(web, address("192.168.1.11:81"))
    );
}

#[test]
fn other_commands_have_what_was_asked_for() {
    let all = List {
        service: None,
        what: What::Services,
        numeric: false,
        exact: false,
        sorted: true,
    };
    assert_eq!(parse(&[], &Few), Ok(Command::List(all)));
    let rates = List {
        what: What::Rates,
        numeric: true,
        exact: true,
        sorted: false,
        ..all
    };
    assert_eq!(
        command("-Ln --rate --exact --nosort --sort"),
        Command::List(rates)
    );
    let connections = List {
        what: What::Connections { engine_data: true },
        ..all
    };
    assert_eq!(command("-Lc --persistent-conn"), Command::List(connections));
    let timeouts = SetTimeouts {
        tcp: 1,
        tcp_fin: 0,
        udp: 3,
    };
    assert_eq!(command("--set 1 0 3"), Command::SetTimeouts(timeouts));
    assert_eq!(command("-Sn"), Command::Save { numeric: true });
}

#[test]
fn help_is_as_with_ipvsadm() {
    assert_eq!(super::usage::help(), read("err/no_args_help.txt"));
}

/// Reads a `table` file: `tests/ipvsadm/README.md` has the columns.
fn table(directory: &str, line: &str) -> Vec<Service> {
    let own = format!(
        "{directory}/table{}",
        line.trim_start_matches(['L', 'n', 'c', 'S'])
    );
    let text = match golden().join(&own).exists() {
        true => read(&own),
        false => read(&format!("{directory}/table")),
    };
    let mut services: Vec<Service> = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            [
                "S",
                protocol,
                ip,
                port,
                mark,
                scheduler,
                flags,
                timeout,
                mask,
                engine,
                ..,
            ] => {
                let flags: u32 = flags.parse().unwrap();
                let address = SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap());
                let protocol = match protocol {
                    "6" | "0" => Protocol::Tcp,
                    "17" => Protocol::Udp,
                    "132" => Protocol::Sctp,
                    other => panic!("{other}"),
                };
                services.push(Service {
                    name: match mark {
                        "0" => ServiceName::Address { protocol, address },
                        mark => ServiceName::Firewall {
                            mark: mark.parse().unwrap(),
                            ipv6: address.is_ipv6(),
                        },
                    },
                    scheduler: scheduler.to_owned(),
                    flags: SchedulerFlags([3, 4, 5].map(|bit| flags & (1 << bit) != 0)),
                    persistent: (flags & 1 != 0).then(|| timeout.parse().unwrap()),
                    netmask: match mask.parse() {
                        Ok(mask) => Netmask::Ipv4(mask),
                        Err(_) => Netmask::Ipv6(mask.parse().unwrap()),
                    },
                    one_packet: flags & 4 != 0,
                    engine: (engine != "-").then(|| engine.to_owned()),
                    statistics: numbers(&fields[10..15]),
                    rates: numbers(&fields[15..20]),
                    servers: Vec::new(),
                });
            }
            ["D", ip, port, method, ..] => {
                let number = |place: usize| fields[place].parse::<u32>().unwrap();
                let checksum = match number(12) {
                    0 => TunnelChecksum::None,
                    1 => TunnelChecksum::Checksum,
                    2 => TunnelChecksum::Remote,
                    other => panic!("{other}"),
                };
                let tunnel = match number(10) {
                    0 => TunnelType::Ipip,
                    1 => TunnelType::Gue {
                        port: fields[11].parse().unwrap(),
                    },
                    2 => TunnelType::Gre,
                    other => panic!("{other}"),
                };
                services.last_mut().unwrap().servers.push(Server {
                    address: SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap()),
                    method: match method {
                        "0" => Method::Masquerading,
                        "2" => Method::Tunnel(tunnel, checksum),
                        "3" => Method::Gatewaying,
                        other => panic!("{other}"),
                    },
                    weight: number(4),
                    saved_weight: number(4),
                    upper_threshold: number(5),
                    lower_threshold: number(6),
                    active: number(7).into(),
                    inactive: number(8).into(),
                    persistent: number(9).into(),
                    statistics: numbers(&fields[13..18]),
                    rates: numbers(&fields[18..23]),
                });
            }
            _ => panic!("{line}"),
        }
    }
    services
}

/// Connections, packets and bytes in and out.
fn numbers(fields: &[&str]) -> Numbers {
    let number = |place: usize| fields[place].parse().unwrap();
    Numbers {
        connections: number(0),
        in_packets: number(1),
        out_packets: number(2),
        in_bytes: number(3),
        out_bytes: number(4),
    }
}

#[test]
fn listings_are_as_with_ipvsadm() {
    for directory in ["dr", "nat", "empty", "keepalived", "made-up", "order"] {
        for entry in fs::read_dir(golden().join(directory)).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let Some(line) = file.strip_suffix(".txt") else {
                continue;
            };
            let services = table(directory, line);
            let arguments = format!("-{}", line.replace("--", " --"));
            let command = command(&arguments);
            let found = if let Command::Save { numeric } = command {
                save(&services, numeric, &Few)
            } else if let Command::List(of) = command {
                match of.what {
                    What::Connections { .. } => continue,
                    What::Daemons => String::new(),
                    What::Timeouts => Timeouts {
                        tcp: 900,
                        tcp_fin: 120,
                        udp: 300,
                    }
                    .line(),
                    What::Services
                    | What::Statistics
                    | What::Rates
                    | What::Thresholds
                    | What::PersistentConnections
                    | What::Tunnels => list(&services, &of, &Few),
                }
            } else {
                panic!("{file}: {command:?}");
            };
            assert_eq!(
                found,
                read(&format!("{directory}/{file}")),
                "{directory}/{file}"
            );
        }
    }
}

/// Hosts with names as long as their providers make them.
#[derive(Debug)]
struct Long;

impl Names for Long {
    fn host(&self, _: &str) -> Option<IpAddr> {
        None
    }

    fn port(&self, _: &str, _: Protocol) -> Option<u16> {
        None
    }

    fn of_host(&self, address: IpAddr) -> Option<String> {
        let name = "a-very-long-host-name.production.example.com";
        (!address.is_loopback()).then(|| name.to_owned())
    }

    fn of_port(&self, _: u16, _: Protocol) -> Option<String> {
        None
    }
}

#[test]
fn long_names_of_ipv4_virtual_servers_are_cut() {
    let mut service = table("dr", "Ln").remove(0);
    service.servers.truncate(1);
    let Command::List(of) = command("-L") else {
        panic!();
    };
    let lines = |service: &Service| {
        let listed = list(std::slice::from_ref(service), &of, &Long);
        listed
            .lines()
            .skip(3)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let [virtual_server, real_server] = &lines(&service)[..] else {
        panic!();
    };
    assert!(virtual_server.starts_with("TCP  a-very-long-host-name.produc "));
    assert!(real_server.starts_with("  -> a-very-long-host-name.produc Route"));
    let saved = save(std::slice::from_ref(&service), false, &Long);
    assert!(saved.contains("a-very-long-host-name.production.example.com:80"));
    service.name = name(Protocol::Tcp, "[2001:db8::1]:80");
    for line in lines(&service) {
        assert!(line.contains(" a-very-long-host-name.production.example.com:80 "));
    }
}

#[test]
fn one_virtual_server_is_listed_without_the_first_line() {
    let services = table("dr", "Ln");
    let Command::List(of) = command("-Ln -t 192.168.1.110:80") else {
        panic!();
    };
    let all = read("dr/Ln.txt");
    let (_, rest) = all.split_once('\n').unwrap();
    assert_eq!(list(&services, &of, &Few), rest);
}

/// Reads the lines of `Lnc.txt` and writes those of the other files, but for
/// the seconds, which went by meanwhile.
#[test]
fn connections_are_as_with_ipvsadm() {
    for directory in ["dr", "nat", "empty"] {
        let numeric = read(&format!("{directory}/Lnc.txt"));
        let connections: Vec<Connection> = numeric.lines().skip(2).map(connection).collect();
        for file in ["Lnc", "Lc", "Lnc--persistent-conn"] {
            if directory == "empty" && file != "Lnc" {
                continue;
            }
            let arguments = format!("-{}", file.replace("--", " --"));
            let Command::List(of) = command(&arguments) else {
                panic!();
            };
            let mut found = connection_header(&of).to_owned();
            for connection in &connections {
                found.push_str(&connection_row(connection, of.numeric, &Few));
            }
            let expected = read(&format!("{directory}/{file}.txt"));
            assert_eq!(
                without_expiry(&found),
                without_expiry(&expected),
                "{directory}/{file}"
            );
            if file == "Lnc" {
                assert_eq!(found, expected);
            }
        }
    }
}

fn connection(line: &str) -> Connection {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (minutes, seconds) = fields[1].split_once(':').unwrap();
    Connection {
        protocol: fields[0].to_owned(),
        expires: minutes.parse::<u64>().unwrap() * 60 + seconds.parse::<u64>().unwrap(),
        state: fields[2].to_owned(),
        client: address(fields[3]),
        virtual_server: address(fields[4]),
        real_server: address(fields[5]),
    }
}

/// Minutes and seconds are columns 5 to 9 of the lines that have them.
fn without_expiry(text: &str) -> String {
    let lines = text.lines().map(|line| match line.as_bytes().get(6) {
        Some(b':') => format!("{}{}", &line[..4], &line[9..]),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_the_recorded_command_lines_leave_out() {
    for (line, expected) in [
        ("-d -t 1.2.3.4:80 -b foo", "invalid scheduler flag `foo'"),
        ("-C -b sh-port", "incompatible scheduler flag `sh-port'"),
        ("-A -t 1.2.3.4 -b foo", "invalid scheduler flag `foo'"),
        ("-A -t 1.2.3.4:80 -b foo x", "unexpected argument x"),
        (
            "-L -t 80",
            "illegal virtual server address[:port] specified",
        ),
        (
            "-d -t 1.2.3.4:80 -r 80",
            "illegal real server address[:port] specified",
        ),
        (
            "-A -t [fe80::1%lo]:80",
            "illegal virtual server address[:port] specified",
        ),
    ] {
        let error = parse_line(line).unwrap_err();
        assert_eq!(
            (error.message.as_str(), error.status),
            (expected, 2),
            "{line}"
        );
    }
    assert_eq!(command("-LX"), command("-L --exact"));
}

#[test]
fn lines_of_restore() {
    let parsed = |line| super::parse_line(line, &Few).unwrap();
    assert_eq!(parsed(""), None);
    assert_eq!(parsed(" \t"), None);
    assert_eq!(parsed("ipvsadm"), None);
    assert_eq!(parsed("ipvsadm -C\r"), Some(Command::Clear));
    assert_eq!(parsed("  -C "), Some(Command::Clear));
    let goes_on = |line| super::parse_line(line, &Few).unwrap_err().of_option;
    assert!(goes_on("-A -q") && goes_on("-A -s") && goes_on("-A --ops=1"));
    assert!(!goes_on("-q") && !goes_on("-A x") && !goes_on("-A -w x"));
    for line in ["-R", "# comment", "/sbin/ipvsadm -C", "-q"] {
        assert!(super::parse_line(line, &Few).is_err(), "{line}");
    }
}
