//! What a worker does, chosen at random.

use core::ops::Range;

use pagepin_abi::{Call, Error, PIN_LONGTERM, PIN_READ, PIN_WRITE, PROT_NONE, PROT_WRITE};

use super::{
    layout::{self, BASES, PAGES, PINNED, STORED},
    memory,
    model::{self, Author, Contents, Kind, Page, State},
    pinner,
    worker::{Hold, Worker},
};
use crate::calls;

impl Worker {
    pub fn operate(&mut self) {
        match self.random.below(100) {
            0..14 => self.map(),
            14..20 => self.unmap(),
            20..31 => self.protect(),
            31..36 => self.discard(),
            36..39 => self.split(),
            39..56 => self.write(),
            56..65 => self.read(),
            65..71 => self.fork(),
            71..76 => self.pin_untouched(),
            76..83 => self.write_through_pin(),
            83..90 => self.read_through_pin(),
            90..95 => self.hold(),
            _ => self.use_hold(),
        }
    }

    /// What a child does: nothing that forks or pins.
    pub fn operate_as_child(&mut self) {
        match self.random.below(20) {
            0 => self.map(),
            1 => self.unmap(),
            2..4 => self.protect(),
            4 => self.discard(),
            5 => self.split(),
            6..15 => self.write(),
            _ => self.read(),
        }
    }

    /// Pages that follow each other: mostly base pages, sometimes large ones, rarely all.
    fn some_pages(&mut self) -> Range<usize> {
        let pages = match self.random.below(64) {
            0 => 0..PAGES,
            1..8 => {
                let first = BASES + self.random.below((PAGES - BASES) as u64) as usize;
                first..if self.random.one_in(4) { PAGES } else { first + 1 }
            }
            _ => {
                let first = self.random.below(BASES as u64) as usize;
                let count = 1 + self.random.below(4) as usize;
                first..(first + count).min(BASES)
            }
        };
        if self.random.one_in(2) {
            pinner::lure_to(pages.start);
        }
        pages
    }

    /// A random page of which this holds.
    pub fn page_that(&mut self, holds: impl Fn(&Page) -> bool) -> Option<usize> {
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
        let pages = if pages.len() == PAGES { 0..BASES } else { pages };
        let (start, bytes) = layout::span(&pages);
        let (kind, result) = match self.random.below(4) {
            _ if layout::is_large(pages.start) => return self.map_large(pages.start, state, prot),
            0 => (Kind::Device, calls::map_device(start, bytes, prot, memory::device_page(self.number, pages.start))),
            _ => (Kind::Base, calls::map(start, bytes, prot)),
        };
        if self.pages[pages.clone()].iter().all(|page| page.state == State::Unmapped) {
            result.unwrap();
            self.pages[pages].fill(Page::mapped(state, kind, self.author));
        } else {
            assert_eq!(result, Err(Error::Busy));
        }
    }

    fn unmap(&mut self) {
        let pages = self.some_pages();
        let (start, bytes) = layout::span(&pages);
        calls::unmap(start, bytes).unwrap();
        self.leave(pages.clone());
        for page in pages {
            self.pages[page].state = State::Unmapped;
            self.expect_no_stores(page);
            self.pages[page] = Page::UNMAPPED;
        }
    }

    fn discard(&mut self) {
        let pages = self.some_pages();
        let (start, bytes) = layout::span(&pages);
        calls::discard(start, bytes).unwrap();
        self.forget(pages);
    }

    /// These pages were discarded: of private memory, nothing is left, nor are large leaves.
    pub fn forget(&mut self, pages: Range<usize>) {
        self.leave(pages.clone());
        for page in self.pages[pages].iter_mut().filter(|page| page.kind != Kind::Device) {
            (page.kind, page.contents) = (Kind::Base, Contents::fresh(self.author));
        }
    }

    /// The frames of these pages are no longer this memory: pins keep what they had.
    fn leave(&mut self, pages: Range<usize>) {
        for hold in self.holds.iter_mut().flatten().filter(|hold| pages.contains(&hold.pin.page)) {
            hold.left.get_or_insert(self.pages[hold.pin.page].contents);
        }
    }

    fn protect(&mut self) {
        let (pages, (state, prot)) = (self.some_pages(), self.some_rights());
        let (start, bytes) = layout::span(&pages);
        let result = calls::protect(start, bytes, prot);
        // Base pages and large ones have a hole between them.
        let has_hole = pages.len() == PAGES;
        if has_hole || self.pages[pages.clone()].iter().any(|page| page.state == State::Unmapped) {
            assert_eq!(result, Err(Error::NotFound));
            return;
        }
        if self.pages[pages.clone()].iter().any(|page| state > page.limit) {
            assert_eq!(result, Err(Error::Denied));
            return;
        }
        result.unwrap();
        for page in pages {
            self.pages[page].state = state;
            self.verify("after protect", page);
            if state != State::Writable {
                self.expect_no_stores(page);
            }
        }
    }

