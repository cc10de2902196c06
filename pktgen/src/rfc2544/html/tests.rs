use super::*;
use crate::report::Latency;
use crate::rfc2544::results::{Machine, Setup};
use crate::rfc2544::search::Trial;
use crate::rfc2544::table;

fn latency(p50: f64) -> Latency {
    Latency {
        frames: 10,
        min: p50 / 2.0,
        mean: p50,
        p50,
        p90: p50 * 2.0,
        p99: p50 * 3.0,
        p999: p50 * 4.0,
        max: p50 * 5.0,
    }
}

/// Of so many packets per second.
fn results(rate: f64) -> Results {
    let measurement = |flows, frame| Measurement {
        trials: vec![Trial {
            sent: 1_000_000,
            received: 900_000,
            seconds: 1.0,
        }],
        latency: vec![AtLoad {
            load: 50,
            sent: 1000,
            lost: 1,
            missed: 0,
            bad: 0,
            moved_flows: 0,
            duplicates: 0,
            reordered: 0,
            latency: Some(latency(12.0)),
        }],
        ..Measurement::new(flows, frame, rate)
    };
    Results {
        program: "pktgen 0".to_owned(),
        date: "today".to_owned(),
        machine: Machine {
            processor: "<fast> & \"cheap\"".to_owned(),
            cpus: 2,
            kernel: "6.1".to_owned(),
        },
        setup: Setup {
            virtual_server: "192.0.2.1:53".to_owned(),
            protocol: "UDP".to_owned(),
            method: "DR".to_owned(),
            scheduler: Some("wrr".to_owned()),
            real_servers: 3,
            network: "a lab".to_owned(),
            seconds: 0.5,
            tolerance: 0.001,
            resolution: 0.02,
        },
        measurements: [1, 10_000]
            .into_iter()
            .flat_map(|flows| [64, 1518].map(|frame| measurement(flows, frame)))
            .collect(),
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_every_tag_is_closed() {
    let page = page(&results(0.8e6), Some(&results(0.5e6)));
    for foreign in ["http:", "https:", "url(", "<script", "<link", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for tag in [
        "figure", "svg", "table", "tr", "td", "ul", "li", "g", "dl", "div", "text", "style",
    ] {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        assert!(opened > 0, "{tag}");
    }
    assert!(page.contains("&lt;fast&gt; &amp; &quot;cheap&quot;"));
}

#[test]
fn plots_and_tables_hold_every_measurement() {
    let page = page(&results(0.8e6), None);
    // Rates by length in packets and bits, by flows; latency at one load for two numbers of flows.
    assert_eq!(page.matches("<figure>").count(), 5);
    // Two heads, four rates, four latencies.
    assert_eq!(page.matches("<tr>").count(), 10);
    assert!(page.contains(">0.800<") && page.contains(">10k<"));
    assert!(!page.contains(", before"));
}

#[test]
fn two_runs_are_compared() {
    let (new, old) = (results(0.8e6), results(0.5e6));
    let page = page(&new, Some(&old));
    assert_eq!(page.matches("+60.0 %").count(), 4);
    assert!(page.contains("1 flow, before") && page.contains("p99, before"));
    assert!(table::text(&new, Some(&old)).contains("+60.0 %"));
}

#[test]
fn what_went_wrong_is_said() {
    let mut results = results(1e6);
    assert_eq!(results.complaints(), [""; 0]);
    results.measurements[0].latency[0].moved_flows = 3;
    results.measurements[1].by_tester = true;
    let page = page(&results, None);
    assert!(page.contains("3 flows went to more than one real server"));
    assert!(page.contains("≥ 1.000"));
    assert!(table::text(&results, None).contains("≥ 1.000"));
}

#[test]
fn loss_in_a_latency_trial_is_said_when_it_is_not_tolerated() {
    let mut results = results(1e6);
    results.measurements[1].latency[0].lost = 222;
    results.measurements[3].latency[0].lost = 2;
    results.measurements[3].latency[0].latency = None;
    let text = table::text(&results, None);
    assert!(text.contains("2 latency trials lost more than 0.1 % of their packets, up to 22.2 %"));
    let row = text.lines().find(|line| line.contains("222")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..6], ["1", "1518", "50", "%", "222", "12.0"]);
    // A trial of which nothing came has a row, too.
    let row = text.lines().find(|line| line.ends_with("–")).unwrap();
    assert!(
        row.starts_with("    10k   1518  50 %        2        –"),
        "{row}"
    );
    assert!(
        text.lines()
            .all(|line| line.starts_with("2 latency") || line.chars().count() <= 80)
    );
}

#[test]
fn results_are_read_back() {
    let results = results(0.8e6);
    let json = serde_json::to_string(&results).unwrap();
    assert_eq!(serde_json::from_str::<Results>(&json).unwrap(), results);
}
