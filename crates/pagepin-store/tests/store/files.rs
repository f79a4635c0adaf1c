//! Files that processes of the emulated machine show.

use std::ops::Range;

use pagepin::ObjectId;
use pagepin::frame::Wide;
use pagepin::space::{Copies, Sharing};
use pagepin_store::{FilePage, Properties, Shown};

use crate::machine::{A, PAGE, RW};

pub(crate) type Machine = crate::machine::Machine<Wide>;
pub(crate) type Process<'m> = crate::machine::Process<'m, Wide>;

/// All processes there are.
pub(crate) struct All<'p, 'm>(pub(crate) &'p [&'p Process<'m>]);

impl Shown for All<'_, '_> {
    fn write_protect(&self, id: ObjectId, pages: Range<u32>) {
        self.0.iter().for_each(|process| process.write_protect_object(id, pages.clone()).unwrap());
    }

    fn forget(&self, id: ObjectId, pages: Range<u32>, copies: Copies) {
        self.0.iter().for_each(|process| _ = process.forget_object(id, pages.clone(), copies).unwrap());
    }
}

/// What page `page` of the file holds on the disk.
pub(crate) fn on_disk(page: u32) -> u8 {
    0x80 | page as u8
}

/// A machine with a file of so many pages.
pub(crate) fn machine(pages: u32) -> (Machine, ObjectId) {
    let machine = Machine::new(64);
    let file = machine.cache().create(&machine, Properties::file(), u64::from(pages) * PAGE).unwrap();
    (0..pages).for_each(|page| machine.cache().device().put(FilePage { object: file, page }, on_disk(page)));
    (machine, file)
}

pub(crate) fn showing(machine: &Machine, file: ObjectId, pages: u64, sharing: Sharing) -> Process<'_> {
    let process = machine.process();
    process.map_object(A, pages * PAGE, file, 0, sharing, RW).unwrap();
    process
}

/// Of the first four pages.
pub(crate) fn bytes(machine: &Machine, process: &Process<'_>) -> [u8; 4] {
    [0, 1, 2, 3].map(|page| machine.get(process, A + page * PAGE))
}

/// Everything was given back, and the disk has asked for nothing.
pub(crate) fn end(machine: &Machine, file: ObjectId) {
    machine.cache().remove(machine, file).unwrap();
    assert_eq!(machine.cache().resident(machine), 0);
}
