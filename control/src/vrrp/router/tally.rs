//! What everything that an instance tracks comes to.

use super::super::machine::Fault;
use crate::config::Tracked;

/// The range of a sum of weights that means anything: priorities are 1 to 254.
const MOST: i64 = 253;

#[derive(Debug, Default)]
pub(super) struct Tally {
    /// What is added to the priority.
    pub(super) weight: i32,
    /// All that may be a fault, and whether it is.
    pub(super) faults: Vec<(Fault, bool)>,
}

impl Tally {
    /// Something that is fine or not.
    pub(super) fn count(&mut self, kind: &str, tracked: &Tracked, default: i16, fine: bool) {
        let weight = i32::from(tracked.weight.unwrap_or(default));
        let counts = match weight {
            0 => return self.fault(kind, tracked, fine == tracked.reverse),
            lost if lost < 0 => !fine,
            _ => fine,
        };
        if counts {
            self.weight += if tracked.reverse { -weight } else { weight };
        }
    }

    /// The number in a file: times its weight it is added to the priority, and below -253 a fault; with
    /// weight 0 every number but 0 is one (keepalived.conf(5), "Track files").
    pub(super) fn count_number(&mut self, tracked: &Tracked, default: i32, number: i32) {
        let weight = tracked.weight.map_or(default, i32::from);
        if weight == 0 {
            self.fault("track_file", tracked, (number != 0) != tracked.reverse);
            return;
        }
        let product = i64::from(weight) * i64::from(number);
        let product = if tracked.reverse { -product } else { product };
        self.fault("track_file", tracked, product < -MOST);
        let product = i32::try_from(product.clamp(-MOST, MOST));
        self.weight += product.unwrap_or(0);
    }

    fn fault(&mut self, kind: &str, tracked: &Tracked, present: bool) {
        let name = format!("{kind} {}", tracked.name);
        self.faults.push((Fault::Tracked(name), present));
    }
}
