//! A small kernel for real threads: every part is the library's own, or as little as its trait permits.
//!
//! Memory is cleared, copied and poisoned with ordinary Rust accesses instead of string instructions, which
//! ThreadSanitizer cannot see. So each life of a frame begins and ends with plain writes to all of it, and the
//! library's atomics alone have to order them against the walkers, pinners and tables of the life before.

use std::alloc::{Layout as Block, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use pagepin::frame::{Layout, PageFrame, Snapshot};
use pagepin::{
    CounterValues, CpuCounters, CpuReaders, CurrentCpu, Entry, EntryAddr, Env, EpochReadSide, Extras, FlatFrameTable,
    FlushRange, FrameRequest, FrameSource, FrameTable, PAGE_SIZE, Pfn, PhysMap, Platform, ReadSide, Shootdown,
};
use spin::mutex::SpinMutex;
use spin::relax::RelaxStrategy;

use crate::kit::Plug;

/// Worker threads, each a CPU of its own to the read side.
pub(crate) const THREADS: usize = 4;
/// First frame; not 0, so that a frame number used as an index shows.
const FIRST: u64 = 0x4_0000;
const FRAMES: usize = 2048;
const POISON: u8 = 0xde;
/// 8-byte words in a frame.
const WORDS: usize = PAGE_SIZE as usize / 8;

/// The kernel with its read side `R`.
pub(crate) type Kernel<'m, L, R> = Platform<Map<'m>, Pausing<'m, L>, Free<'m>, R, NoTlbs, Yield, Statistics>;
/// A slot for each worker, so that a count which one of them loses shows at the end.
type Statistics = Extras<(), CpuCounters<ThisThread, THREADS>, (), (), CpuReaders<ThisThread, THREADS>>;
/// The read side under test.
pub(crate) type Epochs = EpochReadSide<ThisThread, THREADS>;

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// From now on the calling thread is CPU `index`.
pub(crate) fn run_as_cpu(index: usize) {
    assert!(index < THREADS);
    CPU.set(index);
    STEPS.set(index as u64);
}

/// Frames handed out and taken back. `Relaxed`, so that it orders nothing.
static TURNOVER: AtomicU64 = AtomicU64::new(0);
/// A long pause ends when so many frames have changed hands, or after so many turns.
const LONG_PAUSE: (u64, u32) = (4, 40);

/// Lets other threads run, so that they meet in every window of a walk: now and then for a turn, and sometimes until
/// the frame at hand may well have become somebody else's.
fn pause() {
    let step = STEPS.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    STEPS.set(step);
    let turns = match step >> 58 {
        0 => LONG_PAUSE.1,
        1..4 => 1,
        _ => 0,
    };
    let end = TURNOVER.load(Ordering::Relaxed) + LONG_PAUSE.0;
    for _ in 0..turns {
        thread::yield_now();
        if TURNOVER.load(Ordering::Relaxed) >= end {
            break;
        }
    }
}

/// The CPU number of a worker.
#[derive(Debug)]
pub(crate) struct ThisThread;

// SAFETY: every thread that walks has called `run_as_cpu` with a number of its own.
unsafe impl CurrentCpu for ThisThread {
    fn current_cpu(&self) -> usize {
        CPU.get()
    }
}

/// What waits for a lock lets the others run: there are more threads than processors.
pub(crate) struct Yield;

impl RelaxStrategy for Yield {
    fn relax() {
        thread::yield_now();
    }
}

/// There are no TLBs here, so nothing to flush; the time a shootdown takes is when others run.
#[derive(Debug)]
pub(crate) struct NoTlbs;

// SAFETY: no thread translates addresses through the tables other than by walking them in the library.
unsafe impl Shootdown for NoTlbs {
    fn flush(&self, _: Pfn, _: FlushRange) {
        thread::yield_now();
    }
}

/// A read side that does not wait, for a twin that must be reported.
#[derive(Debug)]
pub(crate) struct NoGrace(pub(crate) Epochs);

// SAFETY: it is not safe, which is its purpose. The memory stays allocated as long as the kernel, so that what goes
// wrong is a data race for ThreadSanitizer to find and nothing worse.
unsafe impl ReadSide for NoGrace {
    type Guard<'a>
        = <Epochs as ReadSide>::Guard<'a>
    where
        Self: 'a;

    fn enter(&self) -> Self::Guard<'_> {
        self.0.enter()
    }

    fn synchronize(&self) {}
}

