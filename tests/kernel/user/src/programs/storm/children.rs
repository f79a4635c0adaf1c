//! A worker's children: each has the same memory, compares, writes, compares, and ends.
//! What it stores into device memory, its parent must see.

use pagepin_abi::{Error, Status};

use super::{
    layout::{BASES, PAGES},
    memory,
    model::{self, Author, Contents, MARKS},
    pinner,
    worker::Worker,
};
use crate::calls;

#[derive(Clone, Copy)]
pub struct Child {
    pid: u64,
    /// Number of the round in which it was born.
    born: u32,
    /// A bit for each page of device memory that it stores into.
    marked: u32,
}

impl Worker {
    /// A child, at the latest when there is memory for one.
    pub fn fork(&mut self) {
        let slot = match self.children.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                let slot = self.random.below(self.children.len() as u64) as usize;
                self.reap(slot);
                slot
            }
        };
        let fork = || {
            let result = calls::fork();
            if result == Err(Error::NoMemory) {
                self.tally.unforked += 1;
                self.verify_all("after a fork without memory");
            }
            result
        };
        let pid = memory::insist(fork).unwrap();
        let child = Child { pid, born: self.round, marked: self.writable_devices() };
        if child.pid == 0 {
            self.be_child(child, slot);
        }
        for page in child.marked_pages() {
            self.device[page].forget(MARKS[slot]);
        }
        self.children[slot] = Some(child);
        pinner::show_child(slot, child.pid);
    }

    fn writable_devices(&self) -> u32 {
        let marked = |&page: &usize| self.pages[page].is_devices() && self.pages[page].is_writable();
        (0..BASES).filter(marked).fold(0, |bits, page| bits | 1 << page)
    }

    fn be_child(&mut self, child: Child, slot: usize) -> ! {
        self.author = Author::Child;
        self.wrong = 0;
        // Pins stay with the parent.
        self.holds.fill(None);
        self.children.fill(None);
        self.device = self.device.map(Contents::inherited);
        for page in 0..PAGES {
            self.verify("child's snapshot", page);
            if self.pages[page].is_readable() && !self.pages[page].is_devices() {
                self.pages[page].contents.accept(page, |index| memory::load(page, index));
                self.pages[page].contents = self.pages[page].contents.inherited();
            }
        }
        for page in child.marked_pages() {
            let word = child.mark(self.number, page, slot);
            memory::store(page, MARKS[slot], word);
            self.device[page].set(MARKS[slot], word);
        }
        for _ in 0..self.random.below(8) {
            self.operate_as_child();
            if self.random.one_in(3) {
                calls::yield_now();
            }
        }
        self.verify_all("at the end of a child");
        calls::exit(u32::from(self.wrong != 0));
    }

    /// Waits for a child, counts what it found, and looks for what it stored.
    pub fn reap(&mut self, slot: usize) {
        let Some(child) = self.children[slot].take() else { return };
        pinner::show_child(slot, 0);
        match calls::wait(child.pid) {
            Ok(Status::Exited(0)) => {}
            Ok(Status::Exited(1)) => self.wrong += 1,
            other => panic!("child of worker {}: {other:?}", self.number),
        }
        for page in child.marked_pages() {
            self.device[page].set(MARKS[slot], child.mark(self.number, page, slot));
            self.verify_device("stored by a child", page);
            self.tally.device += 1;
        }
    }
}

impl Child {
    fn marked_pages(self) -> impl Iterator<Item = usize> {
        (0..BASES).filter(move |page| self.marked & 1 << page != 0)
    }

    /// What it stores.
    fn mark(self, worker: u64, page: usize, slot: usize) -> u64 {
        model::word(worker, Author::Child, page, MARKS[slot], self.born)
    }
}
