//! A configuration as TOML, with every default written out.
//!
//! Invariant: [`parse`](super::parse) makes the same [`Config`] of it again.

mod checks;
mod limits;
mod notifications;
mod tracks;
mod vrrp;

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::time::Duration;

use dataplane::bpf::Prefix;
use dataplane::conn::{Association, Timeouts};
use dataplane::limits::WhenFull;
use dataplane::persistence::Persistence;
use dataplane::service::{
    ClientAddress, ForwardingMethod, FullNat, Protocol, ServiceOptions, TcpMidstream, Thresholds,
    Tunnel,
};
use dataplane::snapshot::Expiry;

use super::{
    Appliance, Config, Idle, Interface, Passive, Queues, Quorum, RealServer, VirtualServer,
    XdpMode, duration,
};
use crate::scripts::Policy;

use self::checks::{print_check, print_script as print_command, print_user};
use self::limits::{print_limits, print_syn_proxy};
use self::notifications::print_alert;

/// The effective configuration: what `check --print` shows.
#[must_use]
pub fn to_toml(config: &Config) -> String {
    Printed(config).to_string()
}

struct Printed<'c>(&'c Config);

impl Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config {
            router_id,
            scripts,
            notifications,
            vrrp,
            appliance,
            interfaces,
            vrrp_scripts,
            track_files,
            track_processes,
            vrrp_instances,
            vrrp_sync_groups,
            virtual_servers,
        } = self.0;
        print_global_defs(f, router_id.as_deref(), scripts)?;
        notifications::print_notifications(f, notifications)?;
        vrrp::print_defaults(f, vrrp)?;
        print_appliance(f, appliance)?;
        if interfaces.is_empty() {
            f.write_str("\n# no [[interface]]: every Ethernet interface that is up\n")?;
        }
        interfaces.iter().try_for_each(|i| print_interface(f, i))?;
        vrrp_scripts
            .iter()
            .try_for_each(|s| vrrp::print_script(f, s))?;
        let mut files = track_files.iter();
        files.try_for_each(|file| tracks::print_file(f, file))?;
        let mut processes = track_processes.iter();
        processes.try_for_each(|process| tracks::print_process(f, process))?;
        vrrp_instances
            .iter()
            .try_for_each(|i| vrrp::print_instance(f, i))?;
        vrrp_sync_groups
            .iter()
            .try_for_each(|g| vrrp::print_sync_group(f, g))?;
        virtual_servers
            .iter()
            .try_for_each(|s| print_virtual_server(f, s))
    }
}

fn print_global_defs(
    f: &mut fmt::Formatter<'_>,
    router_id: Option<&str>,
    scripts: &Policy,
) -> fmt::Result {
    let Policy { user, security } = scripts;
    writeln!(f, "[global_defs]")?;
    if let Some(router_id) = router_id {
        writeln!(f, "router_id = {}", quoted(router_id))?;
    }
    print_user(f, "script_user", user.as_ref())?;
    writeln!(f, "enable_script_security = {security}")
}

fn print_appliance(f: &mut fmt::Formatter<'_>, appliance: &Appliance) -> fmt::Result {
    let Appliance {
        control_socket,
        http,
        http_token_file,
        max_connections,
        tcp_midstream,
        cores,
        workers,
        idle,
        deny,
        allow,
        expiry: Expiry {
            nodest_conn,
            quiescent_template,
        },
        when_full,
        timeouts,
    } = appliance;
    let socket = quoted(&control_socket.to_string_lossy());
    let tcp_midstream = match tcp_midstream {
        TcpMidstream::Reset => "reset",
        TcpMidstream::Drop => "drop",
        TcpMidstream::Schedule => "schedule",
    };
    let when_full = match when_full {
        WhenFull::EvictHalfOpen => "evict-half-open",
        WhenFull::DropNew => "drop-new",
    };
    let idle = match idle {
        Idle::Adaptive => "adaptive",
        Idle::Busy => "busy",
        Idle::Interrupt => "interrupt",
    };
    writeln!(f, "[appliance]")?;
    writeln!(f, "control_socket = {socket}")?;
    match http {
        Some(address) => writeln!(f, "http = \"{address}\"")?,
        None => writeln!(f, "# no http: no status page")?,
    }
    if let Some(file) = http_token_file {
        let file = quoted(&file.to_string_lossy());
        writeln!(f, "http_token_file = {file}")?;
    }
    writeln!(f, "max_connections = {max_connections}")?;
    writeln!(f, "tcp_midstream = \"{tcp_midstream}\"")?;
    writeln!(f, "expire_nodest_conn = {nodest_conn}")?;
    writeln!(f, "expire_quiescent_template = {quiescent_template}")?;
    writeln!(f, "table_full = \"{when_full}\"")?;
    if cores.is_empty() {
        writeln!(f, "# no cores: all but the first, or the only one")?;
    } else {
        writeln!(f, "cores = {cores:?}")?;
    }
    if let Some(workers) = workers {
        writeln!(f, "workers = {workers}")?;
    }
    writeln!(f, "idle = \"{idle}\"")?;
    print_prefixes(f, "deny", deny)?;
    print_prefixes(f, "allow", allow)?;
    print_timeouts(f, timeouts)
}

