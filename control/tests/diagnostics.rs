//! Every `diagnostics/NAME.toml` is checked, and what is said about it compared
//! with `diagnostics/NAME.txt`.
//!
//! `UPDATE_EXPECTED=1 cargo test -p control --test diagnostics` writes the
//! `.txt` files anew; the difference is then there to be reviewed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use control::config::{Diagnostics, Severity, parse};

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = paths.filter(|p| p.extension().unwrap() == "toml").collect();
    cases.sort();
    cases
}

/// What is said about a file, under its bare name.
fn diagnose(case: &Path) -> Diagnostics {
    let text = fs::read_to_string(case).unwrap();
    let name = Path::new(case.file_name().unwrap());
    parse(&text, name).map_or_else(|errors| errors, |checked| checked.warnings)
}

#[test]
fn diagnostics_are_as_expected() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let cases = cases();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let expected_path = case.with_extension("txt");
        let found = format!("{}\n", diagnose(&case));
        if update {
            fs::write(&expected_path, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if found != expected {
            wrong.push(format!(
                "{}: found\n{found}expected\n{expected}",
                case.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_case_says_something_in_the_order_of_the_file() {
    for case in cases() {
        let found = diagnose(&case);
        assert!(!found.is_empty(), "{}", case.display());
        let positions: Vec<_> = found.iter().map(|d| d.position.unwrap()).collect();
        assert!(positions.is_sorted(), "{}", case.display());
    }
}

#[test]
fn ten_mistakes_are_ten_errors() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics/ten-mistakes.toml");
    let found = diagnose(&case);
    let errors = found.iter().filter(|d| d.severity == Severity::Error);
    assert_eq!(errors.count(), 10, "{found}");
}
