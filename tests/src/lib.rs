//! What the tests of several crates need: packets in words, and the conformance cases.
//!
//! - [`script`]: the language of `in.txt` and `out.txt`, in which a line is a packet.
//! - [`conformance`]: runs the cases of `tests/conformance/` (see the README there).
//!
//! Packets are built with etherparse, not with the data plane's own `wire` module: what tests the
//! product must not share its mistakes.

pub mod conformance;
pub mod script;
