//! `-L`: virtual servers and their real servers in one of six layouts.

use std::fmt::{self, Write};

use super::command::{List, Method, ServiceName, TunnelChecksum, TunnelType, What};
use super::names::Names;
use super::sort;
use super::table::{Numbers, Server, Service, shown};

/// IPVS's number of hash buckets for connections, which the first line of
/// ipvsadm's listings tells. The appliance's table is not made of such
/// buckets; the number is there for what parses the line.
const TABLE_SIZE: u32 = 4096;

/// Of the protocol and the address of an IPv4 virtual server, and of the
/// addresses of its real servers: what is longer is cut.
const SERVICE_WIDTH: usize = 33;
const SERVER_WIDTH: usize = 28;

/// The listing of `services`. With `list.service` they are that one, and the
/// line about IPVS is left out.
#[must_use]
pub(crate) fn list(services: &[Service], list: &List, names: &dyn Names) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, services, list, names);
    out
}

fn write(out: &mut String, services: &[Service], list: &List, names: &dyn Names) -> fmt::Result {
    if list.service.is_none() {
        writeln!(out, "IP Virtual Server version 1.2.1 (size={TABLE_SIZE})")?;
    }
    out.push_str(header(list.what));
    let services: Vec<&Service> = match list.sorted {
        true => sort::services(services),
        false => services.iter().collect(),
    };
    for service in services {
        write_service(out, service, list, names)?;
        let servers: Vec<&Server> = match list.sorted {
            true => sort::servers(&service.servers),
            false => service.servers.iter().collect(),
        };
        for server in servers {
            let protocol = service.name.protocol();
            let mut address = shown(server.address, protocol, list.numeric, names);
            if !service.name.is_ipv6() {
                cut(&mut address, SERVER_WIDTH);
            }
            write_server(out, &address, server, list)?;
        }
    }
    Ok(())
}

fn header(what: What) -> &'static str {
    match what {
        What::Statistics => concat!(
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n",
            "  -> RemoteAddress:Port\n"
        ),
        What::Rates => concat!(
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n",
            "  -> RemoteAddress:Port\n"
        ),
        What::Thresholds => concat!(
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n",
            "  -> RemoteAddress:Port\n"
        ),
        What::PersistentConnections => concat!(
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n",
            "  -> RemoteAddress:Port\n"
        ),
        What::Tunnels => concat!(
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        ),
        What::Services | What::Connections { .. } | What::Timeouts | What::Daemons => concat!(
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        ),
    }
}

fn write_service(
    out: &mut String,
    service: &Service,
    list: &List,
    names: &dyn Names,
) -> fmt::Result {
    let mut name = match service.name {
        ServiceName::Address { protocol, address } => {
            let address = shown(address, protocol, list.numeric, names);
            format!("{:<4} {address}", protocol.to_string())
        }
        ServiceName::Firewall { mark, ipv6: false } => format!("FWM  {mark}"),
        ServiceName::Firewall { mark, ipv6: true } => format!("FWM  {mark} IPv6"),
    };
    if !service.name.is_ipv6() {
        cut(&mut name, SERVICE_WIDTH);
    }
    match list.what {
        What::Statistics => write_numbers(out, &name, &service.statistics, list.exact),
        What::Rates => write_numbers(out, &name, &service.rates, list.exact),
        What::Thresholds
        | What::PersistentConnections
        | What::Tunnels
        | What::Services
        | What::Connections { .. }
        | What::Timeouts
        | What::Daemons => {
            write!(out, "{name} {}", service.scheduler)?;
            let flags = service.flags.names(&service.scheduler);
            if !flags.is_empty() {
                write!(out, " ({flags})")?;
            }
            if let Some(timeout) = service.persistent {
                write!(out, " persistent {timeout}")?;
                if !service.netmask.is_host() {
                    write!(out, " mask {}", service.netmask)?;
                }
                if let Some(engine) = &service.engine {
                    write!(out, " pe {engine}")?;
                }
            }
            if service.one_packet {
                out.push_str(" ops");
            }
            writeln!(out)
        }
    }
}

fn write_server(out: &mut String, address: &str, server: &Server, list: &List) -> fmt::Result {
    let Server {
        weight,
        upper_threshold: upper,
        lower_threshold: lower,
        active,
        inactive,
        persistent,
        ..
    } = server;
    match list.what {
        What::Statistics => {
            let name = format!("  -> {address}");
            write_numbers(out, &name, &server.statistics, list.exact)
        }
        What::Rates => {
            let name = format!("  -> {address}");
            write_numbers(out, &name, &server.rates, list.exact)
        }
        What::Thresholds => writeln!(
            out,
            "  -> {address:<28} {upper:<10} {lower:<10} {active:<10} {inactive:<10}"
        ),
        What::PersistentConnections => writeln!(
            out,
            "  -> {address:<28} {weight:<9} {persistent:<11} {active:<10} {inactive:<10}"
        ),
        What::Tunnels => {
            let (method, tunnel) = (method(server.method), tunnel(server.method));
            writeln!(
                out,
                "  -> {address:<28} {method:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}"
            )
        }
        What::Services | What::Connections { .. } | What::Timeouts | What::Daemons => {
            let method = method(server.method);
            writeln!(
                out,
                "  -> {address:<28} {method:<7} {weight:<6} {active:<10} {inactive:<10}"
            )
        }
    }
}

fn cut(text: &mut String, width: usize) {
    if let Some((end, _)) = text.char_indices().nth(width) {
        text.truncate(end);
    }
}

fn write_numbers(out: &mut String, name: &str, numbers: &Numbers, exact: bool) -> fmt::Result {
    write!(out, "{name:<33}")?;
    for number in numbers.columns() {
        out.push_str(&column(number, exact));
    }
    writeln!(out)
}

/// Nine columns, unless an exact number needs more.
fn column(number: u64, exact: bool) -> String {
    const K: u64 = 1000;
    const M: u64 = 1000 * K;
    const G: u64 = 1000 * M;
    const T: u64 = 1000 * G;
    if exact || number < 100 * M {
        format!(" {number:>8}")
    } else if number < G {
        format!("{:>8}K", number / K)
    } else if number < 100 * G {
        format!("{:>8}M", number / M)
    } else if number < 100 * T {
        format!("{:>8}G", number / G)
    } else {
        format!("{:>8}T", number / T)
    }
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Gatewaying => "Route",
        Method::Masquerading => "Masq",
        Method::Tunnel(..) => "Tunnel",
    }
}

fn tunnel(method: Method) -> String {
    let Method::Tunnel(kind, checksum) = method else {
        return "n/a".to_owned();
    };
    let checksum = match checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Checksum => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match kind {
        TunnelType::Ipip => "ipip".to_owned(),
        TunnelType::Gue { port } => format!("gue:{port}:{checksum}"),
        TunnelType::Gre => format!("gre:{checksum}"),
    }
}
