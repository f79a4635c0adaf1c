//! Where pages come from that are no frames of the source's yet: slots, of which the lowest free one is reserved again at once, and a
//! file of one page.
//!
//! Both have a lock for themselves, as a kernel's have: it orders what is asked with what was done to the file or slot.

use pagepin::frame::{CountError, FrameKind, Ownership, Released};
use pagepin::space::UserSpace;
use pagepin::{
    Access, Entry, Env, ExtraParts, FrameRequest, FrameSource, FrameTable, NotReady, ObjectError, ObjectId, Objects,
    Pfn, PhysMap, Token, TokenError, Tokens,
};

use super::{Kernel, Side};
use crate::checker::{Mutex, MutexGuard};

/// The file, of which every kernel has one, with page 0 or without.
pub(crate) const FILE: ObjectId = ObjectId(1);
/// As many slots as there are.
const SLOTS: usize = 2;
const WRITE_BACK: NotReady = NotReady(1);

/// A reference less.
fn put<K: Env>(kernel: &K, frame: Pfn) {
    // SAFETY: a reference of the slot's or the file's, which it has forgotten.
    let word = unsafe { kernel.frames().frame(frame).expect("a frame").word() };
    if let Released::Last { order, .. } = word.put().expect("a reference") {
        // SAFETY: that was the last reference, and the frame came from the source.
        unsafe { kernel.source().free(frame, order) };
    }
}

/// A reference more, for the crate.
fn get<K: Env>(kernel: &K, frame: Pfn) -> Pfn {
    // SAFETY: the slot or the file has a reference; this one is the caller's.
    unsafe { kernel.frames().frame(frame).expect("a frame").word() }.try_get().expect("in use");
    frame
}

#[derive(Clone, Copy, Default)]
struct Slot {
    holders: u64,
    /// With a reference.
    frame: Option<Pfn>,
}

#[derive(Default)]
pub(crate) struct Slots(Mutex<[Slot; SLOTS]>);

impl Slots {
    fn lock(&self) -> MutexGuard<'_, [Slot; SLOTS]> {
        self.0.lock().expect("poisoned")
    }
}

fn number(token: Token) -> usize {
    token.number() as usize
}

// SAFETY: a slot's frame is what it was filled with, and the slot's reference keeps it from being claimed.
unsafe impl Tokens for Slots {
    fn reserve(&self) -> Result<Token, TokenError> {
        let mut slots = self.lock();
        let free = slots.iter().position(|slot| slot.holders == 0).ok_or(TokenError::Full)?;
        slots[free].holders = 1;
        Ok(Token::new(free as u64).expect("a small number"))
    }

    unsafe fn fill<K: Env>(&self, _: &K, token: Token, frame: Pfn) {
        let old = self.lock()[number(token)].frame.replace(frame);
        assert_eq!(old, None, "a slot was filled twice");
    }

    fn duplicate(&self, token: Token) -> Result<(), TokenError> {
        self.lock()[number(token)].holders += 1;
        Ok(())
    }

    fn release<K: Env>(&self, kernel: &K, token: Token) {
        let gone = {
            let slot = &mut self.lock()[number(token)];
            slot.holders = slot.holders.checked_sub(1).expect("a slot was released that nobody holds");
            if slot.holders == 0 { slot.frame.take() } else { None }
        };
        gone.into_iter().for_each(|frame| put(kernel, frame));
    }

    fn fetch<K: Env>(&self, _: &K, token: Token) -> Result<(), TokenError> {
        self.lock()[number(token)].frame.map(|_| ()).ok_or(TokenError::Lost)
    }

    fn bring<K: Env>(&self, kernel: &K, token: Token) -> Result<Pfn, TokenError> {
        let slots = self.lock();
        Ok(get(kernel, slots[number(token)].frame.ok_or(TokenError::Lost)?))
    }
}

#[derive(Default)]
struct Inner {
    /// The page, with a reference.
    page: Option<Pfn>,
    /// It is written back.
    closed: bool,
    /// It has a place on disk to be written to.
    reserved: bool,
    disk: u64,
}

#[derive(Default)]
pub(crate) struct File(Mutex<Inner>);

impl File {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("poisoned")
    }
}

// SAFETY: the page is one frame, of kind `File`, until it is cut off, and comes with a reference.
unsafe impl Objects for File {
    fn page<K: Env>(&self, kernel: &K, _: ObjectId, page: u32, _: Access) -> Result<Pfn, ObjectError> {
        let file = self.lock();
        let frame = file.page.filter(|_| page == 0).ok_or(ObjectError::PastEnd)?;
        Ok(get(kernel, frame))
    }

