//! What is wrong now, in words: what somebody who was woken up has to know first.
//!
//! Only what holds at this moment; counters of the past are in the tables.

use std::collections::BTreeSet;

use crate::api::view::{AttachMode, Health, Service, State, Vrrp, Worker};
use crate::in_words::count;

/// The problems, the worst first.
pub(super) fn find(state: &State) -> Vec<String> {
    let mut problems = Vec::new();
    of_services(&state.services, &mut problems);
    of_vrrp(&state.vrrp, &mut problems);
    of_workers(&state.workers, &mut problems);
    problems
}

fn of_services(services: &[Service], problems: &mut Vec<String>) {
    for service in services {
        let name = format!("{} {}", service.protocol, service.address);
        let serving = |server: &&crate::api::view::RealServer| {
            server.weight > 0 && server.health != Health::Down && server.next_hop.is_some()
        };
        if !service.real_servers.iter().any(|server| serving(&server)) {
            problems.push(format!(
                "Virtual server {name} serves nobody: none of its {} can take connections.",
                count(service.real_servers.len(), "real server")
            ));
        }
    }
    for service in services {
        for server in &service.real_servers {
            let name = format!(
                "Real server {} of {} {}",
                server.address, service.protocol, service.address
            );
            if server.health == Health::Down {
                let reason = server.reason.as_deref().unwrap_or("a check fails");
                problems.push(format!("{name} is down: {reason}."));
            } else if server.next_hop.is_none() {
                problems.push(format!(
                    "{name} cannot be reached: its next hop is not known."
                ));
            }
        }
    }
}

fn of_vrrp(vrrp: &Vrrp, problems: &mut Vec<String>) {
    for instance in &vrrp.instances {
        if instance.state == "FAULT" {
            problems.push(format!(
                "VRRP instance {} is in FAULT: {}.",
                instance.name,
                instance.faults.join(", ")
            ));
        }
    }
}

fn of_workers(workers: &[Worker], problems: &mut Vec<String>) {
    let sockets = || workers.iter().flat_map(|worker| &worker.interfaces);
    let generic: BTreeSet<&str> = sockets()
        .filter(|socket| socket.mode == AttachMode::Generic)
        .map(|socket| socket.interface.as_str())
        .collect();
    for interface in generic {
        problems.push(format!(
            "Interface {interface} uses generic XDP, which is slow: see appliance probe."
        ));
    }
    let unserved: BTreeSet<&str> = sockets()
        .filter(|socket| socket.steering.no_socket > 0)
        .map(|socket| socket.interface.as_str())
        .collect();
    for interface in unserved {
        problems.push(format!(
            "Interface {interface} had packets of virtual servers on a queue without a worker: \
             restart the appliance."
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::example;

    #[test]
    fn problems_of_the_example() {
        let expected = [
            "Virtual server TCP 192.168.1.100:443 serves nobody: none of its 0 real servers can take connections.",
            "Real server 192.168.1.102:80 of TCP 192.168.1.100:80 is down: connection refused.",
            "Real server 192.168.1.103:80 of TCP 192.168.1.100:80 cannot be reached: its next hop is not known.",
            "VRRP instance VI_3 is in FAULT: the interface is down.",
            "Interface eth1 uses generic XDP, which is slow: see appliance probe.",
        ];
        assert_eq!(find(&example::state()), expected);
    }

    #[test]
    fn nothing_is_no_problem() {
        let nothing = State {
            services: vec![],
            workers: vec![],
            vrrp: Vrrp {
                instances: vec![],
                ..example::vrrp()
            },
            ..example::state()
        };
        assert_eq!(find(&nothing), [""; 0]);
    }
}
