//! `-S`: the command lines that make the table again, for `-R`.
//!
//! As with ipvsadm, thresholds are not among them.

use std::fmt::{self, Write};

use super::command::{Method, Protocol, ServiceName, TunnelChecksum, TunnelType};
use super::names::Names;
use super::sort;
use super::table::{Server, Service, shown};

/// One command a line.
#[must_use]
pub(crate) fn save(services: &[Service], numeric: bool, names: &dyn Names) -> String {
    let mut out = String::new();
    for service in sort::services(services) {
        // Writing to a String cannot fail.
        let _ = write(&mut out, service, numeric, names);
    }
    out
}

fn write(out: &mut String, service: &Service, numeric: bool, names: &dyn Names) -> fmt::Result {
    let name = match service.name {
        ServiceName::Address { protocol, address } => {
            let option = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {}", shown(address, protocol, numeric, names))
        }
        ServiceName::Firewall { mark, ipv6: false } => format!("-f {mark}"),
        ServiceName::Firewall { mark, ipv6: true } => format!("-f {mark} -6"),
    };
    write!(out, "-A {name} -s {}", service.scheduler)?;
    if let Some(timeout) = service.persistent {
        write!(out, " -p {timeout}")?;
        if !service.netmask.is_host() {
            write!(out, " -M {}", service.netmask)?;
        }
    }
    if let Some(engine) = &service.engine {
        write!(out, " --pe {engine}")?;
    }
    if service.one_packet {
        out.push_str(" -o");
    }
    let flags = service.flags.names(&service.scheduler);
    if !flags.is_empty() {
        write!(out, " -b {flags}")?;
    }
    writeln!(out)?;
    for server in sort::servers(&service.servers) {
        let address = shown(server.address, service.name.protocol(), numeric, names);
        let Server {
            method,
            saved_weight: weight,
            ..
        } = server;
        let (option, tunnel) = match method {
            Method::Gatewaying => ("-g", String::new()),
            Method::Masquerading => ("-m", String::new()),
            Method::Tunnel(kind, checksum) => ("-i", tunnel(*kind, *checksum)),
        };
        writeln!(out, "-a {name} -r {address} {option} -w {weight}{tunnel}")?;
    }
    Ok(())
}

fn tunnel(kind: TunnelType, checksum: TunnelChecksum) -> String {
    let checksum = match checksum {
        TunnelChecksum::None => "--tun-nocsum",
        TunnelChecksum::Checksum => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    };
    match kind {
        TunnelType::Ipip => " --tun-type ipip".to_owned(),
        TunnelType::Gue { port } => format!(" --tun-type gue --tun-port {port} {checksum}"),
        TunnelType::Gre => format!(" --tun-type gre {checksum}"),
    }
}
