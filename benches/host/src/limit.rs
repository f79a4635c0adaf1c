//! The hardware's limit: what each operation cannot do without, and nothing else.
//!
//! Entries, words and runs lie in memory as the library's do. A loop loads what has to be looked at, stores what has to be
//! left behind, and takes a locked instruction wherever another CPU, a walker or the hardware could come between. It checks
//! no rights, knows no VMA, counts nothing and cannot fail.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    fence,
};

use pagepin::{OffsetPhysMap, Pfn, PhysMap};

use crate::compare::nanoseconds;
use crate::linux::memory;
use crate::machine::FIRST_FREE;
use crate::rows::{LEAVES, PAGES};

/// What a pin adds to a word.
const PIN: u64 = 1 << 32;
/// Where a table or array begins, in cells.
const ROOT: usize = 0;
const MIDDLE: usize = ROOT + 512;
const LOWER: usize = MIDDLE + 512;
const ENTRIES: usize = LOWER + 512;
const CHILD: usize = after(ENTRIES, PAGES);
const WORDS: usize = after(CHILD, PAGES);
const COPIES: usize = after(WORDS, PAGES);
const FREE: usize = after(COPIES, PAGES);
const RUNS: usize = after(FREE, PAGES);
/// What a CPU writes that no other does, on lines of its own.
const SLOT: usize = after(RUNS, 2 * PAGES);
const COUNTER: usize = SLOT + 16;
const CELLS: usize = COUNTER + 16;

/// Some lines further on than need be: a processor takes two addresses for one that differ by a multiple of 4096.
const fn after(start: usize, cells: u64) -> usize {
    start + cells as usize + 72
}

/// Which pages follow each other in memory.
pub(crate) type Order = fn(u64) -> u64;

pub(crate) struct Limit {
    cells: &'static [AtomicU64],
    map: OffsetPhysMap,
}

impl Limit {
    /// `map` is of memory that nobody uses while this measures.
    pub(crate) fn new(map: OffsetPhysMap, order: Order) -> Self {
        let memory = memory::populated(CELLS as u64 * 8).cast::<AtomicU64>();
        // SAFETY: so much was just made, all zero, and is never unmapped.
        let cells = unsafe { std::slice::from_raw_parts(memory.as_ptr(), CELLS) };
        let set = |index: usize, value: usize| cells[index].store(value as u64, Relaxed);
        set(ROOT, MIDDLE);
        set(MIDDLE, LOWER);
        for table in 0..PAGES as usize / 512 {
            set(LOWER + table, ENTRIES + table * 512);
        }
        // The frame that is handed out as the n-th is the page's that is touched as the n-th.
        for frame in 0..PAGES {
            set(ENTRIES + order(frame) as usize, entry(WORDS as u64 + frame) as usize);
            set(FREE + frame as usize, frame as usize);
        }
        Self { cells, map }
    }

