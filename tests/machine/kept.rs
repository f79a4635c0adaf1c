//! The fakes: objects and slots that are worse than any kernel's.

mod shelf;
mod slots;

use std::collections::BTreeMap;

use pagepin::frame::Layout;
use pagepin::{Pfn, Token};

use crate::machine::Machine;
pub(crate) use shelf::{OneRefusal, READING, Shelf, WRITE_BACK, first_byte};
pub(crate) use slots::Slots;

pub(crate) fn shelf() -> Shelf {
    Shelf::new()
}

pub(crate) fn slots() -> Slots {
    Slots::new()
}

impl<L: Layout> Machine<L> {
    /// Frames that slots and objects remember, one for each reference, and how many hold each token.
    pub(crate) fn kept(&self) -> (Vec<Pfn>, BTreeMap<Token, u64>) {
        let frames = self.slots().frames().into_iter().chain(self.shelf().frames());
        (frames.collect(), self.slots().holders())
    }
}
