//! The status page: `GET /`.
//!
//! One HTML page that needs nothing else: it can be read without a network, by a browser without scripts,
//! and by `curl`. With scripts it brings itself up to date: `status.js` fetches the page again, puts the
//! new `<main>` in place of the old one, and computes rates from the elements that have `data-total`,
//! which are the same when their `data-key` is.
//!
//! On top stands what is wrong, in words: whoever is woken up reads that first.

mod html;
mod problems;

use std::fmt::{self, Write};

use self::html::{Cell, begin, end, escape, number, row, text};
use super::view::{Health, HealthCheck, RealServer, Service, State, Vrrp, Worker};
use crate::in_words::{count, duration};

const STYLE: &str = include_str!("page/status.css");
const SCRIPT: &str = include_str!("page/status.js");
/// Nothing but what is in the page, and the page itself again.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
     script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// The whole page.
pub(super) fn render(state: &State) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_page(&mut page, state);
    page
}

fn write_page(out: &mut String, state: &State) -> fmt::Result {
    let problems = problems::find(state);
    let title = match problems.len() {
        0 => "appliance".to_owned(),
        some => format!("({some}) appliance"),
    };
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    )?;
    write_head(out, state, &problems)?;
    write_tiles(out, state)?;
    write_services(out, &state.services)?;
    if !state.vrrp.instances.is_empty() {
        write_vrrp(out, &state.vrrp)?;
    }
    write_checks(out, &state.health)?;
    write_workers(out, &state.workers)?;
    write_drops(out, state)?;
    out.push_str(
        "<footer class=\"quiet\"><a href=\"/metrics\">metrics</a> \
         <a href=\"/api/v1/services\">services</a> <a href=\"/api/v1/connections\">connections</a> \
         <a href=\"/api/v1/config\">configuration</a></footer>\n</main>\n",
    );
    writeln!(out, "<script>\n{SCRIPT}</script>\n</body>\n</html>")
}

fn write_head(out: &mut String, state: &State, problems: &[String]) -> fmt::Result {
    let version = &state.version;
    let verdict = match problems.len() {
        0 => "<span class=\"good\">all is well</span>".to_owned(),
        some => format!("<span class=\"bad\">{}</span>", count(some, "problem")),
    };
    writeln!(
        out,
        "<header><h1>appliance</h1> {verdict} <span class=\"quiet\">version {}, up {}, pid {}</span> \
         <span id=\"live\" class=\"quiet\"></span></header>",
        escape(&version.version),
        duration(version.uptime_seconds),
        version.pid
    )?;
    if !problems.is_empty() {
        out.push_str("<ul class=\"problems\">\n");
        for problem in problems {
            writeln!(out, "<li>{}</li>", escape(problem))?;
        }
        out.push_str("</ul>\n");
    }
    Ok(())
}

fn write_tiles(out: &mut String, state: &State) -> fmt::Result {
    let counter = |name: &str| {
        let counters = state.workers.iter().filter_map(|w| w.counters.get(name));
        counters.sum::<u64>()
    };
    let dropped: u64 = state.drops.iter().map(|drop| drop.packets_total).sum();
    let servers = || state.services.iter().flat_map(|s| &s.real_servers);
    let up = servers().filter(|server| server.health.is_fit()).count();
    out.push_str("<section class=\"tiles\">\n");
    for (key, total, what) in [
        ("packets", counter("rx_packets"), "packets received"),
        ("bytes", counter("rx_bytes"), "bytes received"),
        ("begun", counter("connections_created"), "connections begun"),
        ("dropped", dropped, "packets dropped"),
    ] {
        writeln!(
            out,
            "<div><b class=\"rate\" data-key=\"{key}\" data-total=\"{total}\">–</b>\
             <span>{what}/s</span><small>{} in all</small></div>",
            number(total)
        )?;
    }
    let connections = number(counter("connections"));
    let servers = format!("{up} of {}", servers().count());
    for (value, what) in [
        (connections, "connections now"),
        (servers, "real servers up"),
    ] {
        writeln!(out, "<div><b>{value}</b><span>{what}</span></div>")?;
    }
    out.push_str("</section>\n");
    Ok(())
}

