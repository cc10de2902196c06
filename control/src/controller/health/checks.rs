//! The checks of a real server across reloads: which go on, which begin, and what is known by then.

use crate::config::{Check, CheckKind, RealServer};
use crate::controller::{ServerKey, check_id};
use crate::event::{Action, WeightChange};

/// What is known of a real server by one of its checks.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckState {
    /// Of the server's checks: in its [`CheckId`](crate::event::CheckId).
    pub number: usize,
    pub check: Check,
    /// `None`: no result yet; the server counts as up, unless `alpha`.
    pub healthy: Option<bool>,
    /// What the last change was about.
    pub reason: Option<String>,
    /// What the check wants of the weight.
    pub weight: Option<WeightChange>,
}

impl CheckState {
    /// Whether the server may be used as far as this check is concerned.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.healthy.unwrap_or(!self.check.alpha)
    }
}

/// How a check is found again in another configuration, the surest way first. As in keepalived, what it asks of whom
/// counts, and not when it does.
const SAME: [fn(&Check, &Check) -> bool; 3] = [
    |one, other| one == other,
    |one, other| one.target == other.target && one.kind == other.kind,
    |one, other| one.target == other.target && is_of_the_same(&one.kind, &other.kind),
];

/// Another url asks the same server; another script has nothing to do with the former.
fn is_of_the_same(one: &CheckKind, other: &CheckKind) -> bool {
    match (one, other) {
        (CheckKind::MiscCheck(one), CheckKind::MiscCheck(other)) => one.script == other.script,
        (CheckKind::FileCheck(one), CheckKind::FileCheck(other)) => one.file == other.file,
        (one, other) => one.name() == other.name(),
    }
}

/// The states of the checks that `server` has from now on. A check that is found among the `known` keeps what it found
/// out, and goes on undisturbed if nothing of it changed. Others know nothing; but a server that `was_up` stays up until
/// they do, also with `alpha`.
pub(super) fn take_up(
    key: ServerKey,
    server: &RealServer,
    mut known: Vec<CheckState>,
    was_up: bool,
    actions: &mut Vec<Action>,
) -> Vec<CheckState> {
    // A number that was in use names nothing else yet: a last result may still be on its way.
    let mut number = known.iter().map(|old| old.number + 1).max().unwrap_or(0);
    let mut found: Vec<Option<CheckState>> = vec![None; server.checks.len()];
    for same in SAME {
        for (found, check) in found.iter_mut().zip(&server.checks) {
            if found.is_none() {
                let place = known.iter().position(|old| same(&old.check, check));
                *found = place.map(|place| known.remove(place));
            }
        }
    }
    actions.extend(known.iter().map(|old| Action::StopCheck {
        id: check_id(key, old.number),
    }));
    let mut states = Vec::with_capacity(found.len());
    for (found, check) in found.into_iter().zip(&server.checks) {
        let undisturbed = found.as_ref().is_some_and(|old| old.check == *check);
        let mut state = match found {
            Some(old) => CheckState {
                check: check.clone(),
                ..old
            },
            None => {
                number += 1;
                CheckState {
                    number: number - 1,
                    check: check.clone(),
                    healthy: None,
                    reason: None,
                    weight: None,
                }
            }
        };
        if was_up && !state.passes() {
            state.healthy = Some(true);
        }
        if !undisturbed {
            actions.push(Action::StartCheck {
                id: check_id(key, state.number),
                check: Box::new(check.clone()),
            });
        }
        states.push(state);
    }
    states
}

#[cfg(test)]
mod tests;
