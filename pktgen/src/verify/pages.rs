//! The flows of a run by their numbers, which come in no order.

use super::flow::Flow;

/// Flows of a page, 8 KiB.
pub(super) const PAGE: usize = 256;

/// Flows in pages. A page is made when the first of its flows comes: to make all flows below a high number
/// at once would take longer than the frames behind it can wait.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: Vec<Option<Box<[Flow; PAGE]>>>,
    /// One more than the highest number that came.
    numbers: usize,
}

impl Pages {
    /// False if [`flow`](Self::flow) would have to make a page.
    pub(super) fn has_page(&self, number: usize) -> bool {
        self.pages.get(number / PAGE).is_some_and(Option::is_some)
    }

    /// The flow with that number.
    pub(super) fn flow(&mut self, number: usize) -> &mut Flow {
        self.numbers = self.numbers.max(number + 1);
        let at = number / PAGE;
        if at >= self.pages.len() {
            self.pages.resize_with(at + 1, || None);
        }
        let page = self.pages[at].get_or_insert_with(|| Box::new([Flow::beginning(0); PAGE]));
        &mut page[number % PAGE]
    }

    /// Flows of which something came.
    pub(super) fn known(&self) -> impl Iterator<Item = &Flow> {
        let flows = self.pages.iter().flatten().flat_map(|page| page.iter());
        flows.filter(|flow| flow.server.is_some())
    }

    /// Flows below the highest number of which nothing came.
    pub(super) fn silent(&self) -> u64 {
        self.numbers.saturating_sub(self.known().count()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_high_number_takes_one_page() {
        let mut flows = Pages::default();
        for number in [1 << 24, 3, (1 << 24) + 1] {
            flows.flow(number).server = Some(0);
        }
        assert_eq!(flows.pages.iter().flatten().count(), 2);
        assert!(flows.has_page(0) && !flows.has_page(PAGE));
        assert_eq!((flows.known().count(), flows.silent()), (3, (1 << 24) - 1));
    }
}
