//! The kernel that the library is measured in: each part is the library's own, or as little as its trait permits, so that what
//! is measured is the library.

use std::cell::{Cell, UnsafeCell};

use pagepin::frame::PageFrame;
use pagepin::{
    CpuCounters, CpuReaders, CurrentCpu, Extras, FlatFrameTable, FlushRange, FrameRequest, FrameSource, OffsetPhysMap,
    PAGE_SIZE, Pfn, PhysMap, Platform, ReadSide, Shootdown, Zone,
};
use spin::relax::Spin;

use crate::linux::memory;

/// Threads at a time.
pub(crate) const CPUS: usize = 2;
/// Frames of each CPU for pages, and for tables.
const PAGES: u64 = 16 * 1024;
const TABLES: u64 = 128;
/// Blocks of 2 MiB.
const BLOCKS: u64 = 8;
const BLOCK_ORDER: u8 = 9;
/// First frame. Blocks come first, since they are aligned.
const FIRST: u64 = 512;
const FIRST_TABLE: u64 = FIRST + (BLOCKS << BLOCK_ORDER);
const FIRST_PAGE: u64 = FIRST_TABLE + CPUS as u64 * TABLES;
/// For who writes to frames that nobody has: those that CPU 0 is given first.
pub(crate) const FIRST_FREE: u64 = FIRST_PAGE;
const END: u64 = FIRST_PAGE + CPUS as u64 * PAGES;

/// `M` is how memory is cleared and copied.
pub(crate) type Kernel<M> = Platform<M, FlatFrameTable<'static>, Frames, NoWalkers, NoTlbs, Spin, PerCpu>;
/// What a kernel with several CPUs brings, so that they share as little as possible.
type PerCpu = Extras<(), CpuCounters<ThisThread, CPUS>, (), (), CpuReaders<ThisThread, CPUS>>;

thread_local!(static CPU: Cell<usize> = const { Cell::new(0) });

/// From now on the calling thread is CPU `index`.
pub(crate) fn run_as_cpu(index: usize) {
    assert!(index < CPUS);
    CPU.set(index);
}

#[derive(Debug)]
pub(crate) struct ThisThread;

// SAFETY: threads that run at the same time have called `run_as_cpu` with different numbers.
unsafe impl CurrentCpu for ThisThread {
    #[inline(always)]
    fn current_cpu(&self) -> usize {
        CPU.get()
    }
}

/// A kernel switches interrupts off, which only it may. Here nobody unlinks a table while another thread walks.
#[derive(Debug)]
pub(crate) struct NoWalkers;

// SAFETY: see above; the rows with two threads unmap nothing.
unsafe impl ReadSide for NoWalkers {
    type Guard<'a> = ();

    #[inline(always)]
    fn enter(&self) {}

    fn synchronize(&self) {}
}

#[derive(Debug)]
pub(crate) struct NoTlbs;

// SAFETY: no processor translates addresses by these tables.
unsafe impl Shootdown for NoTlbs {
    #[inline(always)]
    fn flush(&self, _: Pfn, _: FlushRange) {}
}

/// Clears and copies no pages, but tables: what is left of a fault is the library.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WithoutBytes(OffsetPhysMap);

// SAFETY: forwards to the direct map. No page's bytes are looked at.
unsafe impl PhysMap for WithoutBytes {
    #[inline(always)]
    fn frame_ptr(&self, frame: Pfn) -> *mut u8 {
        self.0.frame_ptr(frame)
    }

    unsafe fn copy_frames(&self, _: Pfn, _: Pfn, _: u8) {}

    #[inline(always)]
    unsafe fn clear_frames(&self, frame: Pfn, order: u8) {
        if (FIRST_TABLE..FIRST_PAGE).contains(&frame.number()) {
            // SAFETY: forwarded from the caller.
            unsafe { self.0.clear_frames(frame, order) }
        }
    }
}

/// Free frames, those of each CPU in stacks of its own without a lock: the allocator is not what is measured.
#[derive(Debug)]
pub(crate) struct Frames {
    shelves: [Shelf; CPUS],
    blocks: spin::Mutex<Vec<u64>>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Shelf(UnsafeCell<Stacks>);

#[derive(Debug, Default)]
struct Stacks {
    pages: Vec<u64>,
    tables: Vec<u64>,
}

// SAFETY: each shelf is used by the one thread that is its CPU.
unsafe impl Sync for Frames {}

/// From the highest, so that the lowest is on top.
fn stack(first: u64, count: u64) -> Vec<u64> {
    (first..first + count).rev().collect()
}

impl Frames {
    fn new() -> Self {
        let shelf = |cpu: u64| Stacks {
            pages: stack(FIRST_PAGE + cpu * PAGES, PAGES),
            tables: stack(FIRST_TABLE + cpu * TABLES, TABLES),
        };
        let blocks = (0..BLOCKS).rev().map(|index| FIRST + (index << BLOCK_ORDER)).collect();
        Self { shelves: std::array::from_fn(|cpu| Shelf(shelf(cpu as u64).into())), blocks: spin::Mutex::new(blocks) }
    }

