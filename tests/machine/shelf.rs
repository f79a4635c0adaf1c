//! Objects of the machine, worse than files: a page may be cut off between its look-up and its entry, take as many attempts as the test says,
//! and be refused for writing or for pins at any moment.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use pagepin::frame::{FrameKind, Layout, Ownership};
use pagepin::{
    Access, Env, FrameRequest, FrameSource, FrameTable, NotReady, ObjectError, ObjectId, Objects, PAGE_SIZE, Pfn,
    PhysMap,
};

use crate::machine::memory::release;
use crate::machine::one_thread::OneThread;
use crate::machine::{Machine, MachineExtras};

/// What a page that is written back waits for.
pub(crate) const WRITE_BACK: NotReady = NotReady(77);
/// And one that is read.
pub(crate) const READING: NotReady = NotReady(78);

/// Which of the answers that may be a refusal is one.
#[derive(Default)]
pub(crate) struct OneRefusal(Cell<Option<u64>>);

impl OneRefusal {
    /// The answer after so many others is a refusal; none: no more.
    pub(crate) fn after(&self, answers: Option<u64>) {
        self.0.set(answers);
    }

    /// Whether it has not been given.
    pub(crate) fn is_left(&self) -> bool {
        self.0.get().is_some()
    }

    /// Whether this answer is.
    pub(crate) fn is_now(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.and_then(|left| left.checked_sub(1)));
        left == Some(0)
    }
}

/// See the [module text](self).
pub(crate) struct Shelf(OneThread<Inner>);

#[derive(Default)]
struct Inner {
    objects: RefCell<BTreeMap<ObjectId, Object>>,
    /// Look-ups of pages that end in `NotReady`.
    delays: Cell<u64>,
    /// The next look-up of a page is the last thing that happens before the object is cut off.
    cut_after_page: Cell<bool>,
    /// First writes that are told to wait.
    write_delays: Cell<u64>,
    no_writes: Cell<bool>,
    writes: Cell<u64>,
    /// Pages that may be written since they were last written back.
    expected: RefCell<BTreeSet<(ObjectId, u32)>>,
    movable: Cell<bool>,
    refusal: OneRefusal,
    never_still: Cell<bool>,
}

#[derive(Default)]
struct Object {
    pages: BTreeMap<u32, Pfn>,
    length: u32,
    mapped: u64,
    written_back: bool,
    /// Pages that are written back.
    closed: BTreeSet<u32>,
}

/// What page `page` of an object holds before it is written, in each byte.
pub(crate) fn first_byte(page: u32) -> u8 {
    0x80 | page as u8
}

impl Shelf {
    pub(crate) fn new() -> Self {
        Self(OneThread::new(Inner::default()))
    }

    fn inner(&self) -> &Inner {
        self.0.get()
    }

    /// A new object of so many pages.
    pub(crate) fn add(&self, id: ObjectId, length: u32) {
        self.inner().objects.borrow_mut().insert(id, Object { length, ..Object::default() });
    }

    /// The object has so many pages, if it had fewer.
    pub(crate) fn grow(&self, id: ObjectId, length: u32) {
        let mut objects = self.inner().objects.borrow_mut();
        let object = objects.get_mut(&id).expect("an object that there is");
        object.length = object.length.max(length);
    }

    /// The next `count` look-ups of a page say that it is not ready.
    pub(crate) fn delay(&self, count: u64) {
        self.inner().delays.set(count);
    }

    /// Look-ups that are still to say so.
    pub(crate) fn delays(&self) -> u64 {
        self.inner().delays.get()
    }

    /// Whether the page may be written since it was last written back: somebody was granted it.
    pub(crate) fn expects_writes(&self, id: ObjectId, page: u32) -> bool {
        self.inner().expected.borrow().contains(&(id, page))
    }

    /// The next `count` first writes have to wait.
    pub(crate) fn delay_writes(&self, count: u64) {
        self.inner().write_delays.set(count);
    }

    /// First writes are refused from now on.
    pub(crate) fn refuse_writes(&self) {
        self.inner().no_writes.set(true);
    }

    /// The next page that is looked up is cut off before it is published.
    pub(crate) fn cut_after_page(&self) {
        self.inner().cut_after_page.set(true);
    }

    /// Whether the object is written back.
    pub(crate) fn write_back(&self, id: ObjectId, written_back: bool) {
        self.inner().objects.borrow_mut().get_mut(&id).expect("an object that there is").written_back = written_back;
    }