/// Physical memory.
#[derive(Debug)]
pub(crate) struct Memory {
    base: NonNull<u8>,
    /// Entries are stored without the release that publishes what they point to: a twin that must be reported.
    relaxed_entries: bool,
}

// SAFETY: the memory belongs to this value, and who may access which part is what the library decides.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn new(relaxed_entries: bool) -> Self {
        // SAFETY: the size is not 0.
        let base = unsafe { alloc_zeroed(Self::block()) };
        Self { base: NonNull::new(base).unwrap_or_else(|| handle_alloc_error(Self::block())), relaxed_entries }
    }

    fn block() -> Block {
        Block::from_size_align(FRAMES * PAGE_SIZE as usize, PAGE_SIZE as usize).unwrap()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base.as_ptr(), Self::block()) };
    }
}

/// The direct map of [`Memory`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Map<'m>(&'m Memory);

impl Map<'_> {
    /// Word `index` of a frame. Threads share words through pins, as programs and devices do.
    pub(crate) fn word(&self, frame: Pfn, index: usize) -> &AtomicU64 {
        assert!(index < WORDS);
        // SAFETY: the word lies within the frame, aligned, and is accessed by others only atomically, or else while the
        // frame has no holder.
        unsafe { AtomicU64::from_ptr(self.frame_ptr(frame).cast::<u64>().add(index)) }
    }
}

// SAFETY: one block of memory, frame by frame.
unsafe impl PhysMap for Map<'_> {
    fn frame_ptr(&self, frame: Pfn) -> *mut u8 {
        let index = frame.number().wrapping_sub(FIRST) as usize;
        assert!(index < FRAMES, "{frame:?} is not memory");
        // SAFETY: the index was checked.
        unsafe { self.0.base.add(index * PAGE_SIZE as usize) }.as_ptr()
    }

    unsafe fn store_entry(&self, at: EntryAddr, entry: Entry) {
        let order = if self.0.relaxed_entries { Ordering::Relaxed } else { Ordering::Release };
        self.word(at.table(), (at.address() % PAGE_SIZE / 8) as usize).store(entry.bits(), order);
    }

    unsafe fn exchange_entry(&self, at: EntryAddr, old: Entry, new: Entry) -> Result<(), Entry> {
        let order = if self.0.relaxed_entries { Ordering::Relaxed } else { Ordering::AcqRel };
        let word = self.word(at.table(), (at.address() % PAGE_SIZE / 8) as usize);
        let exchanged = word.compare_exchange(old.bits(), new.bits(), order, Ordering::Acquire);
        exchanged.map(drop).map_err(Entry::from_bits)
    }

    unsafe fn copy_frames(&self, from: Pfn, to: Pfn, order: u8) {
        for i in 0..1 << order {
            // Whoever has the source pinned may write it meanwhile.
            let words: [u64; WORDS] =
                std::array::from_fn(|index| self.word(from.offset(i), index).load(Ordering::Relaxed));
            // SAFETY: the caller owns the frame.
            unsafe { self.frame_ptr(to.offset(i)).cast::<[u64; WORDS]>().write(words) };
        }
    }

    unsafe fn clear_frames(&self, frame: Pfn, order: u8) {
        // SAFETY: the caller owns the block.
        unsafe { self.frame_ptr(frame).write_bytes(0, (PAGE_SIZE as usize) << order) };
    }
}

/// The frame table. Between the load of an entry and the count of its frame a thread sometimes loses its processor.
#[derive(Debug)]
pub(crate) struct Pausing<'m, L: Layout>(FlatFrameTable<'m, L>);

