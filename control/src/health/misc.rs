//! `MISC_CHECK`: a script ends with status 0; with `misc_dynamic` its status
//! may say the real server's weight.

use super::{Finding, Outcome};
use crate::config::MiscCheck;
use crate::event::WeightChange;
use crate::scripts::{self, Runner};

/// Runs a `MISC_CHECK` once.
pub async fn check(runner: &Runner, parameters: &MiscCheck) -> Outcome {
    let MiscCheck {
        script,
        timeout,
        dynamic,
    } = parameters;
    let ended = runner.run(script, &[], *timeout).await;
    let what = format!("MISC_CHECK {script}: {ended}");
    match ended {
        scripts::Outcome::NotRun(_) => Outcome::Inconclusive(what),
        scripts::Outcome::Exited(0) => Outcome::Passed(Finding::Said(what)),
        scripts::Outcome::Exited(status @ 2..=255) if *dynamic => {
            let weight = u32::try_from(status - 2).unwrap_or(0);
            Outcome::Weighed(
                WeightChange::Set(weight),
                format!("{what}: weight {weight}"),
            )
        }
        scripts::Outcome::TimedOut => Outcome::Failed(format!("{what} after {timeout:?}")),
        scripts::Outcome::Exited(_) | scripts::Outcome::Killed(_) => Outcome::Failed(what),
    }
}
