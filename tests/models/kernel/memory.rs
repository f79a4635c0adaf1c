//! Frames: their words, entries and bytes, and the allocator.

use pagepin::frame::{FrameWord, PageFrame, Snapshot, Wide};
use pagepin::model::AtomicU64;
use pagepin::{Access, Entry, EntryAddr, EntryCell, EntryChange, FrameRequest, FrameSource, FrameTable, Pfn, PhysMap};

use crate::checker::atomic::{self, Ordering};
use crate::checker::{ENTRIES, Tables, UnsafeCell, WORDS, ZERO_FRAME};

/// What hardware sets in an entry by which it writes.
const DIRTY: u64 = 1 << 6;

/// The frame of zeroes, if there is one.
const ZERO: Pfn = Pfn::new(0);

struct Frame {
    word: PageFrame,
    /// Whether it is allocated.
    allocated: UnsafeCell<bool>,
    /// The first entries, while it is a table.
    entries: [AtomicU64; ENTRIES],
    /// Its contents, while it is memory. Races of those who may access it are not the library's, and loom does not
    /// explore them.
    bytes: [atomic::AtomicU64; WORDS],
}

// SAFETY: the checker watches who reads and writes `allocated`; the rest is atomic.
unsafe impl Sync for Frame {}

pub(crate) struct Memory {
    tables: Tables,
    frames: Vec<Frame>,
    /// One bit for each free frame.
    free: atomic::AtomicU64,
}

impl Memory {
    pub(crate) fn new(frames: u32, tables: Tables) -> Self {
        let frame = |number| Frame {
            word: PageFrame::new(),
            allocated: UnsafeCell::new(ZERO_FRAME && number == ZERO.number()),
            entries: core::array::from_fn(|_| AtomicU64::new(0)),
            bytes: core::array::from_fn(|_| atomic::AtomicU64::new(0)),
        };
        let free = atomic::AtomicU64::new(Self::all(frames));
        Self { tables, frames: (0..frames.into()).map(frame).collect(), free }
    }

    /// The bits of all frames that can be handed out.
    fn all(frames: u32) -> u64 {
        ((1 << frames) - 1) & !u64::from(ZERO_FRAME)
    }

    fn at(&self, frame: Pfn) -> &Frame {
        &self.frames[frame.number() as usize]
    }

    /// Uses the frame once. It is looked at before, since loom knows what is ordered before what, and after, since
    /// under shuttle other threads run between the first look and the use.
    fn using<T>(&self, frame: Pfn, once: impl FnOnce(&Frame) -> T) -> T {
        let frame = self.at(frame);
        // SAFETY: the checker reports a write that is not ordered with this read.
        let check = || assert!(frame.allocated.with(|allocated| unsafe { *allocated }), "a freed frame was used");
        check();
        let done = once(frame);
        check();
        done
    }

    /// What somebody reads who holds `frame`: a device, or a CPU through an entry.
    pub(crate) fn load(&self, frame: Pfn, word: usize) -> u64 {
        self.using(frame, |frame| frame.bytes[word].load(Ordering::Relaxed))
    }

    /// What somebody writes who holds `frame`.
    pub(crate) fn store(&self, frame: Pfn, word: usize, value: u64) {
        self.using(frame, |frame| frame.bytes[word].store(value, Ordering::Relaxed));
    }

    pub(crate) fn word(&self, frame: Pfn) -> &FrameWord {
        // SAFETY: models count for the users that they play.
        unsafe { self.at(frame).word.word() }
    }

    pub(crate) fn snapshot(&self, frame: Pfn) -> Snapshot {
        self.word(frame).snapshot()
    }

    pub(crate) fn frames(&self) -> Vec<Pfn> {
        (0..self.frames.len() as u64).map(Pfn::new).collect()
    }

    /// Those that are handed out.
    pub(crate) fn allocated(&self) -> Vec<Pfn> {
        let used = Self::all(self.frames.len() as u32) & !self.free.load(Ordering::Acquire);
        self.frames().into_iter().filter(|frame| used >> frame.number() & 1 != 0).collect()
    }

    /// The hardware's way to the entry of `page`; `None` if some table is missing.
    pub(crate) fn walk(&self, root: Pfn, page: u64) -> Option<Entry> {
        let (_, above) = self.above(root, page)?;
        // SAFETY: the caller is the only thread, or a CPU that a flush waits for.
        Some(unsafe { self.load_entry(EntryAddr::new(above.table_frame(), page % 512)) })
    }

