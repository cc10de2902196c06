//! What ipvsadm is told, and what it has done.

use super::Appliance;
use crate::api::edit::{Edit, Edited};
use crate::api::ipvs::Ipvs;

impl Appliance {
    pub(super) fn ipvs(&mut self) -> Ipvs {
        let clock = dataplane::worker::clock();
        self.controller.ipvs(|id| self.workers.totals(id), clock)
    }

    /// Carries edits out.
    pub(super) async fn edit(&mut self, edits: &[Edit]) -> Edited {
        self.measure();
        let (results, actions) = self.controller.edit(edits, std::time::Instant::now());
        self.carry_out(actions).await;
        self.settle();
        Edited {
            results,
            generation: self.controller.generation(),
        }
    }

    pub(super) fn measure(&mut self) {
        self.controller.measure(|id| self.workers.totals(id));
    }
}