    fn will_write<K: Env>(&self, _: &K, _: ObjectId, _: u32, _: Pfn) -> Result<(), ObjectError> {
        let mut file = self.lock();
        if file.closed {
            return Err(ObjectError::NotReady(WRITE_BACK));
        }
        file.reserved = true;
        Ok(())
    }

    fn still(&self, _: ObjectId, page: u32, frame: Pfn) -> bool {
        page == 0 && self.lock().page == Some(frame)
    }

    fn may_pin(&self, _: ObjectId, _: u32) -> Result<(), ObjectError> {
        if self.lock().closed { Err(ObjectError::NotReady(WRITE_BACK)) } else { Ok(()) }
    }

    fn mapped(&self, _: ObjectId, _: u64) -> Result<(), ObjectError> {
        Ok(())
    }

    fn unmapped<K: Env>(&self, _: &K, _: ObjectId, _: u64) {}
}

impl<R: Side> Kernel<R> {
    fn slots(&self) -> &Slots {
        self.extras().tokens()
    }

    fn file(&self) -> &File {
        self.extras().objects()
    }

    /// What a word of `page` holds, wherever the page is.
    pub(crate) fn holds(&self, space: &UserSpace<&'static Self>, page: u64, word: usize) -> u64 {
        let token = self.memory.walk(space.root(), page).and_then(Entry::as_token);
        let slots = self.slots().lock();
        let frame = token.map_or_else(|| self.mapped(space, page), |token| slots[number(token)].frame);
        frame.map_or(0, |frame| self.memory.load(frame, word))
    }

    /// What slots remember is written out, and read again at once, to other frames.
    pub(crate) fn write_out(&self) {
        for slot in self.slots().lock().iter_mut() {
            let Some(old) = slot.frame else { continue };
            let Some(new) = self.memory.allocate(FrameRequest::movable(0)) else { continue };
            self.memory.word(new).hand_out(FrameKind::Anonymous, 0, Ownership::Shared).expect("a free frame");
            // SAFETY: the slot has a reference to the one, and the other is its own.
            unsafe { self.memory.copy_frames(old, new, 0) };
            slot.frame = Some(new);
            put(self, old);
        }
    }

    /// The frames of which slots, or the file, have a reference.
    pub(super) fn kept_elsewhere(&self) -> Vec<Pfn> {
        let slots = self.slots().lock().iter().filter_map(|slot| slot.frame).collect::<Vec<_>>();
        slots.into_iter().chain(self.file().lock().page).collect()
    }

    /// The file gets its page, which holds `value`.
    pub(crate) fn write_file(&self, value: u64) {
        let frame = self.memory.allocate(FrameRequest::unmovable(0)).expect("memory");
        self.memory.word(frame).hand_out(FrameKind::File, 0, Ownership::Exclusive).expect("a free frame");
        self.memory.store(frame, 0, value);
        *self.file().lock() = Inner { page: Some(frame), disk: value, ..Inner::default() };
    }

    /// The first half of a truncation: the file has no page any more.
    pub(crate) fn cut_file(&self) {
        let gone = self.file().lock().page.take();
        gone.into_iter().for_each(|frame| put(self, frame));
    }

    /// Writes the page back: closes it, lets `protect` take the right to write from its mappings, and opens it. Not if it is pinned.
    pub(crate) fn write_back(&self, protect: impl FnOnce()) -> Result<(), CountError> {
        let frame = {
            let mut file = self.file().lock();
            let frame = file.page.expect("a file that is not cut off");
            self.memory.word(frame).try_close()?;
            (file.closed, file.reserved) = (true, false);
            frame
        };
        protect();
        let written = self.memory.load(frame, 0);
        let mut file = self.file().lock();
        assert_eq!(self.memory.snapshot(frame).pins, 0, "a page was pinned while it was written back");
        assert_eq!(self.memory.load(frame, 0), written, "a page was written to while it was written back");
        (file.closed, file.disk) = (false, written);
        self.memory.word(frame).open()
    }

    /// What is on disk, and whether there is a place for what is in memory.
    pub(crate) fn on_disk(&self) -> (u64, bool) {
        let file = self.file().lock();
        (file.disk, file.reserved)
    }
}
