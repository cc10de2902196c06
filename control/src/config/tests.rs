//! What needs the tables of keys: that docs/config.md describes every key.

use std::collections::BTreeSet;

use super::check::SPECS;

const DOCUMENTATION: &str = include_str!("../../../docs/config.md");

/// The part of the documentation under `## HEADING`.
fn section(heading: &str) -> Option<&'static str> {
    let start = format!("\n## {heading}\n");
    let (_, rest) = DOCUMENTATION.split_once(&start)?;
    Some(rest.split("\n## ").next().unwrap_or_default())
}

/// The keys that a section has a row for: what is in backticks in the first
/// cell of each. In quotation marks are values.
fn documented(section: &str) -> BTreeSet<&str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split('|').next());
    let quoted = cells.flat_map(|cell| cell.split('`').step_by(2));
    quoted
        .filter(|word| !word.trim().is_empty() && !word.starts_with('"'))
        .collect()
}

#[test]
fn the_documentation_has_exactly_the_known_keys() {
    for spec in SPECS {
        let section = section(spec.heading);
        let section = section.unwrap_or_else(|| panic!("no heading {}", spec.heading));
        let known: BTreeSet<_> = spec.keys.iter().copied().collect();
        assert_eq!(documented(section), known, "in {}", spec.heading);
        let refers = section.contains("And the *check parameters*");
        assert_eq!(refers, !spec.shared.is_empty(), "in {}", spec.heading);
    }
}

#[test]
fn no_key_is_both_known_and_unsupported() {
    for spec in SPECS {
        for key in spec.unsupported {
            assert!(!spec.knows(key), "{key} of {}", spec.heading);
        }
    }
}
