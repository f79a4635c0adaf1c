//! What a worker does, chosen at random.

use core::ops::Range;

use pagepin_abi::{Call, Error, PIN_LONGTERM, PIN_READ, PIN_WRITE, PROT_NONE, PROT_WRITE};

use super::{
    model::{self, Author, OWN, PAGE, PAGES, PINNED, Page, STORED, State},
    pinner,
    worker::{Hold, Worker},
};
use crate::calls;

impl Worker {
    pub fn operate(&mut self) {
        match self.random.below(100) {
            0..14 => self.map(),
            14..20 => self.unmap(),
            20..32 => self.protect(),
            32..37 => self.discard(),
            37..57 => self.write(),
            57..67 => self.read(),
            67..74 => self.fork(),
            74..82 => self.write_through_pin(),
            82..90 => self.read_through_pin(),
            90..95 => self.hold(),
            _ => self.use_hold(),
        }
    }

    /// What a child does: nothing that forks.
    pub fn operate_as_child(&mut self) {
        match self.random.below(20) {
            0 => self.map(),
            1 => self.unmap(),
            2..4 => self.protect(),
            4 => self.discard(),
            5..15 => self.write(),
            _ => self.read(),
        }
    }

    fn some_pages(&mut self) -> Range<usize> {
        let first = self.random.below(PAGES as u64) as usize;
        let count = 1 + self.random.below(4) as usize;
        if self.random.one_in(2) {
            pinner::lure_to(first);
        }
        first..(first + count).min(PAGES)
    }

    /// A random page of which this holds.
    fn page_that(&mut self, holds: impl Fn(&Page) -> bool) -> Option<usize> {
        let start = self.random.below(PAGES as u64) as usize;
        (start..PAGES).chain(0..start).find(|&page| holds(&self.pages[page]))
    }

    fn some_rights(&mut self) -> (State, u64) {
        match self.random.below(8) {
            0 => (State::Hidden, PROT_NONE),
            1 | 2 => (State::ReadOnly, 0),
            _ => (State::Writable, PROT_WRITE),
        }
    }

    fn map(&mut self) {
        let (pages, (state, prot)) = (self.some_pages(), self.some_rights());
        let result = calls::map(model::address(pages.start), pages.len() as u64 * PAGE, prot);
        if self.pages[pages.clone()].iter().all(|page| page.state == State::Unmapped) {
            result.unwrap();
            let known = self.author == Author::Child;
            self.pages[pages].fill(Page { state, words: [0; _], all_is_known: known });
        } else {
            assert_eq!(result, Err(Error::Busy));
        }
    }

    fn unmap(&mut self) {
        let pages = self.some_pages();
        calls::unmap(model::address(pages.start), pages.len() as u64 * PAGE).unwrap();
        self.leave(pages.clone());
        self.pages[pages].fill(Page::UNMAPPED);
    }

    fn discard(&mut self) {
        let pages = self.some_pages();
        calls::discard(model::address(pages.start), pages.len() as u64 * PAGE).unwrap();
        self.leave(pages.clone());
        self.pages[pages].iter_mut().for_each(|page| page.words = [0; _]);
    }

    /// The frames of these pages are no longer this memory: pins keep what they had.
    fn leave(&mut self, pages: Range<usize>) {
        for hold in self.holds.iter_mut().flatten().filter(|hold| pages.contains(&hold.page)) {
            hold.left.get_or_insert(self.pages[hold.page]);
        }
    }

    fn protect(&mut self) {
        let (pages, (state, prot)) = (self.some_pages(), self.some_rights());
        let result = calls::protect(model::address(pages.start), pages.len() as u64 * PAGE, prot);
        if self.pages[pages.clone()].iter().any(|page| page.state == State::Unmapped) {
            assert_eq!(result, Err(Error::NotFound));
            return;
        }
        result.unwrap();
        for page in pages {
            self.pages[page].state = state;
            self.verify("after protect", page);
            if matches!(state, State::Hidden | State::ReadOnly) {
                self.expect_no_stores(page);
            }
        }
    }

