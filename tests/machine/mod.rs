//! An emulated machine that behaves worse than hardware.
//!
//! One thread plays every CPU. Its TLBs keep each translation, however stale or permissive, until a flush of the mm is
//! acknowledged; freed memory is poisoned; the order break -> flush -> publish -> free is watched at every entry; and
//! closures can run at any step of a lockless walk or between a flush request and its acknowledgement. What it cannot
//! show is the effect of weak memory ordering.

mod addresses;
mod audit;
mod card;
mod cpu;
mod entries;
mod hooks;
mod image;
mod large;
pub(crate) mod memory;
pub(crate) mod one_thread;
mod sections;

use std::cell::Cell;
use std::sync::Arc;

use pagepin::frame::{FrameWord, Layout, PageFrame, Wide};
use pagepin::pin::{self, GotPages, PhysRun, PinError, PinFlags, PinnedPages, pin_user_pages, pin_user_pages_fast};
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{
    Counters, CpuReaders, Env, ExtraParts, Extras, FlatFrameTable, FrameTable, Levels, Pfn, PinLimit, Rights, UserRange,
};
use spin::relax::RelaxStrategy;

pub(crate) use addresses::{A, FAR, FOREIGN, LARGE, PAGE, UNTOUCHED};
pub(crate) use cpu::{CPUS, Trap};
pub(crate) use image::Image;
pub(crate) use memory::FIRST;

/// Where this kernel keeps pages that no address space has, as the tests in question want it.
use crate::kept;
pub(crate) use crate::kept::*;

use card::Card;
use cpu::Cpus;
use entries::Protocol;
use hooks::{Hook, Playing};
use memory::Memory;
use one_thread::OneThread;
use sections::{Sections, Work};

/// Loads and stores.
pub(crate) const RW: Rights = Rights::READ.union(Rights::WRITE);
/// Loads.
pub(crate) const R: Rights = Rights::READ;
/// Loads and instruction fetches.
pub(crate) const RX: Rights = Rights::READ.union(Rights::EXECUTE);
/// No rights.
pub(crate) const NONE: Rights = Rights::empty();

/// A process of the machine.
pub(crate) type Process<'m, L> = UserSpace<&'m Machine<L>, Arc<PinLimit>>;
/// What the pin family returns here.
pub(crate) type Pins<'p, 'm, L, X> = PinnedPages<'p, Process<'m, L>, X, Vec<PhysRun>>;
/// What the get family returns here.
pub(crate) type Gets<'p, 'm, L> = GotPages<'p, &'m Machine<L>, Vec<PhysRun>>;

/// What a machine has beside its parts.
pub(crate) type MachineExtras = Extras<Sections, Counters, (), (), CpuReaders<Playing, CPUS>, Slots, Shelf, Card>;

/// There is one thread: whoever waits for a lock waits for ever.
pub(crate) struct Deadlock;

impl RelaxStrategy for Deadlock {
    fn relax() {
        panic!("deadlock: a lock is held further up this stack");
    }
}

/// See the [module text](self).
pub(crate) struct Machine<L: Layout = Wide> {
    table: FlatFrameTable<'static, L>,
    words: *mut [PageFrame<L>],
    extras: MachineExtras,
    inner: OneThread<Inner>,
}

struct Inner {
    memory: Memory,
    cpus: Cpus,
    protocol: Protocol,
    guards: Cell<u64>,
    /// Those of them that began without a lock.
    walks: Cell<u64>,
    walk_hook: Hook,
    flush_hook: Hook,
    exchange_hook: Hook,
    lookup_hook: Hook,
    grace_hook: Hook,
    /// Steps since the outermost read-side guard was taken, and the most there ever were.
    guarded_steps: Cell<u64>,
    /// Loads of entries.
    loads: Cell<u64>,
    longest_guard: Cell<u64>,
    has_zero_frame: Cell<bool>,
    expected_bugs: Cell<u64>,
    /// Releases that nothing was acquired for.
    expected_surplus: Cell<u64>,
}

// SAFETY: `words` is only used to free the slice in `drop`; everything else is `Sync`.
unsafe impl<L: Layout> Sync for Machine<L> {}

impl<L: Layout> Machine<L> {
    /// A machine with `frames` frames of memory, the first of which is the zero frame.
    pub(crate) fn new(frames: usize) -> Self {
        let words: Box<[PageFrame<L>]> = (0..frames).map(|_| PageFrame::new()).collect();
        let words = Box::into_raw(words);
        // SAFETY: the slice is freed in `drop`, and the table is not handed out for longer than the machine lives.
        let table = unsafe { FlatFrameTable::new(Pfn::new(FIRST), &*words) };
        let memory = Memory::new(frames);
        let inner = Inner {
            memory,
            cpus: Cpus::new(),
            protocol: Protocol::default(),
            guards: Cell::new(0),
            walks: Cell::new(0),
            walk_hook: Hook::default(),
            flush_hook: Hook::default(),
            exchange_hook: Hook::default(),
            lookup_hook: Hook::default(),
            grace_hook: Hook::default(),
            guarded_steps: Cell::new(0),
            loads: Cell::new(0),
            longest_guard: Cell::new(0),
            has_zero_frame: Cell::new(true),
            expected_bugs: Cell::new(0),
            expected_surplus: Cell::new(0),
        };
        let extras = Extras::new().no_preempt(Sections::new()).mm_readers(CpuReaders::new(Playing));
        let extras = extras.tokens(kept::slots()).objects(kept::shelf()).device_frames(Card::new());
        Self { table, words, extras, inner: OneThread::new(inner) }
    }

