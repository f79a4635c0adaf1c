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

/// The frames that stay pinned, with the addresses that they had: the first [`StillPinned::RUNS`] runs, and how many pages there
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

    fn add_run(&mut self, added: PinnedRun) {
        let last = self.used.checked_sub(1).and_then(|last| self.runs.get_mut(last));
        if let Some(last) = last.filter(|last| last.continues_with(&added)) {
            last.run.pages += added.run.pages;
        } else if let Some(place) = self.runs.get_mut(self.used) {
            *place = added;
            self.used += 1;
        } else {
            self.missed_pages += added.run.pages();
        }
    }
}

impl PinnedRun {
    fn continues_with(&self, next: &Self) -> bool {
        let end = PageAddr::containing(self.start).offset(self.run.pages()).address();
        end == next.start && self.run.continues_with(&next.run)
    }
}
