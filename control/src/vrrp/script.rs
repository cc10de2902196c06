//! What the results of a `vrrp_script` come to.

/// Counts results in a row. The first result decides; later it takes `rise`
/// successes to succeed, and `fall` failures to fail.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    rise: u32,
    fall: u32,
    /// `None`: no result yet.
    succeeds: Option<bool>,
    /// Results in a row that contradict.
    against: u32,
}

impl Verdict {
    /// `rise` and `fall` are at least 1.
    #[must_use]
    pub fn new(rise: u32, fall: u32) -> Self {
        Self {
            rise,
            fall,
            succeeds: None,
            against: 0,
        }
    }

    /// Takes a result; the verdict, if that makes a difference.
    pub fn result(&mut self, success: bool) -> Option<bool> {
        if self.succeeds == Some(success) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if success { self.rise } else { self.fall };
        if self.succeeds.is_some() && self.against < needed {
            return None;
        }
        self.against = 0;
        self.succeeds = Some(success);
        self.succeeds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rise_and_fall() {
        let mut verdict = Verdict::new(2, 3);
        let mut after = |results: &str| {
            let results = results.chars().map(|result| result == '+');
            let verdicts = results.filter_map(|result| verdict.result(result));
            verdicts.collect::<Vec<_>>()
        };
        assert_eq!(after("+"), [true], "the first decides");
        assert_eq!(after("--+--"), [false; 0]);
        assert_eq!(after("-"), [false]);
        assert_eq!(after("+-+"), [false; 0]);
        assert_eq!(after("+"), [true]);
    }
}
