//! The frames of one flow: which came, which are missing, which came late or twice.

/// How far behind the newest frame duplicates are told from late ones, in frames of the flow.
const WINDOW: u64 = 64;

/// What a frame is to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Newer than all before; some before it may be missing still.
    Newest,
    /// Behind a newer one.
    Late,
    /// Was here before.
    Twice,
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// The server of its first frame; `None` before that.
    pub(super) server: Option<u16>,
    /// Another server got a frame, too.
    pub(super) moved: bool,
    /// The frames counted on so far: one more than the newest. It goes on where `round` wraps.
    next: u64,
    /// Which of the [`WINDOW`] frames before `next` were here: the lowest bit is the newest.
    seen: u64,
    /// Different frames that were here.
    received: u64,
}

impl Flow {
    /// Before its first frame, which has this round.
    pub(super) fn beginning(round: u32) -> Self {
        Self {
            server: None,
            moved: false,
            next: round.into(),
            seen: 0,
            received: u64::from(round),
        }
    }

    /// Takes note of the frame of `round`.
    pub(super) fn note(&mut self, round: u32) -> Place {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounds are the lower 32 bits"
        )]
        let ahead = round.wrapping_sub(self.next as u32).cast_signed();
        if let Ok(missing) = u32::try_from(ahead) {
            let seen = self
                .seen
                .checked_shl(missing.saturating_add(1))
                .unwrap_or(0);
            self.seen = seen | 1;
            self.next += u64::from(missing) + 1;
            self.received += 1;
            return Place::Newest;
        }
        let behind = u64::from(ahead.unsigned_abs()) - 1;
        if behind < WINDOW {
            let bit = 1 << behind;
            if self.seen & bit != 0 {
                return Place::Twice;
            }
            self.seen |= bit;
        }
        self.received += 1;
        Place::Late
    }

    /// Frames before the newest that have not come.
    pub(super) fn missing(&self) -> u64 {
        self.next.saturating_sub(self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(first: u32, rounds: &[u32]) -> (Vec<Place>, u64) {
        let mut flow = Flow::beginning(first);
        let places = rounds.iter().map(|&round| flow.note(round)).collect();
        (places, flow.missing())
    }

    #[test]
    fn in_order_nothing_is_missing() {
        assert_eq!(places(0, &[0, 1, 2]), (vec![Place::Newest; 3], 0));
        assert_eq!(places(7, &[7, 8]), (vec![Place::Newest; 2], 0));
    }

    #[test]
    fn gaps_are_lost_until_they_are_filled() {
        use Place::{Late, Newest, Twice};
        assert_eq!(places(0, &[3]), (vec![Newest], 3));
        assert_eq!(places(0, &[0, 5, 2]), (vec![Newest, Newest, Late], 3));
        assert_eq!(
            places(0, &[0, 2, 1, 1, 2]).0,
            [Newest, Newest, Late, Twice, Twice]
        );
        assert_eq!(places(0, &[0, 2, 1, 1, 2]).1, 0);
        assert_eq!(places(0, &[0, 64, 0]).0[2], Late, "beyond the window");
        assert_eq!(places(0, &[0, 63, 0]).0[2], Twice, "the last of the window");
        assert_eq!(places(0, &[0, 1 << 20, 1]).1, (1 << 20) - 2);
    }

    #[test]
    fn rounds_wrap() {
        let last = u32::MAX;
        assert_eq!(
            places(last - 1, &[last - 1, last, 1, 0]),
            (
                vec![Place::Newest, Place::Newest, Place::Newest, Place::Late],
                0
            )
        );
    }
}
