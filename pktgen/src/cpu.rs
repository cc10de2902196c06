//! Binding to a CPU.

use core_affinity::CoreId;

/// Binds this thread, and those it starts, to one CPU.
///
/// # Errors
/// There is no such CPU, or this process may not run on it.
pub fn pin(core: usize) -> Result<(), PinError> {
    if core_affinity::set_for_current(find(core)?) {
        Ok(())
    } else {
        Err(PinError::Refused { core })
    }
}

/// How many CPUs this process may run on.
#[must_use]
pub fn count() -> usize {
    core_affinity::get_core_ids().unwrap_or_default().len()
}

/// Binds this thread to the `index`-th of the CPUs that this process may run on, from 0.
///
/// # Errors
/// There are not so many, or the kernel refuses.
pub fn pin_nth(index: usize) -> Result<(), PinError> {
    let known = core_affinity::get_core_ids().unwrap_or_default();
    pin(known.get(index).map_or(index, |id| id.id))
}

/// The CPU with that number.
///
/// # Errors
/// There is none that this process may run on.
pub fn find(core: usize) -> Result<CoreId, PinError> {
    let known = core_affinity::get_core_ids().unwrap_or_default();
    let found = known.iter().find(|id| id.id == core).copied();
    found.ok_or_else(|| PinError::Unknown {
        core,
        known: known.iter().map(|id| id.id).collect(),
    })
}

/// The thread cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("CPU {core}: this process may run on {known:?}: choose one of these")]
    Unknown { core: usize, known: Vec<usize> },
    #[error("CPU {core}: the kernel refused to bind to it")]
    Refused { core: usize },
}
