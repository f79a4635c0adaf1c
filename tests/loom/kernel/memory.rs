//! Frames: their words, entries and bytes, and the allocator.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{self, Ordering};
use pagepin::frame::{Snapshot, Wide};
use pagepin::model::AtomicU64;
use pagepin::{Entry, EntryAddr, FrameSource, FrameTable, PageFrame, Pfn, PhysMap};

struct Frame {
    word: PageFrame,
    /// Whether it is allocated.
    allocated: UnsafeCell<bool>,
    /// Entry 0, while it is an upper table: what it leads to.
    upper: AtomicU64,
    /// Entries 1 and 2, while it is a lowest table: pages 1 and 2.
    leaves: [AtomicU64; 2],
    /// Its contents, while it is memory. Races of those who may access it are not the library's, and not explored.
    bytes: atomic::AtomicU64,
}

// SAFETY: loom watches who reads and writes `allocated`; the rest is atomic.
unsafe impl Sync for Frame {}

/// What happens to tables while threads run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    /// Entries of upper tables that two threads can see do not change.
    Stay,
    /// They are broken and the tables freed.
    Go,
}

pub(crate) struct Memory {
    tables: Tables,
    frames: Vec<Frame>,
    /// One bit for each free frame.
    free: atomic::AtomicU64,
}

impl Memory {
    pub(crate) fn new(frames: u32, tables: Tables) -> Self {
        let frame = || Frame {
            word: PageFrame::new(),
            allocated: UnsafeCell::new(false),
            upper: AtomicU64::new(0),
            leaves: [AtomicU64::new(0), AtomicU64::new(0)],
            bytes: atomic::AtomicU64::new(0),
        };
        Self { tables, frames: (0..frames).map(|_| frame()).collect(), free: atomic::AtomicU64::new((1 << frames) - 1) }
    }

    fn at(&self, frame: Pfn) -> &Frame {
        &self.frames[frame.number() as usize]
    }

    /// The frame, as somebody who uses it.
    fn in_use(&self, frame: Pfn) -> &Frame {
        let frame = self.at(frame);
        // SAFETY: loom reports a write that is not ordered with this read.
        assert!(frame.allocated.with(|allocated| unsafe { *allocated }), "a freed frame was used");
        frame
    }

    /// What somebody reads who holds `frame`: a device, or a CPU through an entry.
    pub(crate) fn load(&self, frame: Pfn) -> u64 {
        self.in_use(frame).bytes.load(Ordering::Relaxed)
    }

    /// What somebody writes who holds `frame`.
    pub(crate) fn store(&self, frame: Pfn, value: u64) {
        self.in_use(frame).bytes.store(value, Ordering::Relaxed);
    }

    pub(crate) fn word(&self, frame: Pfn) -> &PageFrame<Wide> {
        &self.at(frame).word
    }

    pub(crate) fn snapshot(&self, frame: Pfn) -> Snapshot {
        self.at(frame).word.snapshot()
    }

    pub(crate) fn all_free(&self) -> bool {
        self.free.load(Ordering::Acquire) == (1 << self.frames.len()) - 1
    }

    /// The hardware's way to the entry of page 1 or 2; `None` if some table is missing.
    pub(crate) fn walk(&self, root: Pfn, page: u64) -> Option<Entry> {
        let (_, above) = self.above(root)?;
        // SAFETY: the caller is the only thread, or a CPU that a flush waits for.
        Some(unsafe { self.load_entry(EntryAddr::new(above.table_frame(), page)) })
    }

    /// The entry that leads to the lowest table, and its place.
    pub(crate) fn above(&self, root: Pfn) -> Option<(EntryAddr, Entry)> {
        let mut at = EntryAddr::new(root, 0);
        // SAFETY: as in `walk`.
        let load = |at| Some(unsafe { self.load_entry(at) }).filter(|entry| entry.is_present());
        let mut entry = load(at)?;
        for _ in 0..2 {
            at = EntryAddr::new(entry.table_frame(), 0);
            entry = load(at)?;
        }
        Some((at, entry))
    }

    /// The entry's atomic; `None` for those that are always empty.
    fn slot(&self, at: EntryAddr) -> Option<&AtomicU64> {
        let index = (at.address() - at.table().address()) / 8;
        let table = self.in_use(at.table());
        match index {
            0 => Some(&table.upper),
            index => table.leaves.get(index as usize - 1),
        }
    }
}

// SAFETY: no operation of the models asks for the bytes of a frame; entries, copying and clearing are overridden.
unsafe impl PhysMap for Memory {
    fn frame_ptr(&self, _: Pfn) -> *mut u8 {
        unimplemented!("the models have no memory behind their frames")
    }

    unsafe fn load_entry(&self, at: EntryAddr) -> Entry {
        let Some(slot) = self.slot(at) else { return Entry::EMPTY };
        let upper = at.address() == at.table().address();
        Entry::from_bits(match self.tables {
            Tables::Stay if upper => slot.load_settled(Ordering::Acquire),
            _ => slot.load(Ordering::Acquire),
        })
    }

    unsafe fn store_entry(&self, at: EntryAddr, entry: Entry) {
        self.slot(at).expect("an entry that is kept").store(entry.bits(), Ordering::Release);
    }

    unsafe fn mask_entry(&self, at: EntryAddr, mask: u64) -> Entry {
        Entry::from_bits(self.slot(at).expect("an entry that is kept").fetch_and(mask, Ordering::AcqRel))
    }

    unsafe fn set_entry_bits(&self, at: EntryAddr, bits: u64) -> Entry {
        Entry::from_bits(self.slot(at).expect("an entry that is kept").fetch_or(bits, Ordering::AcqRel))
    }

    unsafe fn exchange_entry(&self, at: EntryAddr, old: Entry, new: Entry) -> Result<(), Entry> {
        let slot = self.slot(at).expect("an entry that is kept");
        slot.compare_exchange(old.bits(), new.bits(), Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
            .map_err(Entry::from_bits)
    }

    unsafe fn copy_frames(&self, from: Pfn, to: Pfn, order: u8) {
        assert_eq!(order, 0);
        self.store(to, self.load(from));
    }

    unsafe fn clear_frames(&self, frame: Pfn, order: u8) {
        assert_eq!(order, 0);
        let frame = self.in_use(frame);
        frame.leaves.iter().chain([&frame.upper]).for_each(|entry| entry.store(0, Ordering::Relaxed));
        frame.bytes.store(0, Ordering::Relaxed);
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
    fn allocate(&self, order: u8) -> Option<Pfn> {
        assert_eq!(order, 0);
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
        // SAFETY: loom reports an access that is not ordered with this one.
        self.at(frame).allocated.with_mut(|allocated| unsafe { *allocated = true });
        Some(frame)
    }

    unsafe fn free(&self, frame: Pfn, _: u8) {
        // SAFETY: loom reports an access that is not ordered with this one.
        let was = self.at(frame).allocated.with_mut(|allocated| unsafe { core::mem::replace(&mut *allocated, false) });
        assert!(was, "a frame was freed twice");
        self.free.fetch_or(1 << frame.number(), Ordering::AcqRel);
    }
}
