//! `FILE_CHECK`: a number in a file, which somebody else writes.

use std::path::Path;

use super::{Finding, Outcome};
use crate::config::FileCheck;
use crate::event::WeightChange;
use crate::in_words::in_words;
use crate::track::file::read;

/// Runs a `FILE_CHECK` once. A file that cannot be read is no verdict.
pub async fn check(parameters: &FileCheck) -> Outcome {
    let FileCheck {
        file,
        weight,
        reverse,
    } = parameters;
    let what = format!("FILE_CHECK {file}");
    let path = file.clone();
    let text = match tokio::task::spawn_blocking(move || read(Path::new(&path))).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Outcome::Inconclusive(format!("{what}: {}", in_words(&error))),
        Err(_cancelled) => return Outcome::Inconclusive(format!("{what}: not read")),
    };
    let text = text.trim();
    let Ok(number) = text.parse::<i32>() else {
        return Outcome::Inconclusive(format!("{what}: {text:?} is no number"));
    };
    if *weight == 0 {
        return if (number == 0) != *reverse {
            Outcome::Passed(Finding::Said(format!("{what}: {number}")))
        } else {
            Outcome::Failed(format!("{what}: {number}"))
        };
    }
    // Both are of 32 bits.
    let product = i64::from(*weight) * i64::from(number);
    let change = if *reverse { -product } else { product };
    if change <= i64::from(i32::MIN) {
        return Outcome::Failed(format!("{what}: {number}"));
    }
    Outcome::Weighed(
        WeightChange::Add(change),
        format!("{what}: {number}, weight {change:+}"),
    )
}