    /// Nobody can store into a page without the right, from whatever CPU; nor can the kernel for this program.
    fn expect_no_stores(&mut self, page: usize) {
        if let Some(hold) = self.holds.iter().flatten().next() {
            let arguments = [hold.pin.handle(), 0, layout::address(page), 8, 0];
            assert_eq!(calls::decode(calls::raw(Call::DevPeek as u64, arguments)), Err(Error::Fault));
        }
        let load = match self.pages[page] {
            // It has no second thread, and of device memory its parent may have kept the right.
            _ if self.author == Author::Child => return,
            Page { kind: Kind::Device, .. } => memory::load_device,
            Page { state: State::ReadOnly, .. } => memory::load,
            _ => return,
        };
        let index = layout::index(page, STORED);
        let before = load(page, index);
        pinner::await_store_to(page);
        let now = load(page, index);
        if now != before {
            self.complain("stored without the right", page, (index, before, now));
        }
    }

    fn write(&mut self) {
        // A child's stores into device memory are those that its parent knows of.
        let is_child = self.author == Author::Child;
        for _ in 0..1 + self.random.below(4) {
            if let Some(page) = self.page_that(|page| page.is_writable() && !(is_child && page.is_devices())) {
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
        let Some(page) = self.page_that(Page::is_writable) else { return };
        if self.pages[page].is_devices() {
            return self.expect_no_pin(page, PIN_WRITE);
        }
        let pin = self.pin(page, PIN_WRITE).unwrap();
        self.fork();
        self.store(page);
        self.poke(pin);
        self.verify("after the device wrote", page);
        self.verify_through("pinned for writing", pin, self.pages[page].contents);
        pin.release();
    }

    /// Pin, fork, write: the device sees what was written.
    fn read_through_pin(&mut self) {
        let Some(page) = self.page_that(Page::is_readable) else { return };
        if self.pages[page].is_devices() {
            return self.expect_no_pin(page, PIN_READ);
        }
        let pin = self.pin(page, PIN_READ).unwrap();
        if self.random.one_in(2) {
            self.fork();
        }
        if self.pages[page].is_writable() {
            self.store(page);
        }
        self.verify_through("pinned for reading", pin, self.pages[page].contents);
        self.verify("pinned for reading, in memory", page);
        pin.release();
    }

    /// Device memory cannot be pinned, whatever was said about it.
    fn expect_no_pin(&mut self, page: usize, flags: u64) {
        assert_eq!(self.pin(page, flags).err(), Some(Error::NotSupported));
    }

    /// Takes a pin, and keeps it.
    fn hold(&mut self) {
        let Some(slot) = self.holds.iter().position(Option::is_none) else { return };
        let (page, writable) = (self.random.below(PAGES as u64) as usize, self.random.one_in(2));
        let flags = if writable { PIN_WRITE } else { PIN_READ } | PIN_LONGTERM;
        let result = self.pin(page, flags);
        let refusal = match (self.pages[page].state, writable) {
            (State::Unmapped, _) => Some(Error::Fault),
            (State::Hidden, _) | (State::ReadOnly, true) => Some(Error::Denied),
            _ if self.pages[page].is_devices() => Some(Error::NotSupported),
            _ => None,
        };
        match result {
            Ok(pin) if refusal.is_none() => self.holds[slot] = Some(Hold { pin, writable, left: None }),
            other => assert_eq!(other.err(), refusal),
        }
    }

    fn use_hold(&mut self) {
        let slot = self.random.below(self.holds.len() as u64) as usize;
        self.look_through_hold(slot);
        let Some(hold) = self.holds[slot] else { return };
        if hold.writable && self.random.one_in(2) {
            match hold.left {
                None => self.poke(hold.pin),
                // Into a frame that no page shows; other pins may.
                Some(_) if hold.pin.has(PINNED) => {
                    let word = model::word(self.number, Author::Pinner, hold.pin.page, PINNED, self.round);
                    hold.pin.poke(PINNED, word);
                }
                Some(_) => {}
            }
            self.verify("after the device wrote long after", hold.pin.page);
            self.look_through_hold(slot);
        }
        if self.random.one_in(3) {
            self.release(slot);
        }
    }
}
