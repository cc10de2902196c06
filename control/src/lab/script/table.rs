//! The lines that say what each real server of a virtual server served.

use super::{Service, Tally};
use crate::lab::tally::share;

/// The end of a step.
pub(super) fn verdict(is_ok: bool) -> &'static str {
    if is_ok { "   ok" } else { "   FAILED" }
}

/// A line for the virtual server, one for each real server, and the failures;
/// with the verdict once all requests are `done`.
pub(super) fn of(service: &Service, tally: &Tally, done: bool) -> Vec<String> {
    let persistence = if service.is_persistent {
        ", persistent: one serves this client"
    } else {
        ""
    };
    let mut lines = vec![format!(
        "   {} {} ({}{persistence})",
        service.protocol, service.address, service.scheduler
    )];
    let answered = tally.answered();
    let width = service
        .servers
        .iter()
        .map(|(address, _)| address.to_string().len())
        .max()
        .unwrap_or(0);
    for (server, weight) in &service.servers {
        let served = tally.served_by(*server);
        let part = f64::from(served) / f64::from(answered.max(1));
        let expected = share(service, *server).map_or_else(
            || format!("weight {weight}"),
            |share| format!("expected {:5.1} %", share * 100.0),
        );
        let mark = match tally.is_fair(service, *server) {
            Some(true) if done => "  ok",
            Some(false) if done => "  FAILED",
            _ => "",
        };
        lines.push(format!(
            "     {:<width$}  served {served:6}  {:5.1} %  {expected}{mark}",
            server.to_string(),
            part * 100.0,
        ));
    }
    let mark = match (done, tally.failures()) {
        (false, _) => "",
        (true, 0) if tally.is_as_expected(service) => "  ok",
        (true, _) => "  FAILED",
    };
    lines.push(format!("     failed: {}{mark}", tally.failure_text()));
    for stranger in tally.served.keys() {
        if !service.servers.iter().any(|(known, _)| known == stranger) {
            lines.push(format!(
                "     {stranger} answered and is no real server of it"
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use dataplane::service::SchedulerKind;

    use crate::lab::plan::Protocol;

    use super::*;
    use crate::lab::client::Answer;

    #[test]
    fn a_table_reads_like_one() {
        let servers = ["10.0.0.2", "10.0.0.13"].map(|ip| (ip.parse().unwrap(), 1));
        let service = Service {
            protocol: Protocol::Tcp,
            address: "10.0.0.1:80".parse().unwrap(),
            scheduler: SchedulerKind::RoundRobin,
            is_persistent: false,
            servers: servers.to_vec(),
        };
        let mut tally = Tally::default();
        for turn in 0..10 {
            tally.record(&Answer {
                started: Instant::now(),
                outcome: Ok(servers[turn % 2].0),
            });
        }
        assert_eq!(
            of(&service, &tally, true),
            [
                "   TCP 10.0.0.1:80 (rr)",
                "     10.0.0.2   served      5   50.0 %  expected  50.0 %  ok",
                "     10.0.0.13  served      5   50.0 %  expected  50.0 %  ok",
                "     failed: 0  ok",
            ]
        );
        tally.record(&Answer {
            started: Instant::now(),
            outcome: Err("refused".into()),
        });
        let lines = of(&service, &tally, true);
        assert_eq!(lines[3], "     failed: 1 (1 refused)  FAILED");
    }
}
