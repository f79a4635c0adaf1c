//! [`StillPinned`]: which frames an unmap, or the end of an address space, leaves pinned.

#![forbid(unsafe_code)]

use crate::addr::{PageAddr, Pfn, PhysRun};

/// Frames that were unmapped and stay allocated, since they are pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PinnedRun {
    /// The user address at which the first of them was mapped.
    pub start: u64,
    /// The frames; of a large leaf all.
    pub run: PhysRun,
}

/// The frames that stay pinned, with the addresses that they had: the lowest runs, [`StillPinned::RUNS`] at most, and how many pages there
/// are beyond them. So a report has a bound, and nothing is allocated for it.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let pinned = space.pin(Write, space.range(0x12000, 1)?, [PhysRun::default(); 1])?;
/// let unmapped = space.unmap(0x10000, 0x4000)?;
/// assert_eq!(unmapped.still_pinned.runs()[0].start, 0x12000);
/// # drop(pinned);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StillPinned {
    runs: [PinnedRun; Self::RUNS],
    used: usize,
    missed_pages: u64,
}

impl StillPinned {
    /// Runs that a report has room for.
    pub const RUNS: usize = 8;

    /// The runs that are listed, by address.
    #[must_use]
    pub fn runs(&self) -> &[PinnedRun] {
        self.runs.get(..self.used).unwrap_or(&[])
    }

    /// Base pages that did not fit.
    #[must_use]
    pub const fn missed_pages(&self) -> u64 {
        self.missed_pages
    }

    /// Adds a leaf of `1 << order` pages.
    #[cold]
    pub(crate) fn add(&mut self, page: PageAddr, first: Pfn, order: u8) {
        self.add_run(PinnedRun { start: page.address(), run: PhysRun::from_parts(first, 1 << order, order) });
    }

    /// With what another report has.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        other.runs().iter().for_each(|run| self.add_run(*run));
        self.missed_pages += other.missed_pages;
        self
    }

    /// At its place by address: tables that left the tree are released after the leaves of those that stay.
    fn add_run(&mut self, added: PinnedRun) {
        let place = self.runs().partition_point(|run| run.start < added.start);
        let (before, after) = self.runs.split_at_mut(place);
        if let Some(last) = before.last_mut().filter(|last| last.continues_with(&added)) {
            last.run.pages += added.run.pages;
            self.join(place);
        } else if place == Self::RUNS || (place == self.used && self.missed_pages != 0) {
            // All that is listed comes before all that is not.
            self.missed_pages += added.run.pages();
        } else {
            if let Some(highest) = after.last().filter(|_| self.used == Self::RUNS) {
                self.missed_pages += highest.run.pages();
                self.used -= 1;
            }
            after.rotate_right(1);
            after[0] = added;
            self.used += 1;
            self.join(place + 1);
        }
    }

    /// Makes one run of that at `place` and the one before, if they are.
    fn join(&mut self, place: usize) {
        let Some([before, run]) = self.runs.get_mut(place - 1..=place).filter(|_| place < self.used) else { return };
        if before.continues_with(run) {
            before.run.pages += run.run.pages;
            *run = PinnedRun::default();
            self.runs[place..self.used].rotate_left(1);
            self.used -= 1;
        }
    }
}

impl PinnedRun {
    fn continues_with(&self, next: &Self) -> bool {
        let end = PageAddr::containing(self.start).offset(self.run.pages()).address();
        end == next.start && self.run.continues_with(&next.run)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn leaves_come_in_any_order_and_are_listed_by_address() {
        // Pages 0 to 2 and 5 lie in frames of the same distance, page 6 does not; each rotation, forward and backward.
        let pages = [0, 1, 2, 5, 6];
        let frame = |page| Pfn::new(if page == 6 { 900 } else { 100 + page });
        let listed = |pages: &[u64]| {
            let mut report = StillPinned::default();
            pages.iter().for_each(|&page| report.add(PageAddr::containing(page << 12), frame(page), 0));
            assert_eq!(report.missed_pages(), 0);
            report.runs().iter().map(|run| (run.start >> 12, run.run.pages())).collect::<Vec<_>>()
        };
        for by in 0..pages.len() {
            let mut turned = pages;
            turned.rotate_left(by);
            assert_eq!(listed(&turned), [(0, 3), (5, 1), (6, 1)]);
            turned.reverse();
            assert_eq!(listed(&turned), [(0, 3), (5, 1), (6, 1)]);
        }
    }

    #[test]
    fn what_does_not_fit_is_the_highest() {
        let runs = StillPinned::RUNS as u64;
        let mut report = StillPinned::default();
        for page in (0..2 * runs).rev() {
            report.add(PageAddr::containing(page << 12), Pfn::new(1000 - 2 * page), 0);
        }
        let starts: Vec<_> = report.runs().iter().map(|run| run.start >> 12).collect();
        assert_eq!((starts, report.missed_pages()), ((0..runs).collect(), runs));
        report.add(PageAddr::containing((2 * runs) << 12), Pfn::new(0), 0);
        assert_eq!(report.missed_pages(), runs + 1);
    }
}