    /// Whether pages that come into memory from now on lie where they could be moved.
    pub(crate) fn place_among_movable(&self, movable: bool) {
        self.inner().movable.set(movable);
    }

    /// Whether each page that was shown is the object's no more when that is asked.
    pub(crate) fn never_still(&self, never: bool) {
        self.inner().never_still.set(never);
    }

    /// One answer that is a refusal, or says that a page is not the object's any more.
    pub(crate) fn refusal(&self) -> &OneRefusal {
        &self.inner().refusal
    }

    /// How often a first write was asked for and granted.
    pub(crate) fn writes(&self) -> u64 {
        self.inner().writes.get()
    }

    /// Pages of address spaces that show the object.
    pub(crate) fn mapped_pages(&self, id: ObjectId) -> u64 {
        self.inner().objects.borrow()[&id].mapped
    }

    /// Makes `frame`, with the reference that it has, a page of an object.
    pub(crate) fn place(&self, id: ObjectId, page: u32, frame: Pfn) {
        self.inner().objects.borrow_mut().get_mut(&id).unwrap().pages.insert(page, frame);
    }

    /// The frame of a page, if it is in memory.
    pub(crate) fn frame(&self, id: ObjectId, page: u32) -> Option<Pfn> {
        self.inner().objects.borrow().get(&id)?.pages.get(&page).copied()
    }

    /// Frames of all pages.
    pub(crate) fn frames(&self) -> Vec<Pfn> {
        self.inner().objects.borrow().values().flat_map(|object| object.pages.values().copied()).collect()
    }

    /// Takes the pages from `length` on out; whoever shows them still is to be told.
    fn cut<K: Env>(&self, kernel: &K, id: ObjectId, length: u32) {
        let mut objects = self.inner().objects.borrow_mut();
        let object = objects.get_mut(&id).expect("an object that there is");
        object.length = object.length.min(length);
        let gone = object.pages.split_off(&length);
        drop(objects);
        self.inner().expected.borrow_mut().retain(|(object, page)| *object != id || *page < length);
        gone.into_values().for_each(|frame| release(kernel, frame));
    }
}

// SAFETY: a page is the same frame, of kind `File`, until it is cut off, and comes with a reference.
unsafe impl Objects for Shelf {
    fn page<K: Env>(&self, kernel: &K, id: ObjectId, page: u32, _: Access) -> Result<Pfn, ObjectError> {
        let inner = self.inner();
        if inner.refusal.is_now() {
            return Err(ObjectError::Failed);
        }
        let length = inner.objects.borrow().get(&id).ok_or(ObjectError::NoObject)?.length;
        if page >= length {
            return Err(ObjectError::PastEnd);
        }
        if let Some(delays) = inner.delays.get().checked_sub(1) {
            inner.delays.set(delays);
            return Err(ObjectError::NotReady(READING));
        }
        let there = self.frame(id, page);
        let frame = match there {
            Some(frame) => frame,
            None => {
                let request = if inner.movable.get() { FrameRequest::movable(0) } else { FrameRequest::unmovable(0) };
                let frame = kernel.source().allocate(request).ok_or(ObjectError::NoMemory)?;
                let word = kernel.frames().frame(frame).unwrap();
                // SAFETY: the frame was just allocated, and is this object's.
                unsafe { word.word() }.hand_out(FrameKind::File, 0, Ownership::Exclusive).unwrap();
                let to = kernel.phys_map().frame_ptr(frame);
                // SAFETY: as above.
                unsafe { to.write_bytes(first_byte(page), PAGE_SIZE as usize) };
                inner.objects.borrow_mut().get_mut(&id).unwrap().pages.insert(page, frame);
                frame
            }
        };
        // SAFETY: the object has a reference; this one is the caller's.
        unsafe { kernel.frames().frame(frame).unwrap().word() }.try_get().unwrap();
        if inner.cut_after_page.take() {
            self.cut(kernel, id, page);
        }
        Ok(frame)
    }

    fn will_write<K: Env>(&self, _: &K, id: ObjectId, page: u32, frame: Pfn) -> Result<(), ObjectError> {
        let inner = self.inner();
        assert_eq!(self.frame(id, page), Some(frame), "the first write to another page than is shown");
        if inner.refusal.is_now() {
            return Err(ObjectError::Failed);
        }
        if inner.no_writes.get() {
            return Err(ObjectError::Denied);
        }
        if let Some(delays) = inner.write_delays.get().checked_sub(1) {
            inner.write_delays.set(delays);
            return Err(ObjectError::NotReady(WRITE_BACK));
        }
        inner.writes.set(inner.writes.get() + 1);
        inner.expected.borrow_mut().insert((id, page));
        Ok(())
    }

