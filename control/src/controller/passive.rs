//! Passive health: a real server that clients' SYNs get no answer from is out
//! for a while, as with `max_fails` and `fail_timeout` of nginx's upstreams.
//!
//! A SYN is unanswered when the client has to repeat it; a handshake that is
//! completed is an answer. Both can be seen with DR too, where answers pass the
//! director by. A single answer clears a server of all suspicion: clients that
//! cannot hear it, or never wanted to, must not take it out. Spoofed SYNs
//! are not repeated, so a flood of them says nothing.
//!
//! Sans-I/O: it is shown the workers' counters once a second.

use std::time::Instant;

use dataplane::counters::ServerTotals;

use crate::config::Passive;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Out,
    BackIn,
}

/// What is known of one real server.
#[derive(Clone, Debug)]
pub(super) struct State {
    config: Passive,
    /// The counters when the present time of observation began.
    since: Option<(Instant, ServerTotals)>,
    out_until: Option<Instant>,
    unanswered: u64,
    /// When it went out or came back in, or was first observed.
    changed: Option<Instant>,
}

/// How a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub passes: bool,
    /// SYNs that got no answer since the last that did, within `fail_timeout`.
    pub unanswered: u64,
    /// When `passes` changed, or the first observation.
    pub since: Option<Instant>,
}

impl State {
    pub(super) fn new(config: Passive) -> Self {
        Self {
            config,
            since: None,
            out_until: None,
            unanswered: 0,
            changed: None,
        }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            passes: self.passes(),
            unanswered: self.unanswered,
            since: self.changed,
        }
    }

    pub(super) fn config(&self) -> Passive {
        self.config
    }

    pub(super) fn passes(&self) -> bool {
        self.out_until.is_none()
    }

    /// Looks at the counters. `is_alone`: there is no other server to go to, so
    /// this one is better than none.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        totals: ServerTotals,
        is_alone: bool,
    ) -> Option<Change> {
        if let Some(end) = self.out_until {
            if now < end {
                return None;
            }
            self.out_until = None;
            self.changed = Some(now);
            self.begin(now, totals);
            return Some(Change::BackIn);
        }
        let Some((begin, before)) = self.since else {
            self.changed = Some(now);
            self.begin(now, totals);
            return None;
        };
        let answered = totals.answered != before.answered;
        let unanswered = totals.unanswered.saturating_sub(before.unanswered);
        if answered {
            self.begin(now, totals);
            return None;
        }
        self.unanswered = unanswered;
        if unanswered >= self.config.max_fails.into() && !is_alone {
            self.changed = Some(now);
            self.out_until = Some(now + self.config.fail_timeout);
            return Some(Change::Out);
        }
        if now.saturating_duration_since(begin) >= self.config.fail_timeout {
            self.begin(now, totals);
        }
        None
    }

    fn begin(&mut self, now: Instant, totals: ServerTotals) {
        self.since = Some((now, totals));
        self.unanswered = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Counters at each second; `O`ut, `I`n or `.` for each.
    fn play(counters: &[(u64, u64)], is_alone: bool) -> String {
        let start = Instant::now();
        let mut state = State::new(Passive {
            max_fails: 3,
            fail_timeout: Duration::from_secs(5),
        });
        let mut changes = String::new();
        for (second, &(unanswered, answered)) in (0..).zip(counters) {
            let totals = ServerTotals {
                unanswered,
                answered,
                ..ServerTotals::default()
            };
            let now = start + Duration::from_secs(second);
            changes.push(match state.observe(now, totals, is_alone) {
                None => '.',
                Some(Change::Out) => 'O',
                Some(Change::BackIn) => 'I',
            });
        }
        changes
    }

    #[test]
    fn out_after_max_fails_for_fail_timeout() {
        let counters = [(9, 9), (10, 9), (11, 9), (12, 9)];
        assert_eq!(play(&counters, false), "...O");
        let mut long = counters.to_vec();
        long.extend([(40, 9); 6]);
        // Back after 5 s, with a clean slate.
        assert_eq!(play(&long, false), "...O....I.");
    }

    #[test]
    fn one_answer_clears_all_suspicion() {
        let counters = [(0, 0), (2, 0), (4, 1), (6, 1), (8, 2), (99, 3)];
        assert_eq!(play(&counters, false), "......");
    }

    #[test]
    fn fails_are_forgotten_after_fail_timeout() {
        let counters = [
            (0, 0),
            (1, 0),
            (1, 0),
            (2, 0),
            (2, 0),
            (2, 0),
            (3, 0),
            (4, 0),
        ];
        assert_eq!(play(&counters, false), "........");
    }

    #[test]
    fn the_last_server_stays() {
        assert_eq!(play(&[(0, 0), (9, 0), (99, 0)], true), "...");
    }
}