// SAFETY: forwards to the flat table.
unsafe impl<L: Layout> FrameTable for Pausing<'_, L> {
    type Layout = L;

    fn frame(&self, frame: Pfn) -> Option<&PageFrame<L>> {
        pause();
        self.0.frame(frame)
    }

    fn run(&self, first: Pfn, count: u64) -> Option<&[PageFrame<L>]> {
        self.0.run(first, count)
    }
}

/// The frames nobody uses. The last freed comes first, so that frames are recycled at once.
#[derive(Debug)]
pub(crate) struct Free<'m> {
    map: Map<'m>,
    frames: SpinMutex<Vec<u64>, Yield>,
}

// SAFETY: a frame is on the list or handed out, never both.
unsafe impl FrameSource for Free<'_> {
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        TURNOVER.fetch_add(1, Ordering::Relaxed);
        if request.order == 0 { self.frames.lock().pop().map(Pfn::new) } else { None }
    }

    unsafe fn free(&self, frame: Pfn, order: u8) {
        assert_eq!(order, 0, "a block that was never handed out");
        TURNOVER.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller says that nobody uses the frame; this is where that is checked.
        unsafe { self.map.frame_ptr(frame).write_bytes(POISON, PAGE_SIZE as usize) };
        self.frames.lock().push(frame.number());
    }

    fn zero_frame(&self) -> Option<Pfn> {
        Some(Pfn::new(FIRST))
    }
}

pub(crate) fn epochs() -> Epochs {
    EpochReadSide::new(ThisThread, thread::yield_now)
}

/// Words for [`kernel`].
pub(crate) fn frame_words<L: Layout>() -> Vec<PageFrame<L>> {
    (0..FRAMES).map(|_| PageFrame::new()).collect()
}

pub(crate) fn kernel<'m, L: Layout, R>(
    memory: &'m Memory,
    words: &'m [PageFrame<L>],
    read_side: R,
) -> Kernel<'m, L, R> {
    // SAFETY: the words describe `memory`, which is in no other table.
    let table = unsafe { FlatFrameTable::new(Pfn::new(FIRST), words) };
    let frames = SpinMutex::new((1..FRAMES as u64).map(|index| FIRST + index).collect());
    // SAFETY: the parts are those of one memory.
    let platform = unsafe {
        Platform::with_relax(Map(memory), Pausing(table), Free { map: Map(memory), frames }, read_side, NoTlbs)
    };
    platform.with_extras(Extras::new().counters(CpuCounters::new(ThisThread)).mm_readers(CpuReaders::new(ThisThread)))
}

impl<L: Layout, R: ReadSide + Sync> Plug for Kernel<'_, L, R> {
    fn entries(&self, table: Pfn, places: u64) -> Vec<(EntryAddr, u64)> {
        let word = |index: u64| self.phys_map().word(table, index as usize).load(Ordering::Relaxed);
        let used = (0..places).map(|index| (EntryAddr::new(table, index), word(index)));
        used.filter(|(_, bits)| *bits != 0).collect()
    }

    fn snapshot(&self, frame: Pfn) -> Snapshot {
        Env::frames(self).frame(frame).expect("a frame of this memory").snapshot()
    }

    fn frames(&self) -> Vec<Pfn> {
        (FIRST..FIRST + FRAMES as u64).map(Pfn::new).collect()
    }

    fn allocated(&self) -> Vec<Pfn> {
        let free = self.source().frames.lock();
        let mut used = vec![true; FRAMES];
        used[0] = false;
        for frame in &*free {
            let index = (frame - FIRST) as usize;
            assert!(std::mem::replace(&mut used[index], false), "a frame was freed twice");
        }
        (FIRST..).map(Pfn::new).zip(used).filter(|(_, used)| *used).map(|(frame, _)| frame).collect()
    }

    fn zero_frame(&self) -> Option<(Pfn, bool)> {
        let zero = Pfn::new(FIRST);
        Some((zero, (0..WORDS).all(|index| self.phys_map().word(zero, index).load(Ordering::Relaxed) == 0)))
    }

    fn counters(&self) -> CounterValues {
        self.statistics()
    }
}