fn print_prefixes(f: &mut fmt::Formatter<'_>, key: &str, prefixes: &[Prefix]) -> fmt::Result {
    if prefixes.is_empty() {
        return Ok(());
    }
    let prefixes: Vec<_> = prefixes.iter().map(Prefix::to_string).collect();
    writeln!(f, "{key} = {prefixes:?}")
}

fn print_timeouts(f: &mut fmt::Formatter<'_>, timeouts: &Timeouts) -> fmt::Result {
    let Timeouts {
        established,
        syn_sent,
        syn_recv,
        fin_wait,
        time_wait,
        close,
        close_wait,
        last_ack,
        listen,
        synack,
        udp,
        sctp,
    } = timeouts;
    writeln!(f, "\n[appliance.timeouts]")?;
    print_time(f, "established", *established)?;
    print_time(f, "syn_sent", *syn_sent)?;
    print_time(f, "syn_recv", *syn_recv)?;
    print_time(f, "fin_wait", *fin_wait)?;
    print_time(f, "time_wait", *time_wait)?;
    print_time(f, "close", *close)?;
    print_time(f, "close_wait", *close_wait)?;
    print_time(f, "last_ack", *last_ack)?;
    print_time(f, "listen", *listen)?;
    print_time(f, "synack", *synack)?;
    print_time(f, "udp", *udp)?;
    let mut states = Association::ALL.iter().zip(sctp);
    states.try_for_each(|((_, name, _), timeout)| print_time(f, name, *timeout))
}

fn print_interface(f: &mut fmt::Formatter<'_>, interface: &Interface) -> fmt::Result {
    let Interface { name, queues, mode } = interface;
    let mode = match mode {
        XdpMode::Auto => "auto",
        XdpMode::ZeroCopy => "zero-copy",
        XdpMode::Copy => "copy",
        XdpMode::Generic => "generic",
    };
    writeln!(f, "\n[[interface]]\nname = {}", quoted(name))?;
    match queues {
        Queues::All => writeln!(f, "queues = \"all\"")?,
        Queues::List(list) => writeln!(f, "queues = {list:?}")?,
    }
    writeln!(f, "mode = \"{mode}\"")
}

fn print_virtual_server(f: &mut fmt::Formatter<'_>, server: &VirtualServer) -> fmt::Result {
    print_virtual_server_head(f, server)?;
    let VirtualServer {
        real_servers,
        quorum,
        omega,
        smtp_alert,
        ..
    } = server;
    print_quorum(f, quorum)?;
    writeln!(f, "omega = {omega}")?;
    print_alert(f, "smtp_alert", *smtp_alert)?;
    real_servers
        .iter()
        .try_for_each(|s| print_real_server(f, s))
}

fn print_virtual_server_head(f: &mut fmt::Formatter<'_>, server: &VirtualServer) -> fmt::Result {
    let VirtualServer {
        key,
        scheduler,
        lb_kind,
        options:
            ServiceOptions {
                persistence,
                one_packet,
                matches,
                full_nat,
                limits,
                syn_proxy,
            },
        real_servers: _,
        quorum: _,
        omega: _,
        smtp_alert: _,
    } = server;
    writeln!(f, "\n[[virtual_server]]")?;
    if matches.is_empty() {
        writeln!(f, "address = \"{}\"", server.address())?;
    } else {
        let matches = matches.iter().map(|written| quoted(&written.to_string()));
        writeln!(f, "match = [{}]", commas(matches))?;
    }
    writeln!(f, "protocol = \"{}\"", key.protocol)?;
    writeln!(f, "lb_algo = \"{scheduler}\"")?;
    scheduler
        .flags()
        .try_for_each(|flag| writeln!(f, "{flag} = true"))?;
    print_lb_kind(f, *lb_kind)?;
    print_full_nat(f, full_nat)?;
    if let Some(Persistence {
        timeout,
        granularity,
    }) = persistence
    {
        print_time(f, "persistence_timeout", *timeout)?;
        writeln!(f, "persistence_granularity = {granularity}")?;
    }
    if key.protocol == Protocol::Udp {
        writeln!(f, "ops = {one_packet}")?;
    }
    print_limits(f, limits)?;
    print_syn_proxy(f, *syn_proxy)
}

