//! The data plane alone, by `pktgen ring`: time, and instructions counted by callgrind.
//!
//! Callgrind counts the same on a busy machine as on an idle one, to the last instruction: it is what
//! two versions are compared by. It knows no caches; for those there is the time.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::process;

/// Flows of the cases.
pub const FLOWS: [u32; 4] = [1, 10_000, 1_000_000, 10_000_000];

/// More flows than these take callgrind minutes to make connections of.
const COUNTED_FLOWS: u32 = 1_000_000;
/// Packets that callgrind counts, some fifty times slower than they are otherwise.
const COUNTED: u64 = 200_000;
/// The function below which everything timed happens.
const MEASURED: &str = "*ring::measured*";

/// What `pktgen ring` says.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Ring {
    pub ns_per_packet: f64,
    /// By the processor's counter, where it has one.
    pub instructions_per_packet: Option<f64>,
}

/// Measures once, with `flows` flows.
///
/// # Errors
/// `pktgen` failed.
pub fn time(pktgen: &Path, flows: u32) -> anyhow::Result<Ring> {
    let flows = flows.to_string();
    #[rustfmt::skip]
    let (out, _) = process::run(pktgen, &[
        "ring", "--json", "--core", "1", "--flows", &flows, "--duration", "2s",
    ])?;
    serde_json::from_str(&out).context("the report of pktgen ring")
}

/// What a packet of `flows` flows costs at least, in nanoseconds: `limit`.
///
/// # Errors
/// `limit` failed.
pub fn limit(limit: &Path, flows: u32) -> anyhow::Result<f64> {
    #[derive(Deserialize)]
    struct Limit {
        ns_per_packet: f64,
    }
    let flows = flows.to_string();
    let (out, _) = process::run(limit, &["--core", "1", "--flows", &flows])?;
    let limit: Limit = serde_json::from_str(&out).context("the report of limit")?;
    Ok(limit.ns_per_packet)
}

/// Instructions per packet with `flows` flows, by callgrind.
///
/// # Errors
/// valgrind is missing or failed, or it counted nothing.
pub fn instructions(pktgen: &Path, flows: u32) -> anyhow::Result<f64> {
    if flows > COUNTED_FLOWS {
        bail!("callgrind would take minutes; the processor's counter says the same");
    }
    let toggle = format!("--toggle-collect={MEASURED}");
    let pktgen = pktgen.to_string_lossy();
    let (flows, packets) = (flows.to_string(), COUNTED.to_string());
    #[rustfmt::skip]
    let (_, said) = process::run(Path::new("valgrind"), &[
        "--tool=callgrind", "--callgrind-out-file=/dev/null", &toggle,
        &pktgen, "ring", "--json", "--flows", &flows, "--packets", &packets,
    ])?;
    match collected(&said) {
        Some(0) | None => bail!("callgrind counted nothing in {MEASURED}: is the binary stripped?"),
        Some(count) => Ok(count as f64 / COUNTED as f64),
    }
}

/// The number in callgrind's line `==123== Collected : 456`.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_summary() {
        let said = "==1== Events    : Ir\n==1== Collected : 156913317\n==1==\n";
        assert_eq!(collected(said), Some(156_913_317));
        assert_eq!(collected("==1== Collected :\n"), None);
        assert_eq!(collected(""), None);
    }
}
