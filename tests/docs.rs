//! Keeps the documents true: what they name exists, and what has to be
//! explained is explained.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use control::api::view::Steering;
use dataplane::counters::{Counters, DropReason};
use dataplane::device::DeviceStatistics;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every document, by its path from the root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let directories = [
        "",
        "docs",
        "configs",
        "bench",
        "tests",
        "tests/conformance",
        "tests/netns",
        "tests/fuzz",
    ];
    for directory in directories {
        let Ok(entries) = fs::read_dir(root().join(directory)) else {
            continue;
        };
        for entry in entries {
            let path = Path::new(directory).join(entry.unwrap().file_name());
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() >= 7, "only {found:?}");
    found
}

/// What stands between backticks, outside blocks of code.
fn quoted(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block && !line.starts_with("    ") {
            prose.push_str(line);
            prose.push(' ');
        }
    }
    prose
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Backticked words in the first column of every table.
fn table_keys(text: &str) -> BTreeSet<String> {
    let first_cells = text
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next());
    first_cells.flat_map(quoted).collect()
}

#[test]
fn every_counter_and_drop_reason_is_explained() {
    let explained = table_keys(&read("docs/counters.md"));
    let steering = serde_json::to_value(Steering::default()).unwrap();
    let counted: BTreeSet<String> = DropReason::ALL
        .iter()
        .map(|reason| reason.name())
        .chain(Counters::default().named().map(|(name, _)| name))
        .chain(DeviceStatistics::NAMES.iter().copied())
        .map(str::to_owned)
        .chain(steering.as_object().unwrap().keys().cloned())
        .collect();
    let missing: Vec<_> = counted.difference(&explained).collect();
    let unknown: Vec<_> = explained.difference(&counted).collect();
    assert!(
        missing.is_empty(),
        "docs/counters.md does not explain {missing:?}"
    );
    assert!(
        unknown.is_empty(),
        "docs/counters.md explains {unknown:?}, which nothing counts"
    );
}

/// Every `Cargo.toml` with a package, in the root's folders and in theirs.
fn manifests() -> Vec<toml::Table> {
    let folders = |path: &Path| {
        let entries = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries
            .filter(|path| path.is_dir() && !path.ends_with("target"))
            .collect::<Vec<_>>()
    };
    let members = folders(root());
    let inner = members.iter().flat_map(|member| folders(member));
    let manifests: Vec<_> = members
        .iter()
        .cloned()
        .chain(inner)
        .filter_map(|folder| fs::read_to_string(folder.join("Cargo.toml")).ok())
        .map(|text| text.parse().unwrap())
        .collect();
    assert!(manifests.len() >= 5, "only {} found", manifests.len());
    manifests
}

#[test]
fn every_crate_is_explained() {
    let explained = table_keys(&read("docs/dependencies.md"));
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let versions = workspace["workspace"]["dependencies"].as_table().unwrap();
    let mut used = BTreeSet::new();
    for manifest in manifests() {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(section) = manifest.get(section) else {
                continue;
            };
            used.extend(section.as_table().unwrap().keys().cloned());
        }
    }
    let unused: Vec<_> = versions
        .keys()
        .filter(|name| !used.contains(*name))
        .collect();
    assert!(
        unused.is_empty(),
        "Cargo.toml has the versions of {unused:?}, which no member uses"
    );
    for manifest in manifests() {
        used.remove(manifest["package"]["name"].as_str().unwrap());
    }
    let missing: Vec<_> = used.difference(&explained).collect();
    assert!(
        missing.is_empty(),
        "docs/dependencies.md does not explain {missing:?}"
    );

    // These two are there to say why they are not used as they are.
    let gone: Vec<_> = explained
        .difference(&used)
        .filter(|name| !["afxdp", "crossbeam"].contains(&name.as_str()))
        .collect();
    assert!(
        gone.is_empty(),
        "docs/dependencies.md explains {gone:?}, which no Cargo.toml has"
    );
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            if !root().join(&document).with_file_name(target).exists() {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
    assert!(links > 5, "only {links} links found");
}

#[test]
fn every_path_named_exists() {
    let tops = [
        "dataplane/",
        "control/",
        "pktgen/",
        "bench/",
        "tests/",
        "configs/",
        "docs/",
        "packaging/",
    ];
    let mut paths = 0;
    let mut missing = Vec::new();
    for document in documents() {
        for quoted in quoted(&read(&document)) {
            let word = quoted.split_whitespace().next().unwrap_or_default();
            if !tops.iter().any(|top| word.starts_with(top)) || word.contains(['*', '<', '…']) {
                continue;
            }
            paths += 1;
            if !root().join(word).exists() {
                missing.push(format!("{}: {word}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "paths that do not exist: {missing:#?}");
    assert!(paths > 40, "only {paths} paths found");
}

#[test]
fn every_command_named_exists() {
    let command = control::cli::Cli::command();
    let known: BTreeSet<_> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    let mut commands = 0;
    let mut unknown = Vec::new();
    for document in documents() {
        for line in read(&document).lines() {
            // Between backticks, or indented as a command to type.
            let typed = line.strip_prefix("    ");
            for part in line.split('`').skip(1).step_by(2).chain(typed) {
                let Some(arguments) = part.trim_start().strip_prefix("appliance ") else {
                    continue;
                };
                let name = arguments.split_whitespace().next().unwrap_or_default();
                commands += 1;
                if !known.contains(name) {
                    unknown.push(format!("{}: {part}", document.display()));
                }
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "commands that do not exist: {unknown:#?}"
    );
    assert!(commands > 5, "only {commands} commands found");
}
