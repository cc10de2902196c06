//! What the appliance shows, as metrics for Prometheus: `GET /metrics`.
//!
//! Names are `appliance_*`, with base units; what only grows ends in `_total`. Every counter of
//! [`Counters`] is here by its own name without this file knowing it. Virtual servers have no numbers
//! of their own: a sum over real servers would fall when one is removed, which Prometheus takes for a
//! restart. `docs/http.md` explains each.

use std::fmt::Display;

use dataplane::counters::Counters;

use super::exposition::{Exposition, Kind};
use super::view::{
    Health, HealthCheck, RealServer, Service, State, TimerSlip, Vrrp, VrrpInstance, VrrpRefused,
    Worker, WorkerInterface,
};

/// The states of a VRRP instance, each a time series.
const VRRP_STATES: [&str; 4] = ["INIT", "BACKUP", "MASTER", "FAULT"];

/// All metrics.
pub(super) fn render(state: &State) -> String {
    let State {
        version,
        services,
        workers,
        drops,
        health,
        vrrp,
    } = state;
    let mut text = Exposition::default();
    let out = &mut text;
    let help = "Its value is 1; the label says which version runs.";
    let mut family = out.family("appliance_build_info", Kind::Gauge, help);
    family.sample(&[("version", &version.version)], 1);
    let help = "Time since the control socket opened.";
    let mut family = out.family("appliance_uptime_seconds", Kind::Gauge, help);
    family.sample(&[], version.uptime_seconds);
    write_workers(out, workers);
    write_sockets(out, workers);
    write_steering(out, workers);
    let help = "Packets dropped by workers and by deny, by reason.";
    let mut family = out.family("appliance_dropped_packets_total", Kind::Counter, help);
    for drop in drops {
        family.sample(&[("reason", &drop.reason)], drop.packets_total);
    }
    write_real_servers(out, services);
    write_checks(out, health);
    write_vrrp(out, vrrp);
    write_slip(out, &vrrp.timer_slip);
    text.finish()
}

/// Name, kind, help, and how to get the value out of what is described.
type Column<T> = (&'static str, Kind, &'static str, fn(&T) -> u64);

fn write_workers(out: &mut Exposition, workers: &[Worker]) {
    for (name, description) in Counters::NAMES.iter().zip(Counters::DESCRIPTIONS) {
        let (metric, kind) = if description.contains("(gauge)") {
            (format!("appliance_{name}"), Kind::Gauge)
        } else {
            (format!("appliance_{name}_total"), Kind::Counter)
        };
        let mut family = out.family(&metric, kind, description);
        for worker in workers {
            let value = worker.counters.get(*name).copied().unwrap_or(0);
            family.sample(&[("worker", &worker.worker)], value);
        }
    }
    let help = "Its value is 1; the labels say which CPU a worker is pinned to.";
    let mut family = out.family("appliance_worker_info", Kind::Gauge, help);
    for worker in workers {
        let labels: [(_, &dyn Display); 2] = [("worker", &worker.worker), ("core", &worker.core)];
        family.sample(&labels, 1);
    }
    let help = "Generation of the forwarding state that a worker works with.";
    let mut family = out.family("appliance_worker_snapshot_generation", Kind::Gauge, help);
    for worker in workers {
        family.sample(&[("worker", &worker.worker)], worker.snapshot_generation);
    }
    let ways = || {
        workers
            .iter()
            .filter_map(|w| Some((w, w.way_back.as_ref()?)))
    };
    let help = "Packets that the kernel did not take back from a worker.";
    let name = "appliance_way_back_refused_packets_total";
    let mut family = out.family(name, Kind::Counter, help);
    for (worker, way) in ways() {
        let labels: [(_, &dyn Display); 2] =
            [("worker", &worker.worker), ("interface", &way.interface)];
        family.sample(&labels, way.tx_invalid + way.tx_dropped);
    }
}

const SOCKETS: [Column<WorkerInterface>; 6] = [
    (
        "appliance_socket_rx_dropped_packets_total",
        Kind::Counter,
        "Packets that the kernel dropped for other reasons than full rings.",
        |socket| socket.rx_dropped,
    ),
    (
        "appliance_socket_rx_ring_full_packets_total",
        Kind::Counter,
        "Packets that the kernel dropped because the worker was too slow.",
        |socket| socket.rx_ring_full,
    ),
    (
        "appliance_socket_rx_fill_ring_empty_total",
        Kind::Counter,
        "Times that the kernel found no free frame to receive into.",
        |socket| socket.rx_fill_ring_empty,
    ),
    (
        "appliance_socket_tx_invalid_packets_total",
        Kind::Counter,
        "Packets that the kernel refused to transmit.",
        |socket| socket.tx_invalid,
    ),
    (
        "appliance_socket_tx_dropped_packets_total",
        Kind::Counter,
        "Packets that the driver reported as dropped while sending.",
        |socket| socket.tx_dropped,
    ),
    (
        "appliance_socket_kernel_invalid_total",
        Kind::Counter,
        "Descriptors from the kernel that named no frame of ours: a kernel bug.",
        |socket| socket.kernel_invalid,
    ),
];

