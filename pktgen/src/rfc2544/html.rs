//! The results as one HTML page with plots, without a network: styles and drawings are in it.

use std::fmt::Write as _;

use super::chart::{Chart, Line};
use super::results::{AtLoad, Measurement, QUANTILES, Results, percent, short};

const STYLE: &str = include_str!("report.css");

/// The page; with `old`, its lines are dashed and its rates beside the new ones.
#[must_use]
pub fn page(results: &Results, old: Option<&Results>) -> String {
    let setup = &results.setup;
    let title = format!(
        "RFC 2544: {} {} {}",
        setup.method, setup.protocol, setup.virtual_server
    );
    let title = escape(&title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    facts(&mut page, results, old);
    let complaints = results.complaints();
    if !complaints.is_empty() {
        let item = |text: &String| format!("<li>{}</li>", escape(text));
        let items: String = complaints.iter().map(item).collect();
        let _ = writeln!(page, "<ul class=\"notes\">{items}</ul>");
    }
    page += "<h2>Highest rate without loss</h2>\n<div class=\"plots\">\n";
    type Value = fn(&Measurement) -> f64;
    let plots: [(&str, &'static str, Value); 2] = [
        ("Packets per second", "Mpps", |one| one.mpps),
        ("Bits per second, with FCS", "Gbit/s", |one| {
            one.gbit_per_second
        }),
    ];
    for (title, unit, value) in plots {
        page += &rates(results, old, title, unit, value).draw();
    }
    page += &over_flows(results, old).draw();
    page += "</div>\n";
    rate_table(&mut page, results, old);
    if !results.loads().is_empty() {
        page += "<h2>One-way latency</h2>\n<div class=\"plots\">\n";
        for flows in results.flows() {
            for load in results.loads() {
                page += &latencies(results, old, flows, load).draw();
            }
        }
        page += "</div>\n";
        latency_table(&mut page, results, old);
    }
    page += "</body>\n</html>\n";
    page
}

/// What was measured, where and how.
fn facts(page: &mut String, results: &Results, old: Option<&Results>) {
    let setup = &results.setup;
    let machine = &results.machine;
    let mut facts = vec![
        ("Director", setup.director()),
        ("Network", setup.network.clone()),
        (
            "Machine",
            format!(
                "{}, {} CPUs, Linux {}",
                machine.processor, machine.cpus, machine.kernel
            ),
        ),
        (
            "Trials",
            format!(
                "{} s each; loss up to {} % counts as none; rates to within {} %",
                setup.seconds,
                percent(setup.tolerance),
                percent(setup.resolution)
            ),
        ),
        (
            "Measured",
            format!("{}, by {}", results.date, results.program),
        ),
    ];
    if let Some(old) = old {
        facts.push((
            "Compared with",
            format!(
                "{}, {} {}, on {}, Linux {}: dashed lines, hollow points",
                old.date,
                old.setup.method,
                old.setup.virtual_server,
                old.machine.processor,
                old.machine.kernel
            ),
        ));
    }
    let fact = |(name, value): &(&str, String)| {
        format!("<div><dt>{name}</dt><dd>{}</dd></div>", escape(value))
    };
    let facts: String = facts.iter().map(fact).collect();
    let _ = writeln!(page, "<dl>{facts}</dl>");
}

/// A line for each number of flows, over frame lengths.
fn rates(
    results: &Results,
    old: Option<&Results>,
    title: &str,
    unit: &'static str,
    value: fn(&Measurement) -> f64,
) -> Chart {
    let frames = results.frames();
    let runs = [(results, false)]
        .into_iter()
        .chain(old.map(|old| (old, true)));
    let mut lines = Vec::new();
    for (run, dashed) in runs {
        for (colour, flows) in results.flows().into_iter().enumerate() {
            let one = |frame: &usize| run.find(flows, *frame).map(value);
            let values: Vec<Option<f64>> = frames.iter().map(one).collect();
            if values.iter().any(Option::is_some) {
                lines.push(Line {
                    name: format!(
                        "{}{}",
                        of_flows(flows),
                        if dashed { ", before" } else { "" }
                    ),
                    values,
                    colour,
                    dashed,
                });
            }
        }
    }
    Chart {
        title: title.to_owned(),
        unit,
        across: "frame length, bytes",
        places: frames.iter().map(usize::to_string).collect(),
        lines,
        logarithmic: false,
    }
}

/// A line for the shortest, a middle and the longest frame, over numbers of flows.
fn over_flows(results: &Results, old: Option<&Results>) -> Chart {
    let flows = results.flows();
    let frames = results.frames();
    let mut shown = vec![0, frames.len() / 2, frames.len().saturating_sub(1)];
    shown.dedup();
    let runs = [(results, false)]
        .into_iter()
        .chain(old.map(|old| (old, true)));
    let mut lines = Vec::new();
    for (run, dashed) in runs {
        let frames = shown.iter().filter_map(|index| frames.get(*index));
        for (colour, frame) in frames.enumerate() {
            let one = |flows: &u32| run.find(*flows, *frame).map(|one| one.mpps);
            let values: Vec<Option<f64>> = flows.iter().map(one).collect();
            if values.iter().any(Option::is_some) {
                lines.push(Line {
                    name: format!("{frame} bytes{}", if dashed { ", before" } else { "" }),
                    values,
                    colour,
                    dashed,
                });
            }
        }
    }
    Chart {
        title: "Packets per second by flows".to_owned(),
        unit: "Mpps",
        across: "flows",
        places: flows.into_iter().map(short).collect(),
        lines,
        logarithmic: false,
    }
}

/// A line for each percentile, over frame lengths.
fn latencies(results: &Results, old: Option<&Results>, flows: u32, load: u32) -> Chart {
    let frames = results.frames();
    let runs = [(results, false)]
        .into_iter()
        .chain(old.map(|old| (old, true)));
    let mut lines = Vec::new();
    for (run, dashed) in runs {
        for (colour, (name, value)) in QUANTILES.into_iter().enumerate() {
            // Of the other run only the ends: ten lines could not be told apart.
            if dashed && !matches!(name, "p50" | "p99") {
                continue;
            }
            let one = |frame: &usize| at(run, flows, *frame, load)?.latency.as_ref().map(value);
            let values: Vec<Option<f64>> = frames.iter().map(one).collect();
            if values.iter().any(Option::is_some) {
                lines.push(Line {
                    name: format!("{name}{}", if dashed { ", before" } else { "" }),
                    values,
                    colour,
                    dashed,
                });
            }
        }
    }
    Chart {
        title: format!("{} at {load} % of the highest rate", of_flows(flows)),
        unit: "µs",
        across: "frame length, bytes",
        places: frames.iter().map(usize::to_string).collect(),
        lines,
        logarithmic: true,
    }
}

fn at(results: &Results, flows: u32, frame: usize, load: u32) -> Option<&AtLoad> {
    let all = &results.find(flows, frame)?.latency;
    all.iter().find(|at| at.load == load)
}

fn rate_table(page: &mut String, results: &Results, old: Option<&Results>) {
    let mut names = vec!["Flows", "Frame", "Mpps", "Gbit/s", "Sent at most", "Trials"];
    if old.is_some() {
        names.extend(["Before", "Change"]);
    }
    let rows = results.measurements.iter().map(|one| {
        let mark = if one.by_tester { "≥ " } else { "" };
        let fastest = one
            .trials
            .first()
            .map_or(0.0, |trial| trial.offered() / 1e6);
        let mut cells = vec![
            short(one.flows),
            one.frame.to_string(),
            format!("{mark}{:.3}", one.mpps),
            format!("{mark}{:.3}", one.gbit_per_second),
            format!("{fastest:.3} Mpps"),
            one.trials.len().to_string(),
        ];
        if let Some(old) = old {
            let before = old.find(one.flows, one.frame).map(|old| old.mpps);
            cells.push(before.map_or_else(|| "–".to_owned(), |mpps| format!("{mpps:.3}")));
            cells.push(change(one.mpps, before));
        }
        cells
    });
    table(page, &names, rows);
}

fn latency_table(page: &mut String, results: &Results, old: Option<&Results>) {
    let mut names = vec!["Flows", "Frame", "Load", "Lost"];
    names.extend(QUANTILES.map(|(name, _)| name));
    if old.is_some() {
        names.push("p99 before");
    }
    let rows = results.measurements.iter().flat_map(|one| {
        one.latency.iter().map(move |load| {
            let mut cells = vec![
                short(one.flows),
                one.frame.to_string(),
                format!("{} %", load.load),
                load.lost.to_string(),
            ];
            cells
                .extend(QUANTILES.map(|(_, value)| microseconds(load.latency.as_ref().map(value))));
            if let Some(old) = old {
                let before = at(old, one.flows, one.frame, load.load);
                let before = before.and_then(|at| at.latency.as_ref());
                cells.push(microseconds(before.map(|latency| latency.p99)));
            }
            cells
        })
    });
    table(page, &names, rows);
    *page += "<p class=\"dim\">In microseconds, from the generator's stamp to the arrival at the sink's \
              XDP program, of every packet.</p>\n";
}

/// On a narrow screen each row becomes a block, whose cells carry the names of their columns.
fn table(page: &mut String, names: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let heads: String = names
        .iter()
        .map(|name| format!("<th>{name}</th>"))
        .collect();
    let _ = writeln!(page, "<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>");
    for cells in rows {
        let cells = names.iter().zip(cells);
        let cell = |(name, text): (&&str, String)| {
            format!("<td data-name=\"{name}\">{}</td>", escape(&text))
        };
        let cells: String = cells.map(cell).collect();
        let _ = writeln!(page, "<tr>{cells}</tr>");
    }
    *page += "</tbody>\n</table>\n";
}

fn of_flows(flows: u32) -> String {
    match flows {
        1 => "1 flow".to_owned(),
        _ => format!("{} flows", short(flows)),
    }
}

fn microseconds(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value < 1000.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

fn change(now: f64, before: Option<f64>) -> String {
    match before {
        Some(before) if before > 0.0 => format!("{:+.1} %", (now / before - 1.0) * 100.0),
        Some(_) | None => "–".to_owned(),
    }
}

/// Text as it stands in HTML and in its attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
#[path = "html/tests.rs"]
mod tests;