fn print_full_nat(f: &mut fmt::Formatter<'_>, full_nat: &FullNat) -> fmt::Result {
    let FullNat {
        local_addresses,
        client_address,
    } = full_nat;
    if local_addresses.is_empty() {
        return Ok(());
    }
    let addresses = local_addresses.iter().map(|own| quoted(&own.to_string()));
    writeln!(f, "local_addresses = [{}]", commas(addresses))?;
    let mut names = ClientAddress::NAMES.iter();
    match names.find(|(_, way)| way == client_address) {
        Some((name, _)) => writeln!(f, "client_address = \"{name}\""),
        None => Ok(()),
    }
}

fn print_quorum(f: &mut fmt::Formatter<'_>, quorum: &Quorum) -> fmt::Result {
    let Quorum {
        quorum,
        hysteresis,
        up,
        down,
        sorry_server,
    } = quorum;
    writeln!(f, "quorum = {quorum}\nhysteresis = {hysteresis}")?;
    print_command(f, "quorum_up", up.as_ref())?;
    print_command(f, "quorum_down", down.as_ref())?;
    let Some(server) = sorry_server else {
        return Ok(());
    };
    writeln!(f, "sorry_server = \"{}\"", server.address)?;
    writeln!(f, "sorry_server_inhibit = {}", server.inhibit_on_failure)?;
    writeln!(f, "sorry_server_lvs_method = \"{}\"", server.lb_kind)
}

fn print_real_server(f: &mut fmt::Formatter<'_>, server: &RealServer) -> fmt::Result {
    let RealServer {
        address,
        lb_kind,
        weight,
        inhibit_on_failure,
        thresholds: Thresholds { upper, lower },
        checks,
        passive,
        notify_up,
        notify_down,
        smtp_alert,
    } = server;
    writeln!(
        f,
        "\n[[virtual_server.real_server]]\naddress = \"{address}\""
    )?;
    print_lb_kind(f, *lb_kind)?;
    writeln!(f, "weight = {weight}")?;
    writeln!(f, "uthreshold = {upper}")?;
    writeln!(f, "lthreshold = {lower}")?;
    writeln!(f, "inhibit_on_failure = {inhibit_on_failure}")?;
    if let Some(Passive {
        max_fails,
        fail_timeout,
    }) = passive
    {
        writeln!(f, "max_fails = {max_fails}")?;
        print_time(f, "fail_timeout", *fail_timeout)?;
    }
    print_command(f, "notify_up", notify_up.as_ref())?;
    print_command(f, "notify_down", notify_down.as_ref())?;
    print_alert(f, "smtp_alert", *smtp_alert)?;
    checks.iter().try_for_each(|c| print_check(f, c))
}

fn print_lb_kind(f: &mut fmt::Formatter<'_>, method: ForwardingMethod) -> fmt::Result {
    writeln!(f, "lb_kind = \"{method}\"")?;
    match method {
        ForwardingMethod::Tunnel(Tunnel::Ipip) => writeln!(f, "tun_type = \"ipip\""),
        ForwardingMethod::Tunnel(Tunnel::Gre) => writeln!(f, "tun_type = \"gre\""),
        ForwardingMethod::Tunnel(Tunnel::Gue { port }) => {
            writeln!(f, "tun_type = \"gue\"\ntun_port = {port}")
        }
        ForwardingMethod::Direct | ForwardingMethod::Nat | ForwardingMethod::FullNat => Ok(()),
    }
}

fn print_ip(f: &mut fmt::Formatter<'_>, key: &str, address: IpAddr) -> fmt::Result {
    writeln!(f, "{key} = \"{address}\"")
}

/// Whole seconds as a number, the rest as text with a unit.
fn print_time(f: &mut fmt::Formatter<'_>, key: &str, time: Duration) -> fmt::Result {
    if time.subsec_nanos() == 0 {
        writeln!(f, "{key} = {}", time.as_secs())
    } else {
        writeln!(f, "{key} = \"{}\"", duration::to_text(time))
    }
}

/// A TOML string.
fn quoted(text: &str) -> toml::Value {
    toml::Value::from(text)
}

fn commas(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<_> = items.map(|item| item.to_string()).collect();
    items.join(", ")
}
