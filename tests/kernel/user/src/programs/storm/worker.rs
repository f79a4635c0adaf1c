//! One worker: its model, its children, its pins, and how it compares.

use pagepin_abi::{PIN_PLAIN, Status, StormRun};

use super::{
    model::{self, Author, OWN, PAGES, Page, WORDS},
    pinner,
    random::Random,
};
use crate::{calls, println};

const HOLDS: usize = 6;
const CHILDREN: usize = 2;
/// Complaints that are printed; all are counted.
const COMPLAINTS: u32 = 4;

/// A pin that is kept over many operations.
#[derive(Clone, Copy)]
pub struct Hold {
    pub pin: u64,
    pub page: usize,
    pub writable: bool,
    /// What it showed when its page was unmapped or discarded.
    pub left: Option<Page>,
}

pub struct Worker {
    pub run: StormRun,
    pub number: u64,
    pub author: Author,
    pub random: Random,
    pub pages: [Page; PAGES],
    pub holds: [Option<Hold>; HOLDS],
    children: [Option<u64>; CHILDREN],
    pub round: u32,
    count: u32,
    wrong: u32,
}

pub fn work(run: StormRun, number: u64) -> u32 {
    let mut worker = Worker {
        run,
        number,
        author: Author::Worker,
        random: Random::new(run.seed, number),
        pages: [Page::UNMAPPED; PAGES],
        holds: [None; HOLDS],
        children: [None; CHILDREN],
        round: 0,
        count: 0,
        wrong: 0,
    };
    pinner::start(run, number);
    for round in 0..u32::from(run.rounds) {
        worker.round = round;
        worker.operate();
        if worker.random.one_in(2) {
            calls::yield_now();
        }
    }
    worker.wrong += pinner::stop();
    for slot in 0..CHILDREN {
        worker.reap(slot);
    }
    worker.verify_all();
    // The others leave their pins to the end of the process.
    if number.is_multiple_of(2) {
        for slot in 0..HOLDS {
            worker.look_through_hold(slot);
            worker.release(slot);
        }
    }
    u32::from(worker.wrong != 0)
}

impl Worker {
    /// Flags of a pin, or of what the twin takes instead.
    pub fn pin_flags(&self, flags: u64) -> u64 {
        if self.run.twin { flags | PIN_PLAIN } else { flags }
    }

    /// Counts a wrong word, and tells of it if it is a surprise.
    pub fn complain(&mut self, what: &str, page: usize, (index, wanted, found): (usize, u64, u64)) {
        self.wrong += 1;
        if !self.run.twin && self.wrong <= COMPLAINTS {
            println!(
                "storm: seed {}, worker {}, round {}, {what}, page {page} ({:?}), word {index}: {found:#x}, not {wanted:#x}",
                self.run.seed, self.number, self.round, self.pages[page].state,
            );
        }
    }

    /// Compares a page with the model, and goes on from what is there.
    pub fn verify(&mut self, what: &str, page: usize) {
        if !self.pages[page].is_readable() {
            return;
        }
        let load = |index| model::load(page, index);
        if let Some(wrong) = self.pages[page].first_wrong(self.number, page, load) {
            self.complain(what, page, wrong);
            self.pages[page].accept(load);
        }
    }

    pub fn verify_all(&mut self) {
        (0..PAGES).for_each(|page| self.verify("all pages", page));
    }

    /// Compares what a pin shows with what the page should be.
    pub fn verify_through(&mut self, what: &str, pin: u64, page: usize, wanted: Page) -> bool {
        let mut words = [0; WORDS];
        pinner::peek(pin, 0, &mut words);
        match wanted.first_wrong(self.number, page, |index| words[index]) {
            None => true,
            Some(wrong) => {
                self.complain(what, page, wrong);
                false
            }
        }
    }

    /// The next word for a place.
    pub fn next_word(&mut self, page: usize, place: usize) -> u64 {
        self.count += 1;
        model::word(self.number, self.author, page, place, self.count)
    }

    /// Stores into a random place of a writable page.
    pub fn store(&mut self, page: usize) {
        let place = self.random.below(OWN as u64) as usize;
        let word = self.next_word(page, place);
        model::store(page, place, word);
        self.pages[page].words[place] = word;
    }

    /// A child with the same memory, which compares, writes, compares, and ends.
    pub fn fork(&mut self) {
        let slot = match self.children.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                let slot = self.random.below(CHILDREN as u64) as usize;
                self.reap(slot);
                slot
            }
        };
        let child = calls::fork().unwrap();
        if child == 0 {
            self.be_child();
        }
        self.children[slot] = Some(child);
    }

    fn be_child(&mut self) -> ! {
        self.author = Author::Child;
        self.wrong = 0;
        // Pins stay with the parent.
        self.holds = [None; HOLDS];
        for page in 0..PAGES {
            self.verify("child's snapshot", page);
            if self.pages[page].is_readable() {
                self.pages[page].accept(|index| model::load(page, index));
                self.pages[page].all_is_known = true;
            }
        }
        for _ in 0..self.random.below(8) {
            self.operate_as_child();
            if self.random.one_in(3) {
                calls::yield_now();
            }
        }
        self.verify_all();
        calls::exit(u32::from(self.wrong != 0));
    }

    /// Waits for a child, and counts what it found.
    pub fn reap(&mut self, slot: usize) {
        let Some(child) = self.children[slot].take() else { return };
        match calls::wait(child) {
            Ok(Status::Exited(0)) => {}
            Ok(Status::Exited(1)) => self.wrong += 1,
            other => panic!("child of worker {}: {other:?}", self.number),
        }
    }

    /// What the hold must show, it shows; else it is given up.
    pub fn look_through_hold(&mut self, slot: usize) {
        let Some(hold) = self.holds[slot] else { return };
        let wanted = hold.left.unwrap_or(self.pages[hold.page]);
        let what = if hold.left.is_some() { "pin of a page that is gone" } else { "pin" };
        if !self.verify_through(what, hold.pin, hold.page, wanted) {
            self.release(slot);
        }
    }

    pub fn release(&mut self, slot: usize) {
        if let Some(hold) = self.holds[slot].take() {
            calls::dev_unpin(hold.pin).unwrap();
        }
    }
}
