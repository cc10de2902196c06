//! Whether flows are spread over real servers as their weights want it: Pearson's chi-square test.
//!
//! A scheduler that takes turns is far closer to the weights than chance; one that hashes is as close
//! as chance. Both pass; one that neglects a server does not.

use serde::{Deserialize, Serialize};

/// Standard deviations of the normal distribution that one in a thousand exceeds.
const ONE_IN_A_THOUSAND: f64 = 3.090_232;

/// The result of the test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Sum of `(found - expected)² / expected` over the servers.
    pub chi_square: f64,
    /// What chance exceeds once in a thousand measurements.
    pub limit: f64,
    /// True below the limit.
    pub fits: bool,
}

/// Tests `(flows, weight)` of each server. `None` when there is nothing to compare: fewer than two
/// servers with a weight, or no flows.
#[must_use]
pub fn test(servers: &[(u64, f64)]) -> Option<Spread> {
    let flows: u64 = servers.iter().map(|(flows, _)| flows).sum();
    let weights: f64 = servers.iter().map(|(_, weight)| weight).sum();
    let weighted = servers.iter().filter(|(_, weight)| *weight > 0.0);
    let freedom = weighted.clone().count().checked_sub(1)?;
    if freedom == 0 || flows == 0 {
        return None;
    }
    let chi_square = weighted
        .map(|&(found, weight)| {
            let expected = flows as f64 * weight / weights;
            (found as f64 - expected).powi(2) / expected
        })
        .sum();
    let limit = quantile(freedom as f64);
    let unwanted = servers
        .iter()
        .any(|&(flows, weight)| weight == 0.0 && flows > 0);
    Some(Spread {
        chi_square,
        limit,
        fits: chi_square <= limit && !unwanted,
    })
}

/// What a chi-square variable exceeds once in a thousand times, by the approximation of Wilson and
/// Hilferty (1931): 3 % off with one degree of freedom, less with more.
fn quantile(freedom: f64) -> f64 {
    let part = 2.0 / (9.0 * freedom);
    freedom * (1.0 - part + ONE_IN_A_THOUSAND * part.sqrt()).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_that_of_the_tables() {
        for (freedom, exact) in [(1.0, 10.828), (2.0, 13.816), (9.0, 27.877), (99.0, 148.23)] {
            let error: f64 = quantile(freedom) / exact - 1.0;
            assert!(error.abs() < 0.035, "{freedom}: {error}");
        }
    }

    #[test]
    fn chance_passes_and_neglect_does_not() {
        let fits = |servers: &[(u64, f64)]| test(servers).unwrap().fits;
        assert!(fits(&[(1000, 1.0), (1000, 1.0), (2000, 2.0)]));
        assert!(fits(&[(1030, 1.0), (985, 1.0), (1985, 2.0)]));
        assert!(!fits(&[(1200, 1.0), (900, 1.0), (1900, 2.0)]));
        assert!(!fits(&[(2000, 1.0), (2000, 1.0), (0, 1.0)]));
        assert!(!fits(&[(2000, 1.0), (2000, 1.0), (1, 0.0)]));
        assert!(fits(&[(2000, 1.0), (2000, 1.0), (0, 0.0)]));
    }

    #[test]
    fn one_server_leaves_nothing_to_compare() {
        assert_eq!(test(&[(5, 1.0)]), None);
        assert_eq!(test(&[]), None);
        assert_eq!(test(&[(0, 1.0), (0, 1.0)]), None);
    }
}
