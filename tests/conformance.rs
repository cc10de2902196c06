//! Runs the conformance cases of `tests/conformance/`.
//!
//! ```text
//! cargo test -p appliance-tests --test conformance                         all of them
//! cargo test -p appliance-tests --test conformance -- wrr tcp-             those with such names
//! cargo test -p appliance-tests --test conformance -- --regenerate [NAME]  record what comes out now
//! ```

use std::path::Path;
use std::process::ExitCode;

use anyhow::ensure;
use appliance_tests::conformance::{self, Dissected, Mode};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// True if every case passed.
fn run() -> anyhow::Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (options, filters): (Vec<_>, Vec<_>) = arguments
        .iter()
        .partition(|argument| argument.starts_with('-'));
    let mut mode = Mode::Check;
    let mut list = false;
    for option in options {
        match option.as_str() {
            "--regenerate" => mode = Mode::Regenerate,
            "--list" => list = true,
            // What `cargo test` users pass to all test programs at once.
            "--nocapture" | "--no-capture" | "--quiet" | "-q" => {}
            other => anyhow::bail!(
                "unknown option {other}; expected --regenerate, --list or parts of case names"
            ),
        }
    }

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let mut cases = conformance::cases(&root)?;
    cases.retain(|case| filters.is_empty() || filters.iter().any(|part| case.name.contains(*part)));
    ensure!(
        !cases.is_empty(),
        "no case has a name with {filters:?} in it, in {}",
        root.display()
    );
    if list {
        cases
            .iter()
            .for_each(|case| println!("{}: test", case.name));
        return Ok(true);
    }

    let mut failed = 0;
    for case in &cases {
        match case.run(mode) {
            Ok(written) if written.is_empty() => {
                println!("ok       {:<32} {}", case.name, case.summary()?);
            }
            Ok(written) => println!("written  {:<32} {}", case.name, written.join(" ")),
            Err(error) => {
                failed += 1;
                println!("FAILED   {}", case.name);
                for line in format!("{error:#}").lines() {
                    println!("         {line}");
                }
            }
        }
    }
    println!(
        "conformance: {} passed, {failed} failed",
        cases.len() - failed
    );
    let dissected = match conformance::dissect(&cases) {
        Ok(Dissected::Right(packets)) => {
            println!("tshark: {packets} packets are well-formed, with right checksums");
            true
        }
        Ok(Dissected::Skipped) => {
            println!("tshark: skipped: it is not installed");
            std::env::var_os("CI").is_none_or(|ci| ci != "true")
        }
        Err(error) => {
            println!("FAILED   {error:#}");
            false
        }
    };
    Ok(failed == 0 && dissected)
}
