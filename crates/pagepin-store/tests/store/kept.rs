//! The emulated machine's kernel with this crate's cache and slots.

use std::collections::BTreeMap;

use pagepin::frame::Layout;
use pagepin::{Env, ExtraParts, ObjectId, Pfn, Stored, Token};
use pagepin_store::{Cache, FilePage};

use crate::disk::Disk;
use crate::machine::{Machine, MachineExtras};

/// Objects, pages and slots there can be.
pub(crate) const OBJECTS: u32 = 4;
pub(crate) const PAGES: u32 = 16;
pub(crate) const SLOTS: u32 = 8;

/// The objects.
pub(crate) type Shelf = Stored<Cache<Disk<FilePage>>>;
/// The slots.
pub(crate) type Slots = Stored<pagepin_store::Slots<Disk<u64>>>;

pub(crate) fn shelf() -> Shelf {
    Stored(Cache::new(Disk::new(), OBJECTS, PAGES).unwrap())
}

pub(crate) fn slots() -> Slots {
    Stored(pagepin_store::Slots::new(Disk::new(), SLOTS).unwrap())
}

impl<L: Layout> Machine<L> {
    /// The page cache.
    pub(crate) fn cache(&self) -> &Cache<Disk<FilePage>> {
        let extras: &MachineExtras = self.extras();
        &ExtraParts::objects(extras).0
    }

    /// Swap.
    pub(crate) fn swap(&self) -> &pagepin_store::Slots<Disk<u64>> {
        let extras: &MachineExtras = self.extras();
        &ExtraParts::tokens(extras).0
    }

    /// Frames that slots and objects remember, one for each reference, and how many hold each token.
    pub(crate) fn kept(&self) -> (Vec<Pfn>, BTreeMap<Token, u64>) {
        let ids = (0..OBJECTS).map(ObjectId);
        let of = |id| self.cache().cached(self, id).filter_map(move |page| self.cache().frame(self, id, page));
        let mut frames: Vec<Pfn> = ids.flat_map(of).collect();
        let tokens = (0..u64::from(SLOTS)).map(|number| Token::new(number).unwrap());
        let slots: Vec<_> = tokens.filter_map(|token| Some((token, self.swap().state(self, token)?))).collect();
        frames.extend(slots.iter().filter_map(|(_, slot)| slot.frame));
        (frames, slots.into_iter().map(|(token, slot)| (token, u64::from(slot.holders))).collect())
    }
}
