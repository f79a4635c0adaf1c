//! Where the machine keeps pages that are not in memory, worse than a kernel would: a slot that nobody holds any more is the next to be
//! reserved, what is fetched may have gone again when it is wanted, and a page takes as many attempts as the test says.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use pagepin::frame::{FrameKind, Layout, Ownership};
use pagepin::{
    Env, FrameRequest, FrameSource, FrameTable, NotReady, PAGE_SIZE, Pfn, PhysMap, Token, TokenError, Tokens,
};

use super::OneRefusal;
use crate::machine::memory::release;
use crate::machine::one_thread::OneThread;
use crate::machine::{Machine, MachineExtras};

/// See the [module text](self).
pub(crate) struct Slots(OneThread<Inner>);

#[derive(Default)]
struct Inner {
    slots: RefCell<BTreeMap<u64, Slot>>,
    /// The last one that was given up comes first.
    free: RefCell<Vec<u64>>,
    /// Slots that can still be reserved.
    room: Cell<u64>,
    /// Attempts to fetch that end in `NotReady`.
    delays: Cell<u64>,
    /// Frames that are gone again between fetch and bring.
    evictions: Cell<u64>,
    lost: Cell<bool>,
    /// Holders that a slot may get by fork.
    duplicates: Cell<u64>,
    refusal: OneRefusal,
}

#[derive(Default)]
struct Slot {
    holders: u64,
    /// With a plain reference.
    frame: Option<Pfn>,
    /// What was written out.
    bytes: Option<Box<[u8; PAGE_SIZE as usize]>>,
}

impl Slots {
    pub(crate) fn new() -> Self {
        let inner = Inner::default();
        inner.room.set(u64::MAX);
        inner.duplicates.set(u64::MAX);
        Self(OneThread::new(inner))
    }

    fn inner(&self) -> &Inner {
        self.0.get()
    }

    /// So many more pages find a slot.
    pub(crate) fn leave_room(&self, slots: u64) {
        self.inner().room.set(slots);
    }

    /// The next `count` attempts to fetch a page say that it is not ready.
    pub(crate) fn delay(&self, count: u64) {
        self.inner().delays.set(count);
    }

    /// What is fetched is gone again the next `count` times.
    pub(crate) fn evict_after_fetch(&self, count: u64) {
        self.inner().evictions.set(count);
    }

    /// The device fails from now on, or not any more.
    pub(crate) fn lose(&self, lost: bool) {
        self.inner().lost.set(lost);
    }

    /// So many more holders come by fork.
    pub(crate) fn allow_duplicates(&self, count: u64) {
        self.inner().duplicates.set(count);
    }

    /// One answer that is a refusal.
    pub(crate) fn refusal(&self) -> &OneRefusal {
        &self.inner().refusal
    }

    /// How many hold each token that somebody holds.
    pub(crate) fn holders(&self) -> BTreeMap<Token, u64> {
        let slots = self.inner().slots.borrow();
        slots.iter().map(|(number, slot)| (Token::new(*number).unwrap(), slot.holders)).collect()
    }

    /// Frames that slots remember.
    pub(crate) fn frames(&self) -> Vec<Pfn> {
        self.inner().slots.borrow().values().filter_map(|slot| slot.frame).collect()
    }

    fn evict<K: Env>(&self, kernel: &K, number: u64) {
        let mut slots = self.inner().slots.borrow_mut();
        let Some(frame) = slots.get_mut(&number).and_then(|slot| slot.frame.take()) else { return };
        let mut bytes = Box::new([0; PAGE_SIZE as usize]);
        let from = kernel.phys_map().frame_ptr(frame);
        // SAFETY: the slot's reference keeps the frame, and nobody writes it.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(from, bytes.len()) };
        slots.get_mut(&number).unwrap().bytes = Some(bytes);
        drop(slots);
        release(kernel, frame);
    }
}

// SAFETY: a frame that is brought has the slot's contents, and the slot's reference keeps it from being claimed.
unsafe impl Tokens for Slots {
    fn reserve(&self) -> Result<Token, TokenError> {
        let inner = self.inner();
        if inner.refusal.is_now() {
            return Err(TokenError::Full);
        }
        let room = inner.room.get().checked_sub(1).ok_or(TokenError::Full)?;
        inner.room.set(room);
        let mut slots = inner.slots.borrow_mut();
        let next = slots.keys().next_back().map_or(0, |last| last + 1);
        let number = inner.free.borrow_mut().pop().unwrap_or(next);
        assert!(slots.insert(number, Slot { holders: 1, ..Slot::default() }).is_none());
        Ok(Token::new(number).unwrap())
    }