    fn inner(&self) -> &Inner {
        self.inner.get()
    }

    /// Physical memory.
    pub(crate) fn memory(&self) -> &Memory {
        &self.inner().memory
    }

    /// The CPUs.
    pub(crate) fn cpus(&self) -> &Cpus {
        &self.inner().cpus
    }

    fn protocol(&self) -> &Protocol {
        &self.inner().protocol
    }

    fn table(&self) -> &FlatFrameTable<'static, L> {
        &self.table
    }

    /// Sections of the mm lock, and of who owns an entry, that are under way.
    fn sections(&self) -> u64 {
        ExtraParts::no_preempt(&self.extras).depth()
    }

    fn note(&self, work: impl FnOnce(&mut Work)) {
        ExtraParts::no_preempt(&self.extras).note(work);
    }

    /// Runs `work`: the most of everything that was done in one section of the mm lock, and how many sections there were.
    pub(crate) fn longest_section(&self, work: impl FnOnce()) -> (Work, u64) {
        ExtraParts::no_preempt(&self.extras).during(work)
    }

    /// Runs `work`; after its section number `at` (from 0) `race` runs. Whether there were that many.
    pub(crate) fn between_sections<R>(&self, at: u64, race: impl FnOnce(), work: impl FnOnce() -> R) -> (R, bool) {
        ExtraParts::no_preempt(&self.extras).between().during(at, race, work)
    }

    fn read_guards(&self) -> u64 {
        self.inner().guards.get()
    }

    /// How many entries the library has loaded so far.
    pub(crate) fn loads(&self) -> u64 {
        self.inner().loads.get()
    }

    /// The word of a frame of the arena.
    #[track_caller]
    pub(crate) fn word(&self, frame: Pfn) -> &FrameWord<L> {
        let frame = self.table.frame(frame).unwrap_or_else(|| panic!("{frame:?} is not memory"));
        // SAFETY: tests count for the users that they play, and take back what they gave.
        unsafe { frame.word() }
    }

    /// A step of a lockless walk: an entry is loaded or a frame looked up. What may come in between there must be able to take
    /// the mm lock.
    fn walk_step(&self) {
        let inner = self.inner();
        if inner.walks.get() > 0 {
            inner.guarded_steps.set(inner.guarded_steps.get() + 1);
            inner.longest_guard.set(inner.longest_guard.get().max(inner.guarded_steps.get()));
            inner.walk_hook.reach();
        }
    }

    /// Runs `work`; before step `at` of the lockless walks in it, `race` runs. Whether the walks had that many steps.
    pub(crate) fn race_at<R>(&self, at: u64, race: impl FnOnce(), work: impl FnOnce() -> R) -> (R, bool) {
        self.inner().walk_hook.during(at, race, work)
    }

    /// Runs `work`; at its first flush `race` runs, before any CPU has acknowledged.
    pub(crate) fn before_acknowledgement<R>(&self, race: impl FnOnce(), work: impl FnOnce() -> R) -> R {
        let (result, fired) = self.inner().flush_hook.during(0, race, work);
        assert!(fired, "nothing was flushed");
        result
    }

    /// Runs `work`; before its first compare-and-exchange on an entry `race` runs.
    pub(crate) fn before_exchange<R>(&self, race: impl FnOnce(), work: impl FnOnce() -> R) -> R {
        let (result, fired) = self.inner().exchange_hook.during(0, race, work);
        assert!(fired, "no entry was exchanged");
        result
    }

    /// Runs `work`; before its compare-and-exchange number `at` (from 0) on an entry `race` runs. Whether there were that many.
    pub(crate) fn at_exchange<R>(&self, at: u64, race: impl FnOnce(), work: impl FnOnce() -> R) -> (R, bool) {
        self.inner().exchange_hook.during(at, race, work)
    }

    /// Runs `work`; before it looks up a frame for the `at`-th time (from 0) `race` runs.
    pub(crate) fn before_lookup<R>(&self, at: u64, race: impl FnOnce(), work: impl FnOnce() -> R) -> R {
        let (result, fired) = self.inner().lookup_hook.during(at, race, work);
        assert!(fired, "no frame was looked up");
        result
    }

    /// Runs `work`; while it waits for walkers for the first time, `walkers` runs: what they do before they leave.
    pub(crate) fn during_grace_period<R>(&self, walkers: impl FnOnce(), work: impl FnOnce() -> R) -> R {
        let (result, fired) = self.inner().grace_hook.during(0, walkers, work);
        assert!(fired, "no walker was waited for");
        result
    }

    /// The most steps that any walk took without leaving the read side.
    pub(crate) fn longest_guard(&self) -> u64 {
        self.inner().longest_guard.get()
    }

    /// From now on there is no zero frame.
    pub(crate) fn without_zero_frame(&self) {
        self.inner().has_zero_frame.set(false);
    }

    /// The library has caught `count` releases too many, of the test's own making.
    pub(crate) fn expect_bugs(&self, count: u64) {
        self.inner().expected_bugs.set(count);
        self.inner().expected_surplus.set(count);
    }

    /// So many pages were released that were not acquired as they were released, of the test's own making.
    pub(crate) fn expect_surplus(&self, count: u64) {
        self.inner().expected_surplus.set(count);
    }

    /// An empty process with 4 levels.
    pub(crate) fn process(&self) -> Process<'_, L> {
        self.process_of(Levels::Four)
    }

    /// An empty process.
    pub(crate) fn process_with(&self, options: SpaceOptions) -> Process<'_, L> {
        // A limit of all there is would count none.
        self.process_within(u64::MAX - 1, options)
    }

    /// An empty process that may have so many pages pinned.
    pub(crate) fn process_within(&self, limit: u64, options: SpaceOptions) -> Process<'_, L> {
        UserSpace::with_budget(self, options, Arc::new(PinLimit::new(limit))).unwrap()
    }

    /// An empty process with `levels`.
    pub(crate) fn process_of(&self, levels: Levels) -> Process<'_, L> {
        self.process_with(SpaceOptions::without_kernel_half(levels))
    }

    /// A process with `pages` readable and writable pages at [`A`], each holding a number from `first` on.
    pub(crate) fn populated(&self, pages: u64, first: u8) -> Process<'_, L> {
        let process = self.process();
        process.map(A, pages * PAGE, RW).unwrap();
        self.put_pages(&process, A, pages, first);
        process
    }

    /// Pins with the form that starts without locks.
    pub(crate) fn pin<'p, 'm, X: pin::PinAccess>(
        &self,
        process: &'p Process<'m, L>,
        address: u64,
        length: u64,
    ) -> Result<Pins<'p, 'm, L, X>, PinError> {
        pin_user_pages_fast(process, X::default(), range(process, address, length), PinFlags::empty(), runs(64))
    }

    /// Pins under the locks.
    pub(crate) fn pin_slow<'p, 'm, X: pin::PinAccess>(
        &self,
        process: &'p Process<'m, L>,
        address: u64,
        length: u64,
        flags: PinFlags,
    ) -> Result<Pins<'p, 'm, L, X>, PinError> {
        pin_user_pages(process, X::default(), range(process, address, length), flags, runs(64))
    }

    /// References, without locks if possible.
    pub(crate) fn reference<'p, 'm, X: pin::PinAccess>(
        &self,
        process: &'p Process<'m, L>,
        address: u64,
        length: u64,
    ) -> Result<Gets<'p, 'm, L>, PinError> {
        let range = range(process, address, length);
        pin::get_user_pages_fast(process, X::default(), range, PinFlags::empty(), runs(64))
    }
}

