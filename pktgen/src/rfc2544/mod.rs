//! Benchmarks of RFC 2544 for a director: the highest rate without loss (§26.1), by frame length and
//! number of flows, and the latency at shares of it (§26.2).
//!
//! - [`bed`]: the director to measure, in a lab of its own.
//! - [`tester`]: one trial, by `pktgen tx` and `pktgen sink` as processes.
//! - [`search`]: which rates are tried.
//! - [`results`]: what is found, as JSON; [`table`], [`html`]: for people.
//!
//! Unlike RFC 2544's, trials are 10 s by default and not 60, latency is of every packet and not of one in
//! a trial, and loss may be tolerated. The results say so.

pub mod bed;
mod chart;
pub mod html;
pub mod results;
pub mod search;
pub mod table;
pub mod tester;
