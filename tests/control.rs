//! Control cases: `tests/control/<case>/` holds a configuration, what
//! happens (`events.jsonl`), one line of what it shows (`about.txt`) and what the controller wants done
//! (`actions.jsonl`). No kernel, no clock.
//!
//! A line of `events.jsonl` is `{"at": SECONDS, "event": …}`,
//! `{"at": SECONDS, "reload": "FILE"}`, `{"at": SECONDS, "edit": [EDIT, …]}`, `{"start": true}` (with `"alone": true` if no other
//! appliance runs) or `{"stop": true}`;
//! a reload may have `"interfaces": [["eth0", NUMBER, INDEX]]`, those in use from then on.
//! `actions.jsonl` has one line for each of them, the list of actions.
//! `UPDATE_EXPECTED=1` writes `actions.jsonl` anew; review the difference.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use control::api::edit::Edit;
use control::config;
use control::controller::{Controller, Port};
use control::event::{Action, Event};
use dataplane::service::PortIndex;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default)]
    at: f64,
    #[serde(default)]
    start: bool,
    /// With a start: no other appliance runs on this host.
    #[serde(default)]
    alone: bool,
    #[serde(default)]
    stop: bool,
    event: Option<Event>,
    reload: Option<String>,
    /// As in the body of `POST /api/v1/edit`; all of them succeed.
    edit: Option<Vec<Edit>>,
    /// With a reload: the interfaces from then on, each with its number and index.
    interfaces: Option<Vec<(String, u16, u32)>>,
}

/// What a step came to: actions, or the lines of a refusal.
fn carry_out(controller: &mut Controller, directory: &Path, step: Step, begin: Instant) -> String {
    let now = begin + Duration::from_secs_f64(step.at);
    let actions: Vec<Action> = match step {
        Step {
            start: true, alone, ..
        } => {
            if alone {
                controller.own_all_marked();
            }
            controller.start(now)
        }
        Step { stop: true, .. } => {
            let mut actions = controller.stop_vrrp(now);
            actions.extend(controller.stop());
            actions
        }
        Step {
            event: Some(event), ..
        } => controller.handle(event, now),
        Step {
            reload: Some(file),
            interfaces,
            ..
        } => {
            let config = load(&directory.join(file));
            let ports = match interfaces {
                Some(interfaces) => {
                    let ports = interfaces.iter();
                    ports
                        .map(|(name, number, index)| port(name, *number, *index))
                        .collect()
                }
                None => controller.ports().to_vec(),
            };
            match controller.reload(config, ports, now) {
                Ok((changes, actions)) => {
                    let changes = serde_json::to_string(&changes).expect("strings");
                    return format!("{{\"changes\":{changes},\"actions\":{}}}", json(&actions));
                }
                Err(refused) => {
                    return format!(
                        "{{\"refused\":{}}}",
                        serde_json::to_string(&refused).expect("strings")
                    );
                }
            }
        }
        Step {
            edit: Some(edits), ..
        } => {
            let (results, actions) = controller.edit(&edits, now);
            assert!(results.iter().all(Option::is_none), "{results:?}");
            actions
        }
        Step { .. } => panic!("a step without anything to do"),
    };
    json(&actions)
}

fn json(actions: &[Action]) -> String {
    serde_json::to_string(actions).expect("actions serialise")
}

fn load(path: &Path) -> config::Config {
    config::load(path)
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
        .config
}

fn port(name: &str, number: u16, index: u32) -> Port {
    Port {
        number: PortIndex(number),
        index,
        name: name.into(),
        mac: [2, 0, 0, 0, number.to_be_bytes()[1], 0x10],
        up: true,
        gone: false,
    }
}

fn run(directory: &Path) -> String {
    let ports = vec![port("eth0", 0, 2)];
    let mut controller = Controller::new(load(&directory.join("config.toml")), ports);
    let begin = Instant::now();
    let mut actions = String::new();
    let events = fs::read_to_string(directory.join("events.jsonl")).expect("events.jsonl");
    for (number, line) in (1..).zip(events.lines()) {
        let step: Step = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{}: events.jsonl:{number}: {error}", directory.display())
        });
        let done = carry_out(&mut controller, directory, step, begin);
        writeln!(actions, "{done}").expect("a string");
    }
    actions
}

#[test]
fn cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("control");
    let mut cases: Vec<PathBuf> = fs::read_dir(root)
        .expect("tests/control")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 8, "cases are missing");
    let mut failed = Vec::new();
    for case in cases {
        let about = fs::read_to_string(case.join("about.txt")).unwrap_or_default();
        assert!(
            !about.is_empty(),
            "{}: no about.txt, which says what it shows",
            case.display()
        );
        let expected = case.join("actions.jsonl");
        let actions = run(&case);
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, actions).expect("actions.jsonl");
            continue;
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if actions == expected {
            continue;
        }
        for (number, (got, wanted)) in (1..).zip(actions.lines().zip(expected.lines())) {
            if got != wanted {
                println!(
                    "{}: step {number}\n  expected {wanted}\n  got      {got}",
                    case.display()
                );
            }
        }
        failed.push(case);
    }
    assert!(
        failed.is_empty(),
        "{failed:?}; after review, UPDATE_EXPECTED=1 accepts the changes"
    );
}
