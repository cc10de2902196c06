//! What the programs of the measurement share.

use serde::{Deserialize, Serialize};

/// What a sink has counted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Reading {
    pub frames: u64,
    pub bytes: u64,
    /// Since the sink was attached.
    pub seconds: f64,
}

impl Reading {
    /// Million packets per second from `earlier` to this one.
    #[must_use]
    pub fn mpps_since(&self, earlier: &Self) -> f64 {
        let frames = self.frames.saturating_sub(earlier.frames);
        frames as f64 / (self.seconds - earlier.seconds) / 1e6
    }
}