    unsafe fn fill<K: Env>(&self, kernel: &K, token: Token, frame: Pfn) {
        let word = kernel.frames().frame(frame).unwrap().snapshot();
        assert!(word.kind == FrameKind::Anonymous && !word.exclusive && word.pins == 0, "{word:?} goes to a slot");
        let mut slots = self.inner().slots.borrow_mut();
        let slot = slots.get_mut(&token.number()).expect("a slot that was reserved");
        assert!(slot.frame.is_none() && slot.bytes.is_none(), "filled twice");
        slot.frame = Some(frame);
    }

    fn duplicate(&self, token: Token) -> Result<(), TokenError> {
        let inner = self.inner();
        if inner.refusal.is_now() {
            return Err(TokenError::Full);
        }
        let duplicates = inner.duplicates.get().checked_sub(1).ok_or(TokenError::Full)?;
        inner.duplicates.set(duplicates);
        inner.slots.borrow_mut().get_mut(&token.number()).expect("a token that somebody holds").holders += 1;
        Ok(())
    }

    fn release<K: Env>(&self, kernel: &K, token: Token) {
        let number = token.number();
        let mut slots = self.inner().slots.borrow_mut();
        let slot = slots.get_mut(&number).expect("a token that somebody holds");
        slot.holders -= 1;
        if slot.holders == 0 {
            let slot = slots.remove(&number).unwrap();
            drop(slots);
            self.inner().free.borrow_mut().push(number);
            if let Some(frame) = slot.frame {
                release(kernel, frame);
            }
        }
    }

    fn fetch<K: Env>(&self, kernel: &K, token: Token) -> Result<(), TokenError> {
        let inner = self.inner();
        let number = token.number();
        if inner.refusal.is_now() {
            return Err(TokenError::NotReady(NotReady(number)));
        }
        if inner.lost.get() || !inner.slots.borrow().contains_key(&number) {
            return Err(TokenError::Lost);
        }
        if let Some(delays) = inner.delays.get().checked_sub(1) {
            inner.delays.set(delays);
            return Err(TokenError::NotReady(NotReady(number)));
        }
        if inner.slots.borrow()[&number].frame.is_none() {
            let frame = kernel.source().allocate(FrameRequest::movable(0)).ok_or(TokenError::NoMemory)?;
            let word = kernel.frames().frame(frame).unwrap();
            // SAFETY: the frame was just allocated, and is this slot's.
            unsafe { word.word() }.hand_out(FrameKind::Anonymous, 0, Ownership::Shared).unwrap();
            let to = kernel.phys_map().frame_ptr(frame);
            let mut slots = inner.slots.borrow_mut();
            let slot = slots.get_mut(&number).unwrap();
            let bytes = slot.bytes.as_ref().expect("a slot that was filled");
            // SAFETY: as above.
            unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            slot.frame = Some(frame);
        }
        if let Some(evictions) = inner.evictions.get().checked_sub(1) {
            inner.evictions.set(evictions);
            self.evict(kernel, number);
        }
        Ok(())
    }

    fn bring<K: Env>(&self, kernel: &K, token: Token) -> Result<Pfn, TokenError> {
        if self.inner().refusal.is_now() {
            return Err(TokenError::Full);
        }
        let slots = self.inner().slots.borrow();
        let slot = slots.get(&token.number()).ok_or(TokenError::Lost)?;
        let frame = slot.frame.ok_or(TokenError::NotReady(NotReady(token.number())))?;
        // SAFETY: the slot has a reference; this one is the caller's.
        unsafe { kernel.frames().frame(frame).unwrap().word() }.try_get().unwrap();
        Ok(frame)
    }
}

impl<L: Layout> Machine<L> {
    /// Where pages are that are not in memory.
    pub(crate) fn slots(&self) -> &Slots {
        let extras: &MachineExtras = self.extras();
        pagepin::ExtraParts::tokens(extras)
    }

    /// Whether the page that a token stands for holds `bytes`.
    pub(crate) fn slot_holds(&self, token: Token, bytes: &[u8]) -> bool {
        let slots = self.slots().inner().slots.borrow();
        let slot = &slots[&token.number()];
        match (slot.frame, &slot.bytes) {
            (Some(frame), _) => self.memory().holds(frame, bytes),
            (None, Some(written)) => written[..] == *bytes,
            (None, None) => panic!("a slot that was never filled"),
        }
    }

    /// Writes out everything that slots remember, and forgets the frames.
    pub(crate) fn write_out(&self) {
        let numbers: Vec<_> = self.slots().inner().slots.borrow().keys().copied().collect();
        numbers.into_iter().for_each(|number| self.slots().evict(self, number));
    }
}
