//! Large leaves: mapped, pinned in parts, and split.

use core::ops::Range;

use pagepin_abi::{Error, PROT_NONE, PROT_WRITE};

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

    /// A part of large leaves gets the rights that it has: they are split at its edges, and nothing else changes.
    pub fn split(&mut self) {
        let larges = layout::larges();
        let (vma, bytes) = layout::span(&larges);
        let pages = bytes / layout::PAGE;
        let first = self.random.below(pages - 1);
        let end = first + 1 + self.random.below(pages - first - 1);
        let number = |page: u64| larges.start + (page / BASE_PAGES) as usize;
        let touched = number(first)..number(end - 1) + 1;
        let state = self.pages[touched.start].state;
        let prot = match state {
            State::Unmapped => return,
            State::Hidden => PROT_NONE,
            State::ReadOnly => 0,
            State::Writable => PROT_WRITE,
        };
        if self.pages[touched.clone()].iter().any(|page| page.state != state) {
            return;
        }
        pinner::lure_to(touched.start);
        let (start, bytes) = (vma + first * layout::PAGE, (end - first) * layout::PAGE);
        memory::insist(|| calls::protect(start, bytes, prot)).unwrap();
        self.tally.split += 1;
        for page in touched {
            self.verify("after it was split", page);
        }
    }
}