fn write_services(out: &mut String, services: &[Service]) -> fmt::Result {
    let titles = [
        "Virtual server, real servers",
        "Method",
        "Weight",
        "#Active",
        "#Inactive",
        "#Connections",
        "#Packets",
        "#Bytes",
        "State",
    ];
    begin(out, "Virtual servers", &titles);
    for service in services {
        let name = format!("{} {}", service.protocol, service.address);
        let matches = match service.matches.as_slice() {
            [] => String::new(),
            some => format!(", {}", some.join(", ")),
        };
        let all = service.real_servers.len();
        let fit = |server: &&RealServer| server.health.is_fit();
        let up = service.real_servers.iter().filter(fit).count();
        let traffic = &service.traffic;
        let total = |what: &str, value| Cell::Total(format!("{name} {what}"), value);
        let state = Cell::Mark(
            if up == 0 { "bad" } else { "quiet" },
            format!("{up} of {all} up").into(),
        );
        let cells = [
            text(format!("{name}{matches}")),
            text(&*service.scheduler),
            text(""),
            Cell::Number(traffic.active_connections),
            Cell::Number(traffic.inactive_connections),
            total("connections", traffic.connections_total),
            total("packets", traffic.packets_total),
            total("bytes", traffic.bytes_total),
            state,
        ];
        row(out, "service", &cells)?;
        for server in &service.real_servers {
            write_server(out, &name, server)?;
        }
    }
    end(out);
    Ok(())
}

fn write_server(out: &mut String, service: &str, server: &RealServer) -> fmt::Result {
    let traffic = &server.traffic;
    let key = |what: &str| format!("{service} {} {what}", server.address);
    let mut state = server.health.as_str().to_owned();
    if server.drained {
        state += ", drained";
    }
    if let Some(reason) = &server.reason {
        state = format!("{state}: {reason}");
    }
    if server.next_hop.is_none() {
        state += "; next hop unknown";
    }
    let class = match server.health {
        Health::Down => "bad",
        Health::Up | Health::Unchecked if server.next_hop.is_some() && !server.drained => "good",
        Health::Up | Health::Unchecked | Health::Checking => "warn",
    };
    let weight = match (server.weight, server.configured_weight) {
        (now, configured) if now == configured => now.to_string(),
        (now, configured) => format!("{now} of {configured}"),
    };
    let cells = [
        text(format!("→ {}", server.address)),
        text(&*server.forwarding_method),
        text(weight),
        Cell::Number(traffic.active_connections),
        Cell::Number(traffic.inactive_connections),
        Cell::Total(key("connections"), traffic.connections_total),
        Cell::Total(key("packets"), traffic.packets_total),
        Cell::Total(key("bytes"), traffic.bytes_total),
        Cell::Mark(class, state.into()),
    ];
    row(out, "server", &cells)
}

fn write_vrrp(out: &mut String, vrrp: &Vrrp) -> fmt::Result {
    let titles = [
        "Instance",
        "State",
        "For",
        "Interface",
        "#Router id",
        "#Priority",
        "Master",
        "Addresses",
    ];
    begin(out, "VRRP", &titles);
    for instance in &vrrp.instances {
        let class = match &*instance.state {
            "MASTER" => "good",
            "FAULT" => "bad",
            _ => "quiet",
        };
        let master = match (instance.master, instance.master_priority) {
            (Some(address), Some(priority)) => format!("{address} ({priority})"),
            _ => String::new(),
        };
        let cells = [
            text(&instance.name),
            Cell::Mark(class, (&*instance.state).into()),
            text(duration(instance.since_seconds)),
            text(&instance.interface),
            Cell::Number(instance.virtual_router_id.into()),
            Cell::Number(instance.priority.into()),
            text(master),
            text(instance.addresses.join(", ")),
        ];
        row(out, "", &cells)?;
    }
    end(out);
    Ok(())
}