    /// The same for an access: who writes through an entry notes it there, in a step that finds the entry as it was.
    pub(crate) fn walk_to(&self, root: Pfn, page: u64, access: Access) -> Option<Entry> {
        let (_, above) = self.above(root, page)?;
        let at = EntryAddr::new(above.table_frame(), page % 512);
        // SAFETY: as in `walk`.
        let mut entry = unsafe { self.load_entry(at) };
        while access == Access::Write && entry.is_present() && entry.is_writable() && !entry.is_dirty() {
            let noted = Entry::from_bits(entry.bits() | DIRTY);
            // SAFETY: as in `walk`; hardware needs no lock for this.
            entry = unsafe { self.exchange_entry(at, entry, noted) }.err().unwrap_or(noted);
        }
        Some(entry)
    }

    /// The entry that leads to the lowest table of `page`, and its place.
    pub(crate) fn above(&self, root: Pfn, page: u64) -> Option<(EntryAddr, Entry)> {
        let mut table = root;
        let mut found = None;
        for level in [3, 2, 1] {
            let at = EntryAddr::new(table, (page >> (9 * level)) % 512);
            // SAFETY: as in `walk`.
            let entry = Some(unsafe { self.load_entry(at) }).filter(|entry| entry.is_present())?;
            table = entry.table_frame();
            found = Some((at, entry));
        }
        found
    }

    /// Uses an entry that is kept, once.
    fn entry<T>(&self, at: EntryAddr, once: impl FnOnce(EntryCell<'_>) -> T) -> T {
        self.using(at.table(), |table| once(EntryCell::new(&table.entries[index(at)])))
    }
}

fn index(at: EntryAddr) -> usize {
    ((at.address() - at.table().address()) / 8) as usize
}

// SAFETY: no operation of the models asks for the bytes of a frame; where entries are, copying and clearing are
// overridden.
unsafe impl PhysMap for Memory {
    fn frame_ptr(&self, _: Pfn) -> *mut u8 {
        unimplemented!("the models have no memory behind their frames")
    }

    unsafe fn load_entry(&self, at: EntryAddr) -> Entry {
        self.using(at.table(), |table| match (index(at), table.entries.get(index(at))) {
            (0, Some(entry)) => self.tables.load_first(entry),
            (_, Some(entry)) => EntryCell::new(entry).load(),
            (_, None) => Entry::EMPTY,
        })
    }

    unsafe fn store_entry(&self, at: EntryAddr, entry: Entry) {
        self.entry(at, |cell| cell.store(entry));
    }

    unsafe fn change_entry(&self, at: EntryAddr, change: EntryChange) -> Entry {
        self.entry(at, |cell| cell.change(change))
    }

    unsafe fn exchange_entry(&self, at: EntryAddr, old: Entry, new: Entry) -> Result<(), Entry> {
        self.entry(at, |cell| cell.exchange(old, new))
    }

    unsafe fn copy_frames(&self, from: Pfn, to: Pfn, order: u8) {
        assert_eq!(order, 0);
        (0..WORDS).for_each(|word| self.store(to, word, self.load(from, word)));
    }

    unsafe fn same_bytes(&self, one: Pfn, other: Pfn) -> bool {
        (0..WORDS).all(|word| self.load(one, word) == self.load(other, word))
    }

    unsafe fn clear_frames(&self, frame: Pfn, order: u8) {
        assert_eq!(order, 0);
        self.using(frame, |frame| {
            frame.entries.iter().for_each(|entry| entry.store(0, Ordering::Relaxed));
            frame.bytes.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        });
    }
}

// SAFETY: one element for each number.
unsafe impl FrameTable for Memory {
    type Layout = Wide;

    fn frame(&self, frame: Pfn) -> Option<&PageFrame> {
        self.frames.get(frame.number() as usize).map(|frame| &frame.word)
    }
}

// SAFETY: a bit is taken by one exchange, and whoever frees a frame that is free is stopped. The lowest free frame
// comes first, so what was just freed is soon handed out again. Freeing happens before handing out, as a lock would
// see to, and nothing else is ordered by it.
unsafe impl FrameSource for Memory {
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        assert_eq!(request.order, 0);
        let mut free = self.free.load(Ordering::Acquire);
        let number = loop {
            let lowest = free & free.wrapping_neg();
            if lowest == 0 {
                return None;
            }
            match self.free.compare_exchange(free, free & !lowest, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break lowest.trailing_zeros(),
                Err(now) => free = now,
            }
        };
        let frame = Pfn::new(number.into());
        // SAFETY: the checker reports an access that is not ordered with this one.
        self.at(frame).allocated.with_mut(|allocated| unsafe { *allocated = true });
        Some(frame)
    }

    unsafe fn free(&self, frame: Pfn, _: u8) {
        // SAFETY: the checker reports an access that is not ordered with this one.
        let was = self.at(frame).allocated.with_mut(|allocated| unsafe { core::mem::replace(&mut *allocated, false) });
        assert!(was, "a frame was freed twice");
        self.free.fetch_or(1 << frame.number(), Ordering::AcqRel);
    }

    fn zero_frame(&self) -> Option<Pfn> {
        ZERO_FRAME.then_some(ZERO)
    }
}