fn write_sockets(out: &mut Exposition, workers: &[Worker]) {
    let sockets = || {
        let each = |worker| move |socket| (worker, socket);
        workers
            .iter()
            .flat_map(move |worker| worker.interfaces.iter().map(each(worker)))
    };
    let help = "Its value is 1; the labels say how AF_XDP is attached to a queue.";
    let mut family = out.family("appliance_socket_info", Kind::Gauge, help);
    for (worker, socket) in sockets() {
        let labels: [(_, &dyn Display); 5] = [
            ("worker", &worker.worker),
            ("interface", &socket.interface),
            ("queue", &socket.queue),
            ("mode", &socket.mode.as_str()),
            ("zero_copy", &socket.zero_copy),
        ];
        family.sample(&labels, 1);
    }
    for (name, kind, help, value) in SOCKETS {
        let mut family = out.family(name, kind, help);
        for (worker, socket) in sockets() {
            let labels: [(_, &dyn Display); 3] = [
                ("worker", &worker.worker),
                ("interface", &socket.interface),
                ("queue", &socket.queue),
            ];
            family.sample(&labels, value(socket));
        }
    }
}

/// Every socket of an interface has the numbers of the interface.
fn write_steering(out: &mut Exposition, workers: &[Worker]) {
    let help = "Packets that an interface received, by what its XDP program did with them.";
    let mut family = out.family("appliance_steering_packets_total", Kind::Counter, help);
    let mut seen = Vec::new();
    for socket in workers.iter().flat_map(|worker| &worker.interfaces) {
        if seen.contains(&&socket.interface) {
            continue;
        }
        seen.push(&socket.interface);
        let steering = &socket.steering;
        let actions = [
            ("steered", steering.steered),
            ("passed", steering.passed),
            ("no_socket", steering.no_socket),
            ("not_for_us", steering.not_for_us),
            ("denied", steering.denied),
        ];
        for (action, packets) in actions {
            let labels: [(_, &dyn Display); 2] =
                [("interface", &socket.interface), ("action", &action)];
            family.sample(&labels, packets);
        }
    }
}

const REAL_SERVERS: [Column<RealServer>; 11] = [
    (
        "appliance_real_server_up",
        Kind::Gauge,
        "1: its checks, if any, let it take new connections.",
        |server| server.health.is_fit().into(),
    ),
    (
        "appliance_real_server_weight",
        Kind::Gauge,
        "As scheduled now: 0 takes no new connections.",
        |server| server.weight.into(),
    ),
    (
        "appliance_real_server_drained",
        Kind::Gauge,
        "1: appliance drain took it out of use.",
        |server| server.drained.into(),
    ),
    (
        "appliance_real_server_next_hop_known",
        Kind::Gauge,
        "0: packets for it cannot be sent.",
        |server| server.next_hop.is_some().into(),
    ),
    (
        "appliance_real_server_active_connections",
        Kind::Gauge,
        "Connections in state ESTABLISHED.",
        |server| server.traffic.active_connections,
    ),
    (
        "appliance_real_server_inactive_connections",
        Kind::Gauge,
        "Connections in any other state; all of UDP's.",
        |server| server.traffic.inactive_connections,
    ),
    (
        "appliance_real_server_connections_total",
        Kind::Counter,
        "Connections scheduled to it.",
        |server| server.traffic.connections_total,
    ),
    (
        "appliance_real_server_packets_total",
        Kind::Counter,
        "Packets from clients.",
        |server| server.traffic.packets_total,
    ),
    (
        "appliance_real_server_bytes_total",
        Kind::Counter,
        "IP bytes from clients.",
        |server| server.traffic.bytes_total,
    ),
    (
        "appliance_real_server_reply_packets_total",
        Kind::Counter,
        "Packets from the real server, which only NAT and FULLNAT see.",
        |server| server.traffic.reply_packets_total,
    ),
    (
        "appliance_real_server_reply_bytes_total",
        Kind::Counter,
        "IP bytes of these.",
        |server| server.traffic.reply_bytes_total,
    ),
];

fn write_real_servers(out: &mut Exposition, services: &[Service]) {
    let help = "Its value is 1; the labels describe a virtual server.";
    let mut family = out.family("appliance_virtual_server_info", Kind::Gauge, help);
    for service in services {
        let labels: [(_, &dyn Display); 5] = [
            ("protocol", &service.protocol),
            ("virtual_server", &service.address),
            ("match", &service.matches.join(", ")),
            ("scheduler", &service.scheduler),
            ("forwarding_method", &service.forwarding_method),
        ];
        family.sample(&labels, 1);
    }
    for (name, kind, help, value) in REAL_SERVERS {
        let mut family = out.family(name, kind, help);
        for service in services {
            let servers = &service.real_servers;
            for (number, server) in servers.iter().enumerate() {
                // A sorry server may be one of the others, and a series must not come twice.
                if servers[..number]
                    .iter()
                    .any(|other| other.address == server.address)
                {
                    continue;
                }
                let labels: [(_, &dyn Display); 3] = [
                    ("protocol", &service.protocol),
                    ("virtual_server", &service.address),
                    ("real_server", &server.address),
                ];
                family.sample(&labels, value(server));
            }
        }
    }
}