    /// In order again, as at the beginning. One thread is left, and no address space: whatever is missing was lost.
    pub(crate) fn tidy(&self) {
        let (mut pages, mut tables) = (Vec::new(), Vec::new());
        for shelf in &self.shelves {
            // SAFETY: no other thread uses the shelves.
            let stacks = unsafe { &mut *shelf.0.get() };
            pages.append(&mut stacks.pages);
            tables.append(&mut stacks.tables);
        }
        let lost = (END - FIRST_TABLE) - (pages.len() + tables.len()) as u64;
        assert_eq!(lost, 0, "frames were lost");
        assert_eq!(self.blocks.lock().len() as u64, BLOCKS, "blocks were lost");
        for (shelf, fresh) in self.shelves.iter().zip(Self::new().shelves) {
            // SAFETY: as above.
            unsafe { *shelf.0.get() = fresh.0.into_inner() };
        }
    }

    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "a shelf has one user, who has one of these at a time")]
    fn mine(&self) -> &mut Stacks {
        // SAFETY: see `Sync` above, and no reference outlives the call that made it.
        unsafe { &mut *self.shelves[CPU.get()].0.get() }
    }
}

// SAFETY: a frame is in one stack, or handed out.
unsafe impl FrameSource for Frames {
    #[inline]
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        let frame = match (request.order, request.zone) {
            (0, Zone::Movable) => self.mine().pages.pop(),
            (0, Zone::Unmovable) => self.mine().tables.pop(),
            (BLOCK_ORDER, _) => self.blocks.lock().pop(),
            _ => None,
        };
        frame.map(Pfn::new)
    }

    #[inline]
    unsafe fn free(&self, frame: Pfn, order: u8) {
        match (order, frame.number()) {
            (0, page @ FIRST_PAGE..) => self.mine().pages.push(page),
            (0, table) => self.mine().tables.push(table),
            (_, block) => self.blocks.lock().push(block),
        }
    }

    #[inline]
    unsafe fn free_run(&self, first: Pfn, count: u64) {
        let frames = first.number()..first.number() + count;
        match first.number() {
            FIRST_PAGE.. => self.mine().pages.extend(frames),
            _ => self.mine().tables.extend(frames),
        }
    }
}

/// The memory and its words, which several kernels use in turn.
pub(crate) struct Machine {
    pub(crate) map: OffsetPhysMap,
    words: &'static [PageFrame],
}

impl Machine {
    pub(crate) fn new() -> Self {
        let memory = memory::populated((END - FIRST) * PAGE_SIZE);
        // SAFETY: the memory stays for ever, is page-aligned, far above the first frame's address, and only frames of `Frames` are
        // given to the crate.
        let map = unsafe { OffsetPhysMap::new(memory.expose_provenance().get() as u64 - FIRST * PAGE_SIZE) };
        let words = memory::populated((END - FIRST) * size_of::<PageFrame>() as u64);
        let words = words.cast::<PageFrame>();
        for index in 0..(END - FIRST) as usize {
            // SAFETY: within the memory just made, which nobody else knows.
            unsafe { words.add(index).write(PageFrame::new()) };
        }
        // SAFETY: written just now, and never unmapped.
        let words = unsafe { std::slice::from_raw_parts(words.as_ptr(), (END - FIRST) as usize) };
        Self { map, words }
    }

    /// A kernel that clears and copies.
    pub(crate) fn kernel(&self) -> &'static Kernel<OffsetPhysMap> {
        self.kernel_with(self.map)
    }

    /// One that does neither.
    pub(crate) fn kernel_without_bytes(&self) -> &'static Kernel<WithoutBytes> {
        self.kernel_with(WithoutBytes(self.map))
    }

    /// Only one kernel at a time has an address space.
    fn kernel_with<M>(&self, map: M) -> &'static Kernel<M> {
        // SAFETY: the words are those of the memory.
        let table = unsafe { FlatFrameTable::new(Pfn::new(FIRST), self.words) };
        // SAFETY: the parts are those of one memory; a thread here is not moved to another shelf, reader slot or counter.
        let platform = unsafe { Platform::new(map, table, Frames::new(), NoWalkers, NoTlbs) };
        let extras = Extras::new().counters(CpuCounters::new(ThisThread)).mm_readers(CpuReaders::new(ThisThread));
        Box::leak(Box::new(platform.with_extras(extras)))
    }
}
