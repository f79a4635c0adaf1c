//! A kernel for the models: a dozen frames whose words, entries and bytes are loom's atomics, three CPUs with TLBs.
//!
//! Upper tables have one entry that counts (0) and lowest tables two (pages 1 and 2); all others read as empty.
//! Whether a frame is allocated is a loom `UnsafeCell`: whoever hands it out or takes it back writes it, whoever uses
//! the frame reads it, and loom reports any two of these that no synchronisation orders.

mod cpus;
mod memory;

use std::cell::Cell;
use std::sync::Arc;

use loom::thread::JoinHandle;
use pagepin::fault::{Fault, FaultAccess};
use pagepin::pin::{
    Access, PhysRun, PinFlags, PinnedPages, RawPins, Read, get_user_pages_fast_only, pin_user_pages_fast,
    pin_user_pages_fast_only, unpin_user_pages,
};
use pagepin::{
    Counters, CurrentCpu, Entry, Env, EpochReadSide, LeafSize, Pfn, ReadSide, Rights, SpaceOptions, UserRange,
    UserSpace,
};
use spin::relax::Spin;

pub(crate) use cpus::{Cpus, InterruptsOff};
pub(crate) use memory::{Memory, Tables};

pub(crate) const CPUS: usize = 3;
pub(crate) const PAGE: u64 = 4096;

pub(crate) type Space<R> = Arc<UserSpace<'static, Kernel<R>>>;
pub(crate) type Pins<A> = RawPins<A, [PhysRun; 2]>;
pub(crate) type Epoch = EpochReadSide<ThisCpu, CPUS>;

loom::thread_local! {
    static CPU: Cell<usize> = Cell::new(0);
}

#[derive(Debug)]
pub(crate) struct ThisCpu;

// SAFETY: a thread of a model has its number from its start on, and no two share one.
unsafe impl CurrentCpu for ThisCpu {
    fn current_cpu(&self) -> usize {
        CPU.with(Cell::get)
    }
}

/// A read side that a model can be run with.
pub(crate) trait Side: ReadSide + Send + Sync + Sized + 'static {
    fn new(cpus: &Arc<Cpus>) -> Self;
}

impl Side for Epoch {
    fn new(_: &Arc<Cpus>) -> Self {
        EpochReadSide::new(ThisCpu, loom::thread::yield_now)
    }
}

pub(crate) struct Kernel<R> {
    pub(crate) memory: Memory,
    pub(crate) cpus: Arc<Cpus>,
    read_side: R,
    /// One for each CPU, so that statistics neither order the threads nor multiply the interleavings.
    counters: [Counters; CPUS],
}

impl<R: Side> Env for Kernel<R> {
    type PhysMap = Memory;
    type Frames = Memory;
    type Source = Memory;
    type ReadSide = R;
    type Shootdown = Cpus;
    type Relax = Spin;

    fn phys_map(&self) -> &Memory {
        &self.memory
    }
    fn frames(&self) -> &Memory {
        &self.memory
    }
    fn source(&self) -> &Memory {
        &self.memory
    }
    fn read_side(&self) -> &R {
        &self.read_side
    }
    fn shootdown(&self) -> &Cpus {
        &self.cpus
    }
    fn counters(&self) -> &Counters {
        &self.counters[CPU.with(Cell::get)]
    }
}

