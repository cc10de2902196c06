//! The results as text.

use std::fmt::Write as _;

use super::results::{QUANTILES, Results, short};

/// Tables for a terminal, 80 columns wide.
#[must_use]
pub fn text(results: &Results, old: Option<&Results>) -> String {
    let setup = &results.setup;
    let mut text = format!(
        "{} {}: {}; {}\n\n",
        setup.protocol,
        setup.virtual_server,
        setup.director(),
        setup.network
    );
    let _ = write!(
        text,
        "{:>7}{:>7}{:>10}{:>9}{:>8}",
        "flows", "frame", "Mpps", "Gbit/s", "trials"
    );
    let _ = match old {
        Some(_) => writeln!(text, "{:>9}{:>9}", "before", "change"),
        None => writeln!(text),
    };
    for one in &results.measurements {
        let mark = if one.by_tester { "≥ " } else { "" };
        let _ = write!(
            text,
            "{:>7}{:>7}{:>10}{:>9.3}{:>8}",
            short(one.flows),
            one.frame,
            format!("{mark}{:.3}", one.mpps),
            one.gbit_per_second,
            one.trials.len()
        );
        let before = old.and_then(|old| old.find(one.flows, one.frame));
        let _ = match before {
            Some(before) if before.mpps > 0.0 => {
                let change = (one.mpps / before.mpps - 1.0) * 100.0;
                writeln!(text, "{:>9.3}{change:>+7.1} %", before.mpps)
            }
            Some(_) | None => writeln!(text),
        };
    }
    if !results.loads().is_empty() {
        let _ = writeln!(
            text,
            "\n{:>7}{:>7}{:>6}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}  µs",
            "flows", "frame", "load", "lost", "p50", "p90", "p99", "p99.9", "max"
        );
    }
    for one in &results.measurements {
        for at in &one.latency {
            let _ = write!(
                text,
                "{:>7}{:>7}{:>4} %{:>9}",
                short(one.flows),
                one.frame,
                at.load,
                at.lost
            );
            for (_, value) in QUANTILES {
                let _ = match &at.latency {
                    Some(latency) => write!(text, "{:>9.1}", value(latency)),
                    None => write!(text, "{:>9}", "–"),
                };
            }
            text.push('\n');
        }
    }
    for complaint in results.complaints() {
        let _ = writeln!(text, "\n{complaint}");
    }
    text
}
