//! One worker: its model, its pins, and how it compares.

use pagepin_abi::{PIN_PLAIN, StormRun, Tally};

use super::{
    children::Child,
    layout::{self, BASES, OWN, PAGES},
    memory::{self, Pin},
    model::{self, Author, Contents, MARKS, Page},
    pinner,
    random::Random,
};
use crate::{calls, println};

const HOLDS: usize = 6;
/// Complaints that are printed; all are counted.
const COMPLAINTS: u32 = 4;

/// A pin that is kept over many operations.
#[derive(Clone, Copy)]
pub struct Hold {
    pub pin: Pin,
    pub writable: bool,
    /// What it showed when its page was unmapped or discarded.
    pub left: Option<Contents>,
}

pub struct Worker {
    pub run: StormRun,
    pub number: u64,
    pub author: Author,
    pub random: Random,
    pub pages: [Page; PAGES],
    /// What is in device memory, mapped or not.
    pub device: [Contents; BASES],
    pub holds: [Option<Hold>; HOLDS],
    pub children: [Option<Child>; MARKS.len()],
    pub round: u32,
    pub wrong: u32,
    pub tally: Tally,
    count: u32,
    looks: u32,
}

pub fn work(run: StormRun, number: u64) -> u32 {
    let mut worker = Worker {
        run,
        number,
        author: Author::Worker,
        random: Random::new(run.seed, number),
        pages: [Page::UNMAPPED; PAGES],
        device: [Contents::DEVICES; BASES],
        holds: [None; HOLDS],
        children: [None; MARKS.len()],
        round: 0,
        wrong: 0,
        tally: Tally::default(),
        count: 0,
        looks: 0,
    };
    memory::open_window(number);
    pinner::start(run, number);
    for round in 0..u32::from(run.rounds) {
        worker.round = round;
        worker.operate();
        if worker.random.one_in(2) {
            calls::yield_now();
        }
    }
    worker.wrong += pinner::stop();
    for slot in 0..worker.children.len() {
        worker.reap(slot);
    }
    worker.verify_all("at the end");
    // The others leave their pins to the end of the process.
    if number.is_multiple_of(2) {
        for slot in 0..HOLDS {
            worker.look_through_hold(slot);
            worker.release(slot);
        }
    }
    // There may be more workers than notes: the first ones will do.
    let _ = calls::note(number, worker.tally.to_bits());
    u32::from(worker.wrong != 0)
}

impl Worker {
    /// Flags of a pin, or of what the twin takes instead.
    pub fn pin_flags(&self, flags: u64) -> u64 {
        if self.run.twin { flags | PIN_PLAIN } else { flags }
    }

    /// What should be in a page.
    pub fn contents(&mut self, page: usize) -> &mut Contents {
        if self.pages[page].is_devices() { &mut self.device[page] } else { &mut self.pages[page].contents }
    }

    /// Counts a wrong word, and tells of it if it is a surprise.
    pub fn complain(&mut self, what: &str, page: usize, (index, wanted, found): (usize, u64, u64)) {
        self.wrong += 1;
        if !self.run.twin && self.wrong <= COMPLAINTS {
            let Page { state, kind, .. } = self.pages[page];
            println!(
                "storm: seed {}, worker {}, round {}, {what}, page {page} ({state:?}, {kind:?}), word {index}: {found:#x}, not {wanted:#x}",
                self.run.seed, self.number, self.round,
            );
        }
    }

    /// Chooses anew among the words that are not always compared.
    fn salt(&mut self) -> u32 {
        self.looks += 1;
        self.looks
    }

    /// Compares a page with the model, and goes on from what is there.
    pub fn verify(&mut self, what: &str, page: usize) {
        if !self.pages[page].is_readable() {
            return;
        }
        let (salt, contents) = (self.salt(), *self.contents(page));
        let load = |index| memory::load(page, index);
        if let Some(wrong) = contents.first_wrong(self.number, page, (&(0..layout::words(page)), salt), load) {
            self.complain(what, page, wrong);
            self.contents(page).accept(page, load);
        }
    }

    /// Compares the device memory that belongs to a base page with the model, whether or not it is mapped there now.
    pub fn verify_device(&mut self, what: &str, page: usize) {
        let (salt, contents) = (self.salt(), self.device[page]);
        let load = |index| memory::load_device(page, index);
        if let Some(wrong) = contents.first_wrong(self.number, page, (&(0..layout::words(page)), salt), load) {
            self.complain(what, page, wrong);
            self.device[page].accept(page, load);
        }
    }

    pub fn verify_all(&mut self, what: &str) {
        (0..PAGES).for_each(|page| self.verify(what, page));
        (0..BASES).for_each(|page| self.verify_device(what, page));
    }

    /// Compares what a pin shows with what the page should be.
    pub fn verify_through(&mut self, what: &str, pin: Pin, wanted: Contents) -> bool {
        let salt = self.salt();
        match wanted.first_wrong(self.number, pin.page, (&pin.part(), salt), pin.view()) {
            None => true,
            Some(wrong) => {
                self.complain(what, pin.page, wrong);
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
        let places = if self.pages[page].is_devices() { MARKS[0] } else { OWN };
        let place = self.random.below(places as u64) as usize;
        let word = self.next_word(page, place);
        memory::store(page, place, word);
        self.note_write(page, place, word);
    }

    /// Writes a random place through a pin of a page that is still there.
    pub fn poke(&mut self, pin: Pin) {
        let start = self.random.below(OWN as u64) as usize;
        let Some(place) = (start..OWN).chain(0..start).find(|&place| pin.has(place)) else { return };
        let word = self.next_word(pin.page, place);
        pin.poke(place, word);
        self.note_write(pin.page, place, word);
    }

    fn note_write(&mut self, page: usize, place: usize, word: u64) {
        self.contents(page).set(place, word);
        self.tally.large += u64::from(self.pages[page].is_leaf());
    }

    /// Pins a page, or a part of a large one with at least one place.
    pub fn pin(&mut self, page: usize, flags: u64) -> calls::Result<Pin> {
        Pin::new(page, &self.some_part(page), self.pin_flags(flags))
    }

    /// What the hold must show, it shows; else it is given up.
    pub fn look_through_hold(&mut self, slot: usize) {
        let Some(hold) = self.holds[slot] else { return };
        let wanted = hold.left.unwrap_or(self.pages[hold.pin.page].contents);
        let what = if hold.left.is_some() { "pin of a page that is gone" } else { "pin" };
        if !self.verify_through(what, hold.pin, wanted) {
            self.release(slot);
        }
    }

    pub fn release(&mut self, slot: usize) {
        if let Some(hold) = self.holds[slot].take() {
            hold.pin.release();
        }
    }
}
