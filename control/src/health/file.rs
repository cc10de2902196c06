//! `FILE_CHECK`: a number in a file, which somebody else writes.

use std::fs::{self, File};
use std::io::{self, Read as _};

use super::Outcome;
use crate::config::FileCheck;
use crate::event::WeightChange;
use crate::in_words::in_words;

/// Bytes that are read: more than any number has.
const MOST: u64 = 64;

/// Runs a `FILE_CHECK` once. A file that cannot be read is no verdict.
pub async fn check(parameters: &FileCheck) -> Outcome {
    let FileCheck {
        file,
        weight,
        reverse,
    } = parameters;
    let what = format!("FILE_CHECK {file}");
    let path = file.clone();
    let text = match tokio::task::spawn_blocking(move || read(&path)).await {
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
            Outcome::Passed(format!("{what}: {number}"))
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

fn read(path: &str) -> io::Result<String> {
    // A pipe would keep the reader for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}