    #[inline(always)]
    fn cell(&self, index: usize) -> &'static AtomicU64 {
        debug_assert!(index < CELLS);
        // SAFETY: all indexes come from `new`, which makes them as small as that.
        unsafe { self.cells.get_unchecked(index) }
    }

    /// The word of a frame that an entry maps.
    #[inline(always)]
    fn word(&self, entry: u64) -> &'static AtomicU64 {
        self.cell((entry >> 12) as usize)
    }

    /// The entry that leads to a lowest table, and the leaf: four loads, each of which needs the one before.
    #[inline(always)]
    fn walk(&self, page: u64) -> (&'static AtomicU64, &'static AtomicU64) {
        let middle = self.cell(ROOT + (page >> 27 & 511) as usize).load(Acquire) as usize;
        let lower = self.cell(middle + (page >> 18 & 511) as usize).load(Acquire) as usize;
        let above = self.cell(lower + (page >> 9 & 511) as usize);
        (above, self.cell(above.load(Acquire) as usize + (page & 511) as usize))
    }

    #[inline(always)]
    fn per_page(work: impl Fn(u64)) -> f64 {
        nanoseconds(|| (0..PAGES).for_each(&work)) / PAGES as f64
    }

    /// One after the other: entry, word, entry again.
    pub(crate) fn pin_512(&self) -> [f64; 2] {
        let pin = Self::per_page(|page| {
            let at = self.cell(ENTRIES + page as usize);
            let entry = at.load(Acquire);
            exchange(self.word(entry), |word| word + PIN);
            expect(at.load(Acquire) == entry);
        });
        let unpin = Self::per_page(|page| exchange(self.cell(WORDS + page as usize), |word| word - PIN));
        [pin, unpin]
    }

    /// The same, with a run for each page: two stores and two loads.
    pub(crate) fn pin_scattered(&self) -> [f64; 2] {
        let pin = Self::per_page(|page| {
            let at = self.cell(ENTRIES + page as usize);
            let entry = at.load(Acquire);
            self.store_run(page, entry);
            exchange(self.word(entry), |word| word + PIN);
            expect(at.load(Acquire) == entry);
        });
        [pin, Self::per_page(|page| exchange(self.word(self.load_run(page)), |word| word - PIN))]
    }

    /// The same, with a walk for each page, both entries looked at again, and the statistics.
    pub(crate) fn pin_one(&self) -> [f64; 2] {
        let pin = Self::per_page(|page| {
            let (above, at) = self.walk(page);
            let (table, entry) = (above.load(Acquire), at.load(Acquire));
            exchange(self.word(entry), |word| word + PIN);
            expect(at.load(Acquire) == entry && above.load(Acquire) == table);
            self.store_run(page, entry);
            self.count();
        });
        let unpin = Self::per_page(|page| {
            exchange(self.word(self.load_run(page)), |word| word - PIN);
            self.count();
        });
        [pin, unpin]
    }

    /// One word for all pages of a leaf; the walk is a load shorter.
    pub(crate) fn pin_leaf(&self) -> [f64; 2] {
        let pin = || {
            for leaf in 0..LEAVES {
                let (above, _) = self.walk(leaf * 512);
                let table = above.load(Acquire);
                exchange(self.cell(WORDS + leaf as usize * 512), |word| word + PIN);
                expect(above.load(Acquire) == table);
                self.store_run(leaf, entry(WORDS as u64 + leaf * 512));
                self.count();
            }
        };
        let unpin = || {
            for leaf in 0..LEAVES {
                exchange(self.word(self.load_run(leaf)), |word| word - PIN);
                self.count();
            }
        };
        [nanoseconds(pin), nanoseconds(unpin)].map(|figure| figure / LEAVES as f64)
    }

    #[inline(always)]
    fn store_run(&self, index: u64, entry: u64) {
        self.cell(RUNS + 2 * index as usize).store(entry, Relaxed);
        self.cell(RUNS + 2 * index as usize + 1).store(1, Relaxed);
    }

    #[inline(always)]
    fn load_run(&self, index: u64) -> u64 {
        expect(self.cell(RUNS + 2 * index as usize + 1).load(Relaxed) == 1);
        self.cell(RUNS + 2 * index as usize).load(Relaxed)
    }

    /// This CPU's total: no locked instruction.
    #[inline(always)]
    fn count(&self) {
        let total = self.cell(COUNTER);
        total.store(total.load(Relaxed) + 1, Relaxed);
    }

    /// In the order of the library's turn. `BYTES`: with clears and copies.
    pub(crate) fn operations<const BYTES: bool>(&self) -> [f64; 8] {
        let zero = Self::per_page(|page| {
            let _note = self.note();
            let frame = self.hand_out(page);
            if BYTES {
                // SAFETY: nobody uses the memory meanwhile.
                unsafe { self.map.clear_frames(frame, 0) }
            }
            let (_, at) = self.walk(page);
            exchange(at, |entry| entry);
        });
        let fork = Self::per_page(|page| {
            let at = self.cell(ENTRIES + page as usize);
            let entry = at.load(Acquire);
            exchange(self.word(entry), |word| word + 1);
            at.fetch_and(!2, AcqRel);
            self.cell(CHILD + page as usize).store(entry & !2, Release);
        });
        let copy = Self::per_page(|page| {
            let _note = self.note();
            self.copy::<BYTES>(page);
        });
        let exit = self.give_back();
        let reuse = Self::per_page(|page| {
            let _note = self.note();
            let (_, at) = self.walk(page);
            let entry = at.load(Acquire);
            exchange(at, |entry| entry | 1);
            exchange(self.word(entry), |word| word | 2);
            at.store(entry, Release);
        });
        let unshare = Self::per_page(|page| {
            self.copy::<BYTES>(page);
            self.store_run(page, entry(WORDS as u64 + page));
        });
        let protect = Self::per_page(|page| exchange(self.cell(ENTRIES + page as usize), |entry| entry));
        let unmap = self.give_back();
        [zero, fork, copy, exit, reuse, unshare, protect, unmap]
    }

    /// A reader of the mm lock: its CPU's slot, and a fence before it looks whether the lock is open.
    #[inline(always)]
    fn note(&self) -> Note {
        let slot = self.cell(SLOT);
        slot.store(1, Release);
        fence(SeqCst);
        Note(slot)
    }

    /// The next free frame, whose word nobody else writes.
    #[inline(always)]
    fn hand_out(&self, page: u64) -> Pfn {
        let frame = self.cell(FREE + page as usize).load(Relaxed);
        self.cell(COPIES + frame as usize).store(1, Release);
        Pfn::new(FIRST_FREE + frame)
    }

    /// Hold the original, copy, own the entry, publish, let go of the original.
    #[inline(always)]
    fn copy<const BYTES: bool>(&self, page: u64) {
        let (_, at) = self.walk(page);
        let old = at.load(Acquire);
        exchange(self.word(old), |word| word + 1);
        let frame = self.hand_out(page);
        if BYTES {
            // SAFETY: as for clears; the frames from there on are as many again.
            unsafe { self.map.copy_frames(frame, frame.offset(PAGES), 0) }
        }
        exchange(at, |entry| entry | 1);
        at.store(old, Release);
        exchange(self.word(old), |word| word - 1);
    }

    /// Entry, word, free list. A whole table leaves by one entry further up, so none below it is broken.
    fn give_back(&self) -> f64 {
        Self::per_page(|page| {
            let entry = self.cell(ENTRIES + page as usize).load(Acquire);
            exchange(self.word(entry), |word| word & !1);
            self.cell(RUNS + page as usize).store(entry >> 12, Relaxed);
        })
    }
}

struct Note(&'static AtomicU64);

impl Drop for Note {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}

/// The entry for a frame whose word is at `index`: writable and present.
const fn entry(index: u64) -> u64 {
    index << 12 | 3
}

/// A load and a locked instruction.
#[inline(always)]
fn exchange(cell: &AtomicU64, next: impl Fn(u64) -> u64) {
    let old = cell.load(Relaxed);
    expect(cell.compare_exchange(old, next(old), AcqRel, Relaxed).is_ok());
}

#[inline(always)]
fn expect(what: bool) {
    if !what {
        unexpected();
    }
}

#[cold]
#[inline(never)]
fn unexpected() -> ! {
    unreachable!("one thread is at work")
}
