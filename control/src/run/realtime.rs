//! The control thread's place before all ordinary work.
//!
//! Another director takes over after three advertisements that did not come.
//! On a machine whose CPUs are all busy an ordinary thread may wait that long.

use std::io;

use tracing::{debug, warn};

use crate::in_words::in_words;

/// The lowest of the real-time priorities: before everything that has none.
const PRIORITY: libc::c_int = 1;

/// Lets the calling thread run whenever it has something to do (SCHED_RR).
/// Threads and processes that it starts are ordinary ones.
pub(super) fn take_precedence() {
    match set_round_robin() {
        Ok(()) => debug!("the control thread is scheduled in real time"),
        Err(error) => warn!(
            "the control thread is not scheduled in real time, so that a busy machine may delay \
             advertisements: {}: run it as root or with CAP_SYS_NICE",
            in_words(&error)
        ),
    }
}

#[expect(
    unsafe_code,
    reason = "no crate sets the policy with SCHED_RESET_ON_FORK"
)]
fn set_round_robin() -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: PRIORITY,
    };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `parameter` lives until the call returns, which only reads it; 0 is the calling
    // thread. No memory of this program is concerned.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not allowed everywhere; where it is, other threads do not inherit it.
    #[test]
    fn other_threads_are_ordinary() {
        if set_round_robin().is_err() {
            return skip::skipped("needs CAP_SYS_NICE");
        }
        let policy = || {
            let status = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields = status.rsplit(')').next().unwrap().split_whitespace();
            // The 41st field, the first after the name is the third.
            fields.clone().nth(38).unwrap().to_owned()
        };
        assert_eq!(policy(), "2", "SCHED_RR");
        assert_eq!(std::thread::spawn(policy).join().unwrap(), "0");
    }
}