/// Those that do not pass: the others are as they should be, and may be thousands.
fn write_checks(out: &mut String, checks: &[HealthCheck]) -> fmt::Result {
    let failing = || checks.iter().filter(|check| check.state != Health::Up);
    if failing().next().is_none() {
        return Ok(());
    }
    let heading = format!("Checks that do not pass, of {}", checks.len());
    let titles = [
        "Real server",
        "Virtual server",
        "Check",
        "State",
        "For",
        "#Failures",
        "Last result",
    ];
    begin(out, &heading, &titles);
    for check in failing() {
        let class = if check.state == Health::Down {
            "bad"
        } else {
            "warn"
        };
        let cells = [
            text(check.real_server.to_string()),
            text(format!("{} {}", check.protocol, check.virtual_server)),
            text(format!("{} {}", check.check, check.target)),
            Cell::Mark(class, check.state.as_str().into()),
            text(duration(check.since_seconds)),
            Cell::Number(check.failures),
            text(check.last_result.as_deref().unwrap_or("not tried yet")),
        ];
        row(out, "", &cells)?;
    }
    end(out);
    Ok(())
}

fn write_workers(out: &mut String, workers: &[Worker]) -> fmt::Result {
    let titles = [
        "Worker",
        "#Core",
        "#Received",
        "#Transmitted",
        "#Dropped",
        "#Connections",
        "Queues",
    ];
    begin(out, "Workers", &titles);
    for worker in workers {
        let counter = |name: &str| worker.counters.get(name).copied().unwrap_or(0);
        let total =
            |name: &str, value| Cell::Total(format!("worker {} {name}", worker.worker), value);
        let queues = worker.interfaces.iter().map(|socket| {
            let copies = if socket.zero_copy { ", zero-copy" } else { "" };
            let lost = socket.rx_ring_full + socket.rx_dropped + socket.tx_dropped;
            let lost = match lost {
                0 => String::new(),
                some => format!(", {} lost", number(some)),
            };
            let mode = socket.mode.as_str();
            format!(
                "{}:{} ({mode}{copies}{lost})",
                socket.interface, socket.queue
            )
        });
        let queues: Vec<String> = queues.collect();
        let cells = [
            text(worker.worker.to_string()),
            Cell::Number(worker.core.into()),
            total("received", counter("rx_packets")),
            total("transmitted", counter("tx_packets")),
            total("dropped", worker.dropped_packets),
            Cell::Number(counter("connections")),
            text(queues.join(", ")),
        ];
        row(out, "", &cells)?;
    }
    end(out);
    Ok(())
}

fn write_drops(out: &mut String, state: &State) -> fmt::Result {
    let mut drops: Vec<_> = state
        .drops
        .iter()
        .filter(|drop| drop.packets_total > 0)
        .collect();
    if drops.is_empty() {
        return Ok(());
    }
    drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets_total));
    begin(
        out,
        "Packets dropped since the start",
        &["#Packets", "Reason", "Meaning"],
    );
    for drop in drops {
        let cells = [
            Cell::Total(format!("drop {}", drop.reason), drop.packets_total),
            text(&*drop.reason),
            text(&*drop.description),
        ];
        row(out, "", &cells)?;
    }
    end(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::example;

    #[test]
    fn everything_is_on_the_page_and_nothing_from_elsewhere() {
        let page = render(&example::state());
        for part in [
            "<title>(5) appliance</title>",
            "up 1d02h",
            "5 problems",
            "192.168.1.101:80",
            "down: connection refused",
            "VI_2",
            "192.168.1.2 (101)",
            "/health_check: status 503, expected 200",
            "no_real_server",
            "eth0:0 (native, zero-copy, 3 lost)",
            "data-key=\"packets\" data-total=\"1234567\"",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(
            !page.contains("truncated"),
            "a drop reason that never occurred"
        );
        for elsewhere in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn what_others_wrote_is_no_html() {
        let mut state = example::state();
        let evil = "<script>alert(1)</script>";
        state.services[0].real_servers[1].reason = Some(evil.to_owned());
        state.health[1].last_result = Some(evil.to_owned());
        state.vrrp.instances[0].name = evil.to_owned();
        let page = render(&state);
        assert!(!page.contains(evil));
        assert_eq!(page.matches("&lt;script&gt;alert(1)").count(), 4);
    }
}
