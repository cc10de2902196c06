//! What a `vrrp_instance` tracks beside interfaces and scripts: numbers in files (`track_file`) and
//! processes (`vrrp_track_process`).
//!
//! Reading only; how a number or a missing process counts is for `vrrp::router` to say, when to look for
//! `run`.

pub(crate) mod file;
pub(crate) mod process;
