//! Binding to a CPU.

/// Binds this thread, and those it starts, to one CPU.
///
/// # Errors
/// There is no such CPU, or this process may not run on it.
pub fn pin(core: usize) -> Result<(), PinError> {
    let known = core_affinity::get_core_ids().unwrap_or_default();
    let Some(id) = known.iter().find(|id| id.id == core) else {
        return Err(PinError::Unknown {
            core,
            known: known.iter().map(|id| id.id).collect(),
        });
    };
    if core_affinity::set_for_current(*id) {
        Ok(())
    } else {
        Err(PinError::Refused { core })
    }
}

/// The thread cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("CPU {core}: this process may run on {known:?}: choose one of these")]
    Unknown { core: usize, known: Vec<usize> },
    #[error("CPU {core}: the kernel refused to bind to it")]
    Refused { core: usize },
}