    fn still(&self, id: ObjectId, page: u32, frame: Pfn) -> bool {
        !self.inner().never_still.get() && !self.inner().refusal.is_now() && self.frame(id, page) == Some(frame)
    }

    fn may_pin(&self, id: ObjectId, page: u32) -> Result<(), ObjectError> {
        if self.inner().refusal.is_now() {
            return Err(ObjectError::Failed);
        }
        let objects = self.inner().objects.borrow();
        let object = objects.get(&id).ok_or(ObjectError::NoObject)?;
        if object.closed.contains(&page) { Err(ObjectError::NotReady(WRITE_BACK)) } else { Ok(()) }
    }

    fn is_written_back(&self, id: ObjectId) -> bool {
        self.inner().objects.borrow().get(&id).is_some_and(|object| object.written_back)
    }

    fn mapped(&self, id: ObjectId, pages: u64) -> Result<(), ObjectError> {
        if self.inner().refusal.is_now() {
            return Err(ObjectError::NoObject);
        }
        self.inner().objects.borrow_mut().get_mut(&id).ok_or(ObjectError::NoObject)?.mapped += pages;
        Ok(())
    }

    fn unmapped<K: Env>(&self, _: &K, id: ObjectId, pages: u64) {
        let mut objects = self.inner().objects.borrow_mut();
        let object = objects.get_mut(&id).expect("an object that was mapped");
        object.mapped = object.mapped.checked_sub(pages).expect("unmapped more than was mapped");
    }
}

impl<L: Layout> Machine<L> {
    /// The objects.
    pub(crate) fn shelf(&self) -> &Shelf {
        let extras: &MachineExtras = self.extras();
        pagepin::ExtraParts::objects(extras)
    }

    /// A new object whose pages are frames of drivers, side by side in memory: the owner of each.
    pub(crate) fn lend_frames(&self, id: ObjectId, owners: &[u64]) -> Vec<Pfn> {
        self.shelf().add(id, owners.len() as u32);
        let frames: Vec<_> = owners.iter().map(|owner| self.lend_frame(*owner)).collect();
        for (page, frame) in (0..).zip(&frames) {
            self.memory().write(frame.address(), page as u8);
            self.shelf().place(id, page, *frame);
        }
        frames
    }

    /// The first half of a truncation: the object has no pages from `length` on.
    pub(crate) fn cut(&self, id: ObjectId, length: u32) {
        self.shelf().cut(self, id, length);
    }

    /// The first half of a hole: the object gives the page up, and has another when it is asked.
    pub(crate) fn punch(&self, id: ObjectId, page: u32) {
        let gone = self.shelf().inner().objects.borrow_mut().get_mut(&id).unwrap().pages.remove(&page);
        self.shelf().inner().expected.borrow_mut().remove(&(id, page));
        gone.into_iter().for_each(|frame| release(self, frame));
    }

    /// All objects go; nobody shows them.
    pub(crate) fn clear_shelf(&self) {
        let objects = std::mem::take(&mut *self.shelf().inner().objects.borrow_mut());
        for (id, object) in objects {
            assert_eq!(object.mapped, 0, "{id:?} is shown, still");
            object.pages.into_values().for_each(|frame| release(self, frame));
        }
    }

    /// Begins to write a page back. Whether it was written; refused while it is pinned.
    pub(crate) fn begin_writeback(&self, id: ObjectId, page: u32) -> Result<bool, pagepin::frame::CountError> {
        let frame = self.shelf().frame(id, page).unwrap();
        let was_dirty = self.word(frame).try_close()?;
        self.shelf().inner().expected.borrow_mut().remove(&(id, page));
        self.shelf().inner().objects.borrow_mut().get_mut(&id).unwrap().closed.insert(page);
        Ok(was_dirty)
    }

    /// Ends it.
    pub(crate) fn end_writeback(&self, id: ObjectId, page: u32) {
        let frame = self.shelf().frame(id, page).unwrap();
        self.shelf().inner().objects.borrow_mut().get_mut(&id).unwrap().closed.remove(&page);
        self.word(frame).open().unwrap();
    }
}