/// Levels of tables, by number: not asked from the library.
pub(crate) fn depth(levels: Levels) -> u32 {
    if levels == Levels::Four { 4 } else { 5 }
}

/// A checked range.
#[track_caller]
pub(crate) fn range<L: Layout>(process: &Process<'_, L>, address: u64, length: u64) -> UserRange {
    process.range(address, length).unwrap()
}

/// An empty buffer for `count` runs.
pub(crate) fn runs(count: usize) -> Vec<PhysRun> {
    vec![PhysRun::default(); count]
}

// SAFETY: forwards to the flat table.
unsafe impl<L: Layout> FrameTable for Machine<L> {
    type Layout = L;

    fn frame(&self, frame: Pfn) -> Option<&PageFrame<L>> {
        // Between the load of an entry and the count of its frame.
        self.walk_step();
        self.inner().lookup_hook.reach();
        self.table.frame(frame)
    }

    fn run(&self, first: Pfn, count: u64) -> Option<&[PageFrame<L>]> {
        self.table.run(first, count)
    }

    fn for_each_span(&self, look: &mut dyn FnMut(Pfn, &[PageFrame<L>])) -> bool {
        self.table.for_each_span(look)
    }
}

// SAFETY: one machine is every part.
unsafe impl<L: Layout> Env for Machine<L> {
    type PhysMap = Self;
    type Frames = Self;
    type Source = Self;
    type ReadSide = Self;
    type Shootdown = Self;
    type Relax = Deadlock;
    type Extras = MachineExtras;

    fn phys_map(&self) -> &Self {
        self
    }
    fn frames(&self) -> &Self {
        self
    }
    fn source(&self) -> &Self {
        self
    }
    fn read_side(&self) -> &Self {
        self
    }
    fn shootdown(&self) -> &Self {
        self
    }
    fn extras(&self) -> &MachineExtras {
        &self.extras
    }
}

impl<L: Layout> Drop for Machine<L> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check_balance();
        }
        // SAFETY: made by `Box::into_raw` in `new`; the table that borrows it is not used again.
        drop(unsafe { Box::from_raw(self.words) });
    }
}
