//! Which rates are tried to find the highest without loss.
//!
//! Binary search, as RFC 2544 §24 allows, between what was passed and what was not. The first trial
//! is at full speed: what comes through is a guess at what can.

use serde::{Deserialize, Serialize};

use crate::units::Rate;

/// More would not tell more: each halves what is unknown.
const MOST_TRIALS: usize = 16;

/// When a rate is good enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Loss that counts as none, 0 to 1; RFC 2544 wants 0.
    pub tolerance: f64,
    /// How far apart a good and a bad rate may be at the end, 0 to 1 of the bad one.
    pub resolution: f64,
}

/// One trial.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub sent: u64,
    pub received: u64,
    /// Of sending.
    pub seconds: f64,
}

impl Trial {
    /// Packets per second that were sent.
    #[must_use]
    pub fn offered(&self) -> f64 {
        if self.seconds > 0.0 {
            self.sent as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// Of the packets sent, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        let lost = self.sent.saturating_sub(self.received);
        lost as f64 / self.sent.max(1) as f64
    }
}

/// The highest rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Highest {
    /// Packets per second; 0 if every trial lost some.
    pub rate: f64,
    /// The tester cannot send faster: the director may do more.
    pub by_tester: bool,
    /// All trials, the one at full speed first.
    pub trials: Vec<Trial>,
}

/// Searches by what `trial` finds at a rate.
///
/// # Errors
/// Those of `trial`.
pub fn search<E>(
    settings: Settings,
    mut trial: impl FnMut(Rate) -> Result<Trial, E>,
) -> Result<Highest, E> {
    let passes = |trial: &Trial| trial.sent > 0 && trial.loss() <= settings.tolerance;
    let full = trial(Rate::Max)?;
    let mut trials = vec![full];
    if passes(&full) {
        return Ok(Highest {
            rate: full.offered(),
            by_tester: true,
            trials,
        });
    }
    let (mut good, mut bad) = (0.0, full.offered());
    // Overload costs: less than came through then is likely to come through whole.
    let mut next = full.offered() * (1.0 - full.loss()) * 0.9;
    while bad - good > settings.resolution * bad && trials.len() < MOST_TRIALS && next >= 1.0 {
        let tried = trial(Rate::PerSecond(next))?;
        trials.push(tried);
        if passes(&tried) {
            // What was sent, which may be less than what was asked for.
            good = tried.offered().max(good).min(bad);
            if tried.offered() < next * 0.97 {
                bad = next.min(bad);
            }
        } else {
            bad = next.min(bad);
        }
        next = if good > 0.0 {
            // From below, in steps that grow: overload is far above more often than near.
            (good + bad).min(good * 2.5) / 2.0
        } else {
            bad / 2.0
        };
    }
    Ok(Highest {
        rate: good,
        by_tester: false,
        trials,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        tolerance: 0.0,
        resolution: 0.01,
    };

    #[expect(clippy::cast_possible_truncation, reason = "small and positive")]
    fn whole(value: f64) -> u64 {
        value as u64
    }

    /// Finds what a director forwards that can do `capacity`, with a tester that can do `fastest`.
    fn highest(capacity: f64, fastest: f64) -> Highest {
        search(SETTINGS, |rate| -> Result<Trial, ()> {
            let offered = match rate {
                Rate::Max => fastest,
                Rate::PerSecond(wanted) => wanted.min(fastest),
            };
            Ok(Trial {
                sent: whole(offered * 10.0),
                received: whole(offered.min(capacity) * 10.0),
                seconds: 10.0,
            })
        })
        .unwrap()
    }

    #[test]
    fn the_rate_is_found_within_the_resolution() {
        for capacity in [50.0, 1e3, 123_456.0, 800e3, 4.9e6] {
            let found = highest(capacity, 5e6);
            assert!(found.rate <= capacity, "{found:?}");
            assert!(found.rate > capacity * 0.985, "{capacity}: {found:?}");
            assert!(!found.by_tester);
            assert!(found.trials.len() <= 12, "{}", found.trials.len());
        }
    }

    #[test]
    fn a_tester_that_is_too_slow_is_told() {
        let found = highest(5e6, 1e6);
        assert!(found.by_tester);
        assert_eq!((found.rate, found.trials.len()), (1e6, 1));
    }

    #[test]
    fn a_director_that_always_loses_has_no_rate() {
        let settings = SETTINGS;
        let found = search(settings, |rate| -> Result<Trial, ()> {
            let rate = match rate {
                Rate::Max => 1e6,
                Rate::PerSecond(rate) => rate,
            };
            let sent = whole(rate) + 1;
            Ok(Trial {
                sent,
                received: sent - 1,
                seconds: 1.0,
            })
        });
        let found = found.unwrap();
        assert_eq!(found.rate, 0.0);
        assert!(found.trials.len() <= MOST_TRIALS);
    }

    #[test]
    fn tolerated_loss_is_no_loss() {
        let settings = Settings {
            tolerance: 0.001,
            ..SETTINGS
        };
        let found = search(settings, |_| -> Result<Trial, ()> {
            Ok(Trial {
                sent: 10_000,
                received: 9_990,
                seconds: 1.0,
            })
        });
        assert!(found.unwrap().by_tester);
    }

    #[test]
    fn errors_end_it() {
        assert_eq!(search(SETTINGS, |_| Err("no")), Err("no"));
    }
}
