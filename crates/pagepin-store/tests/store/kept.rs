//! The emulated machine's kernel with this crate's cache and slots.

use std::collections::BTreeMap;

use pagepin::frame::Layout;
use pagepin::{Access, Env, ExtraParts, ObjectError, ObjectId, Objects, Pfn, Stored, Token, TokenError, Tokens};
use pagepin_store::{Cache, FilePage};

use crate::disk::Disk;
use crate::machine::{Machine, MachineExtras};

/// Objects, pages and slots there can be.
pub(crate) const OBJECTS: u32 = 4;
pub(crate) const PAGES: u32 = 16;
pub(crate) const SLOTS: u32 = 8;

/// The objects.
pub(crate) struct Shelf(Stored<Cache<Disk<FilePage>>>);
/// The slots.
pub(crate) struct Slots(Stored<pagepin_store::Slots<Disk<u64>>>);

impl Shelf {
    pub(crate) fn new() -> Self {
        Self(Stored(Cache::new(Disk::new(), OBJECTS, PAGES).unwrap()))
    }
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self(Stored(pagepin_store::Slots::new(Disk::new(), SLOTS).unwrap()))
    }
}

impl<L: Layout> Machine<L> {
    /// The page cache.
    pub(crate) fn cache(&self) -> &Cache<Disk<FilePage>> {
        let extras: &MachineExtras = self.extras();
        &ExtraParts::objects(extras).0.0
    }

    /// Swap.
    pub(crate) fn swap(&self) -> &pagepin_store::Slots<Disk<u64>> {
        let extras: &MachineExtras = self.extras();
        &ExtraParts::tokens(extras).0.0
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

// SAFETY: forwards to an implementation.
unsafe impl Objects for Shelf {
    fn page<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, access: Access) -> Result<Pfn, ObjectError> {
        self.0.page(kernel, id, page, access)
    }
    fn will_write<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, frame: Pfn) -> Result<(), ObjectError> {
        self.0.will_write(kernel, id, page, frame)
    }
    fn still(&self, id: ObjectId, page: u32, frame: Pfn) -> bool {
        self.0.still(id, page, frame)
    }
    fn may_pin(&self, id: ObjectId, page: u32) -> Result<(), ObjectError> {
        self.0.may_pin(id, page)
    }
    fn is_written_back(&self, id: ObjectId) -> bool {
        self.0.is_written_back(id)
    }
    fn mapped(&self, id: ObjectId, pages: u64) -> Result<(), ObjectError> {
        self.0.mapped(id, pages)
    }
    fn unmapped<K: Env>(&self, kernel: &K, id: ObjectId, pages: u64) {
        self.0.unmapped(kernel, id, pages);
    }
}

// SAFETY: forwards to an implementation.
unsafe impl Tokens for Slots {
    fn reserve(&self) -> Result<Token, TokenError> {
        self.0.reserve()
    }
    unsafe fn fill<K: Env>(&self, kernel: &K, token: Token, frame: Pfn) {
        // SAFETY: forwarded from the caller.
        unsafe { self.0.fill(kernel, token, frame) }
    }
    fn duplicate(&self, token: Token) -> Result<(), TokenError> {
        self.0.duplicate(token)
    }
    fn release<K: Env>(&self, kernel: &K, token: Token) {
        self.0.release(kernel, token);
    }
    fn fetch<K: Env>(&self, kernel: &K, token: Token) -> Result<(), TokenError> {
        self.0.fetch(kernel, token)
    }
    fn bring<K: Env>(&self, kernel: &K, token: Token) -> Result<Pfn, TokenError> {
        self.0.bring(kernel, token)
    }
}
