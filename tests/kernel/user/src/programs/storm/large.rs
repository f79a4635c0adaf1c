//! Large leaves: mapped, pinned in parts, and never split.

use core::ops::Range;

use pagepin_abi::{Error, PROT_NONE};

use super::{
    layout::{self, OWN, WORDS},
    memory,
    model::{Kind, Page, State},
    pinner,
    worker::Worker,
};
use crate::calls;

/// Base pages of a large page.
const BASE_PAGES: u64 = pagepin_abi::LARGE_BYTES / layout::PAGE;

impl Worker {
    pub fn map_large(&mut self, page: usize, state: State, prot: u64) {
        let result = memory::insist(|| calls::map_large(layout::address(page), prot));
        if self.pages[page].state == State::Unmapped {
            result.unwrap();
            self.pages[page] = Page::mapped(state, Kind::Large, self.author);
        } else {
            assert_eq!(result, Err(Error::Busy));
        }
    }

    /// What to pin of a page. Of a large one: all of it, or some base pages, one of which has a place.
    pub fn some_part(&mut self, page: usize) -> Range<usize> {
        let all = layout::words(page) / WORDS;
        if !layout::is_large(page) || self.random.one_in(6) {
            return 0..all * WORDS;
        }
        let place = self.random.below(OWN as u64) as usize;
        let base = layout::index(page, place) / WORDS;
        let before = self.random.below(3) as usize;
        let after = 1 + self.random.below(3) as usize;
        base.saturating_sub(before) * WORDS..(base + after).min(all) * WORDS
    }

    /// An operation on a part of a large leaf is refused, and changes nothing.
    pub fn split(&mut self) {
        let larges = layout::larges();
        let (vma, bytes) = layout::span(&larges);
        let pages = bytes / layout::PAGE;
        let first = self.random.below(pages - 1);
        let end = first + 1 + self.random.below(pages - first - 1);
        let operation = self.random.below(3);

        let number = |page: u64| larges.start + (page / BASE_PAGES) as usize;
        let splits = |edge: u64| !edge.is_multiple_of(BASE_PAGES) && self.pages[number(edge)].is_leaf();
        if !splits(first) && !splits(end) {
            return;
        }
        let touched = number(first)..number(end - 1) + 1;
        let has_hole = self.pages[touched.clone()].iter().any(|page| page.state == State::Unmapped);
        pinner::lure_to(touched.start);
        let (start, bytes) = (vma + first * layout::PAGE, (end - first) * layout::PAGE);
        let (result, wanted) = match operation {
            0 => (calls::unmap(start, bytes), Error::NotSupported),
            1 => (calls::discard(start, bytes), Error::NotSupported),
            _ if has_hole => (calls::protect(start, bytes, PROT_NONE), Error::NotFound),
            _ => (calls::protect(start, bytes, PROT_NONE), Error::NotSupported),
        };
        assert_eq!(result, Err(wanted), "operation {operation} on pages {first}..{end} of the large ones");
        self.tally.refused += 1;
        for page in touched {
            self.verify("after it was not split", page);
        }
    }
}