/// One execution of a model: makes a kernel with `frames` frames, runs `model` on CPU 0, and checks that everything was given back.
pub(crate) fn with_kernel<R: Side>(frames: u32, tables: Tables, model: impl FnOnce(&'static Kernel<R>)) {
    let cpus = Arc::new(Cpus::default());
    let counters = core::array::from_fn(|_| Counters::new());
    let kernel = Kernel { memory: Memory::new(frames, tables), read_side: R::new(&cpus), cpus, counters };
    // Loom's threads ask for 'static; all have been joined when the model returns, and the box is taken back.
    let kernel = Box::into_raw(Box::new(kernel));
    // SAFETY: just made, and freed only below.
    let shared: &'static Kernel<R> = unsafe { &*kernel };
    model(shared);
    shared.check_balance();
    // SAFETY: made by `into_raw` above; the model has dropped its spaces and joined its threads.
    drop(unsafe { Box::from_raw(kernel) });
}

impl<R: Side> Kernel<R> {
    /// An address space with the pages 1 and 2, of which the first holds `value`.
    pub(crate) fn space(&'static self, value: u64) -> Space<R> {
        let space = UserSpace::new(self, SpaceOptions::default()).expect("memory for a root");
        space.map(PAGE, 2 * PAGE, Rights::READ | Rights::WRITE).expect("an empty space");
        self.write(&space, 1, value);
        Arc::new(space)
    }

    /// Runs `body` as thread `cpu`.
    pub(crate) fn on_cpu<T: 'static>(&'static self, cpu: usize, body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        loom::thread::spawn(move || {
            CPU.with(|this| this.set(cpu));
            body()
        })
    }

    /// User code loads from `page`, through this CPU's TLB.
    pub(crate) fn read(&self, space: &UserSpace<'_, Self>, page: u64) -> u64 {
        self.access(space, page, FaultAccess::Read, |frame| self.memory.load(frame))
    }

    /// User code stores to `page`, through this CPU's TLB.
    pub(crate) fn write(&self, space: &UserSpace<'_, Self>, page: u64, value: u64) {
        self.access(space, page, FaultAccess::Write, |frame| self.memory.store(frame, value));
    }

    fn access<T>(&self, space: &UserSpace<'_, Self>, page: u64, access: FaultAccess, touch: impl Fn(Pfn) -> T) -> T {
        for _ in 0..4 {
            let cpu = CPU.with(Cell::get);
            let walk = || self.memory.walk(space.root(), page);
            if let Some(done) = self.cpus.translate(cpu, space.root(), page, access, walk, &touch) {
                return done;
            }
            let fault = Fault { address: page * PAGE, access, key_denied: false, malformed_table: false };
            space.fault(fault).expect("the page can be faulted in");
        }
        panic!("a fault was resolved and came back");
    }

    /// The frame that `page` maps now.
    pub(crate) fn mapped(&self, space: &UserSpace<'_, Self>, page: u64) -> Option<Pfn> {
        self.entry(space, page).map(|entry| entry.leaf_frame(LeafSize::Size4KiB))
    }

    pub(crate) fn entry(&self, space: &UserSpace<'_, Self>, page: u64) -> Option<Entry> {
        self.memory.walk(space.root(), page).filter(|entry| entry.is_present())
    }

    /// Pins the first `pages` pages, or as many as there are, without locks.
    pub(crate) fn pin_fast_only<A: Access>(&self, space: &UserSpace<'_, Self>, pages: u64) -> Option<Pins<A>> {
        let (range, runs) = (range(pages), [PhysRun::default(); 2]);
        pin_user_pages_fast_only(self, space, range, PinFlags::empty(), runs).ok().map(PinnedPages::into_raw)
    }

    /// Pins the first `pages` pages, under the lock if need be.
    pub(crate) fn pin_fast<A: Access>(&self, space: &UserSpace<'_, Self>, pages: u64) -> Option<Pins<A>> {
        let (range, runs) = (range(pages), [PhysRun::default(); 2]);
        pin_user_pages_fast(self, space, range, PinFlags::empty(), runs).ok().map(PinnedPages::into_raw)
    }

    pub(crate) fn unpin<A: Access>(&self, pins: Option<Pins<A>>) {
        if let Some(pins) = pins {
            // SAFETY: they were taken through this kernel, of which there is one.
            unsafe { unpin_user_pages(self, pins) };
        }
    }

    /// What page 1 holds, through a reference that is taken and given back without locks.
    pub(crate) fn get_fast_only_and_load(&self, space: &UserSpace<'_, Self>) -> Option<u64> {
        let runs = [PhysRun::default(); 1];
        let got = get_user_pages_fast_only::<Read, _, _, _>(self, space, range(1), PinFlags::empty(), runs).ok()?;
        Some(self.memory.load(got.runs()[0].first()))
    }

    /// INV-1 and INV-2 over all address spaces there are, and that their entries and `pins` explain every reference.
    pub(crate) fn audit(&self, spaces: &[&UserSpace<'_, Self>], pinned: Option<Pfn>) {
        for (space, page) in spaces.iter().flat_map(|space| [(space, 1), (space, 2)]) {
            let Some(entry) = self.entry(space, page) else { continue };
            let frame = entry.leaf_frame(LeafSize::Size4KiB);
            let mappers = spaces.iter().filter(|other| self.mapped(other, page) == Some(frame)).count();
            let word = self.memory.snapshot(frame);
            let pins = u64::from(pinned == Some(frame));
            assert!(
                word.exclusive || !entry.is_writable(),
                "INV-1: a writable entry maps a frame that is not exclusive"
            );
            assert!(!word.exclusive || mappers == 1, "INV-2: an exclusive frame is mapped by {mappers} spaces");
            assert_eq!((word.refs, word.pins), (mappers as u64 + pins, pins), "references without a holder");
        }
    }

    fn check_balance(&self) {
        assert!(self.memory.all_free(), "a frame was not given back");
        let sum =
            |value: fn(pagepin::CounterValues) -> u64| self.counters.iter().map(|c| value(c.values())).sum::<u64>();
        assert_eq!(sum(|v| v.pins_acquired), sum(|v| v.pins_released), "INV-10: pins");
        assert_eq!(sum(|v| v.gets_acquired), sum(|v| v.gets_released), "INV-10: gets");
        assert_eq!(sum(|v| v.bugs_caught), 0, "a count was caught below zero");
    }
}

pub(crate) fn range(pages: u64) -> UserRange {
    UserRange::new(pagepin::Levels::Four, PAGE, pages * PAGE).expect("user pages")
}

pub(crate) fn first_frame<A: Access>(pins: &Pins<A>) -> Pfn {
    pins.runs()[0].first()
}