const CHECKS: [Column<HealthCheck>; 3] = [
    (
        "appliance_health_check_up",
        Kind::Gauge,
        "1: the check passes.",
        |check| (check.state == Health::Up).into(),
    ),
    (
        "appliance_health_check_failures",
        Kind::Gauge,
        "Failed tries in a row.",
        |check| check.failures,
    ),
    (
        "appliance_health_check_state_age_seconds",
        Kind::Gauge,
        "Time since the check began to pass or to fail.",
        |check| check.since_seconds,
    ),
];

fn write_checks(out: &mut Exposition, checks: &[HealthCheck]) {
    for (name, kind, help, value) in CHECKS {
        let mut family = out.family(name, kind, help);
        let mut number = 0_usize;
        let mut before = None;
        for check in checks {
            // A real server may have several of a kind; they stand together.
            let whose = (&check.protocol, check.virtual_server, check.real_server);
            number = if before == Some(whose) { number + 1 } else { 0 };
            before = Some(whose);
            let labels: [(_, &dyn Display); 6] = [
                ("protocol", &check.protocol),
                ("virtual_server", &check.virtual_server),
                ("real_server", &check.real_server),
                ("number", &number),
                ("check", &check.check),
                ("target", &check.target),
            ];
            family.sample(&labels, value(check));
        }
    }
}

const VRRP: [Column<VrrpInstance>; 10] = [
    (
        "appliance_vrrp_priority",
        Kind::Gauge,
        "With the weights of what it tracks.",
        |instance| instance.priority.into(),
    ),
    (
        "appliance_vrrp_faults",
        Kind::Gauge,
        "Number of things that keep it in FAULT.",
        |instance| instance.faults.len() as u64,
    ),
    (
        "appliance_vrrp_state_age_seconds",
        Kind::Gauge,
        "Time spent in its state.",
        |instance| instance.since_seconds,
    ),
    (
        "appliance_vrrp_adverts_sent_total",
        Kind::Counter,
        "Advertisements sent.",
        |instance| instance.adverts_sent_total,
    ),
    (
        "appliance_vrrp_adverts_received_total",
        Kind::Counter,
        "Advertisements received that were followed.",
        |instance| instance.adverts_received_total,
    ),
    (
        "appliance_vrrp_became_master_total",
        Kind::Counter,
        "Times that it became master.",
        |instance| instance.became_master_total,
    ),
    (
        "appliance_vrrp_released_master_total",
        Kind::Counter,
        "Times that it was master and is no more.",
        |instance| instance.released_master_total,
    ),
    (
        "appliance_vrrp_priority_zero_sent_total",
        Kind::Counter,
        "Advertisements of priority 0 sent: it stopped as master.",
        |instance| instance.priority_zero_sent_total,
    ),
    (
        "appliance_vrrp_priority_zero_received_total",
        Kind::Counter,
        "Advertisements of priority 0 received: a master stopped.",
        |instance| instance.priority_zero_received_total,
    ),
    (
        "appliance_vrrp_late_adverts_total",
        Kind::Counter,
        "Advertisements sent later than half an advert_int after their time.",
        |instance| instance.late_adverts_total,
    ),
];

fn write_vrrp(out: &mut Exposition, vrrp: &Vrrp) {
    let help = "1 for the state that an instance is in, 0 for the others.";
    let mut family = out.family("appliance_vrrp_state", Kind::Gauge, help);
    for instance in &vrrp.instances {
        for state in VRRP_STATES {
            let labels: [(_, &dyn Display); 2] = [("instance", &instance.name), ("state", &state)];
            family.sample(&labels, u8::from(instance.state == state));
        }
    }
    for (name, kind, help, value) in VRRP {
        let mut family = out.family(name, kind, help);
        for instance in &vrrp.instances {
            family.sample(&[("instance", &instance.name)], value(instance));
        }
    }
    let help = "VRRP packets that were refused, by reason; without an instance: of none of ours.";
    let name = "appliance_vrrp_refused_packets_total";
    let mut family = out.family(name, Kind::Counter, help);
    let mut write = |instance: &str, refused: &[VrrpRefused]| {
        for VrrpRefused { reason, total, .. } in refused {
            let labels: [(_, &dyn Display); 2] = [("instance", &instance), ("reason", reason)];
            family.sample(&labels, total);
        }
    };
    write("", &vrrp.refused);
    for instance in &vrrp.instances {
        write(&instance.name, &instance.refused);
    }
}

fn write_slip(out: &mut Exposition, slip: &TimerSlip) {
    let help = "How much later than asked for the control thread's timers ran.";
    let mut family = out.family("appliance_timer_slip_seconds", Kind::Histogram, help);
    let buckets = slip.buckets.iter();
    family.histogram(
        buckets.map(|bucket| (seconds(bucket.le_microseconds), bucket.timers_total)),
        seconds(slip.sum_microseconds),
        slip.timers_total,
    );
}

fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

#[cfg(test)]
mod tests;