    /// Nobody can store into a page without the right, from whatever CPU.
    fn expect_no_stores(&mut self, page: usize) {
        if let Some(hold) = self.holds.iter().flatten().next() {
            let arguments = [hold.pin, 0, model::address(page), 8, 0];
            assert_eq!(calls::decode(calls::raw(Call::DevPeek as u64, arguments)), Err(Error::Fault));
        }
        if self.pages[page].state == State::ReadOnly {
            let before = model::load(page, model::index(STORED));
            for _ in 0..4 {
                calls::yield_now();
                let now = model::load(page, model::index(STORED));
                if now != before {
                    self.complain("stored where it is read-only", page, (model::index(STORED), before, now));
                    break;
                }
            }
        }
    }

    fn write(&mut self) {
        for _ in 0..1 + self.random.below(4) {
            if let Some(page) = self.page_that(|page| page.state == State::Writable) {
                self.store(page);
            }
        }
    }

    fn read(&mut self) {
        for page in self.some_pages() {
            self.verify("read", page);
        }
    }

    /// Pin, fork, write: the device writes after all that, and both writes are seen.
    fn write_through_pin(&mut self) {
        let Some(page) = self.page_that(|page| page.state == State::Writable) else { return };
        let pin = calls::dev_pin(model::address(page), PAGE, self.pin_flags(PIN_WRITE)).unwrap();
        self.fork();
        self.store(page);
        self.poke(pin, page);
        self.verify("after the device wrote", page);
        self.verify_through("pinned for writing", pin, page, self.pages[page]);
        calls::dev_unpin(pin).unwrap();
    }

    /// Pin, fork, write: the device sees what was written.
    fn read_through_pin(&mut self) {
        let Some(page) = self.page_that(Page::is_readable) else { return };
        let pin = calls::dev_pin(model::address(page), PAGE, self.pin_flags(PIN_READ)).unwrap();
        if self.random.one_in(2) {
            self.fork();
        }
        if self.pages[page].state == State::Writable {
            self.store(page);
        }
        self.verify_through("pinned for reading", pin, page, self.pages[page]);
        self.verify("pinned for reading, in memory", page);
        calls::dev_unpin(pin).unwrap();
    }

    /// Writes a random place through a pin of a page that is still there.
    fn poke(&mut self, pin: u64, page: usize) {
        let place = self.random.below(OWN as u64) as usize;
        let word = self.next_word(page, place);
        calls::dev_poke(pin, model::offset(place), &word.to_le_bytes()).unwrap();
        self.pages[page].words[place] = word;
    }

    /// Takes a pin, and keeps it.
    fn hold(&mut self) {
        let Some(slot) = self.holds.iter().position(Option::is_none) else { return };
        let (page, writable) = (self.random.below(PAGES as u64) as usize, self.random.one_in(2));
        let flags = if writable { PIN_WRITE } else { PIN_READ } | PIN_LONGTERM;
        let result = calls::dev_pin(model::address(page), PAGE, self.pin_flags(flags));
        match (self.pages[page].state, writable) {
            (State::Unmapped, _) => assert_eq!(result, Err(Error::Fault)),
            (State::Hidden, _) | (State::ReadOnly, true) => assert_eq!(result, Err(Error::Denied)),
            _ => self.holds[slot] = Some(Hold { pin: result.unwrap(), page, writable, left: None }),
        }
    }

    fn use_hold(&mut self) {
        let slot = self.random.below(self.holds.len() as u64) as usize;
        self.look_through_hold(slot);
        let Some(hold) = self.holds[slot] else { return };
        if hold.writable && self.random.one_in(2) {
            match hold.left {
                None => self.poke(hold.pin, hold.page),
                // Into a frame that no page shows; other pins may.
                Some(_) => {
                    let word = model::word(self.number, Author::Pinner, hold.page, PINNED, self.round);
                    calls::dev_poke(hold.pin, model::offset(PINNED), &word.to_le_bytes()).unwrap();
                }
            }
            self.verify("after the device wrote long after", hold.page);
            self.look_through_hold(slot);
        }
        if self.random.one_in(3) {
            self.release(slot);
        }
    }
}
