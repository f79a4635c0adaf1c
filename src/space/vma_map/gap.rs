//! Looking for pages that are in no VMA.

use super::{VmaMap, note_looks};
use crate::addr::{PAGE_SIZE, PageAddr};
use crate::space::placement::Gap;

impl VmaMap {
    /// The lowest place from `from` on for `gap`, all of it below `end`. One look at each chunk that it passes, and at the VMAs of
    /// those that have a gap as wide; or that were changed since the last search.
    pub(in crate::space) fn find_gap(&mut self, from: PageAddr, end: PageAddr, gap: Gap) -> Option<PageAddr> {
        let guard = gap.guard_pages.checked_mul(PAGE_SIZE)?;
        let mut from = from;
        loop {
            let start = self.find_gap_in_vmas(from, end, gap)?;
            let (lowest, highest) =
                (start.address().saturating_sub(guard), start.offset(gap.pages).address().saturating_add(guard));
            let taken = |stretch: &&(PageAddr, PageAddr)| stretch.0.address() < highest && lowest < stretch.1.address();
            // Each is behind the one before, so this ends.
            match self.leaving.iter().find(taken) {
                None => return Some(start),
                Some((_, after)) => from = PageAddr::containing(after.address().checked_add(guard)?),
            }
        }
    }

    fn find_gap_in_vmas(&mut self, from: PageAddr, end: PageAddr, gap: Gap) -> Option<PageAddr> {
        let guard = gap.guard_pages.checked_mul(PAGE_SIZE)?;
        let length = gap.pages.checked_mul(PAGE_SIZE)?;
        let wide = length.saturating_add(guard.saturating_mul(2));
        let mut lowest = from.address();
        let is_free = |lowest, next: PageAddr| {
            place(lowest, length, gap.align).is_some_and(|(_, last)| fits(last, guard, next.address()))
        };
        let before = self.chunk_of(PageAddr::containing(lowest.saturating_sub(guard)));
        'found: for chunk in self.chunks.iter_mut().skip(before).filter(|chunk| !chunk.vmas().is_empty()) {
            note_looks(1);
            if chunk.start() >= end || is_free(lowest, chunk.start()) {
                break;
            }
            if chunk.widest_gap() >= wide {
                for vma in chunk.vmas() {
                    note_looks(1);
                    if is_free(lowest, vma.start()) {
                        break 'found;
                    }
                    lowest = lowest.max(vma.end().address().checked_add(guard)?);
                }
            }
            lowest = lowest.max(chunk.end().address().checked_add(guard)?);
        }
        // Nothing follows the last VMA but the end of the user half, which needs no guard.
        let (start, last) = place(lowest, length, gap.align)?;
        (last <= end.address()).then(|| PageAddr::containing(start))
    }
}

/// The first aligned place from `lowest` on, and the address behind it.
fn place(lowest: u64, length: u64, align: u64) -> Option<(u64, u64)> {
    let start = lowest.checked_next_multiple_of(align)?;
    Some((start, start.checked_add(length)?))
}

/// Whether what ends at `last` leaves a guard below `next`.
fn fits(last: u64, guard: u64, next: u64) -> bool {
    last.checked_add(guard).is_some_and(|end| end <= next)
}
