//! A kernel for a checker: frames whose words, entries and bytes are the checker's atomics, and CPUs with TLBs.
//!
//! Of each table only the first entries are kept; all others read as empty. How many those are, and how many CPUs there
//! are, the `checker` of the test says. Whether a frame is allocated is a cell that the checker watches, as far as it
//! can: whoever hands the frame out or takes it back writes it, whoever uses the frame reads it.

mod cpus;
mod elsewhere;
mod memory;

use std::cell::Cell;
use std::sync::Arc;

use pagepin::Access;
use pagepin::fault::{Fault, FaultError};
use pagepin::frame::Snapshot;
use pagepin::space::UserSpace;
use pagepin::{
    AddressSpace, CounterValues, CpuCounters, CurrentCpu, Entry, EntryAddr, Env, EpochReadSide, Extras, FrameSource,
    LeafSize, Pfn, PhysMap, ReadSide,
};
use spin::relax::RelaxStrategy;

pub(crate) use crate::checker::Tables;
use crate::checker::thread::{self, JoinHandle};
use crate::checker::{CPUS, ENTRIES, MOST_FAULTS, WORDS, thread_local};
use crate::kit::{self, Attempt, Plug, Root};
pub(crate) use cpus::{Cpus, InterruptsOff};
pub(crate) use elsewhere::FILE;
use elsewhere::{File, Slots};
pub(crate) use memory::Memory;

pub(crate) const PAGE: u64 = 4096;

pub(crate) type Epoch = EpochReadSide<ThisCpu, CPUS>;

thread_local! {
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

/// What a CPU does while it waits: others run.
pub(crate) struct Yield;

impl RelaxStrategy for Yield {
    fn relax() {
        thread::yield_now();
    }
}

/// A read side that a model can be run with.
pub(crate) trait Side: ReadSide + Send + Sync + Sized + 'static {
    fn new(cpus: &Arc<Cpus>) -> Self;
}

impl Side for Epoch {
    fn new(_: &Arc<Cpus>) -> Self {
        EpochReadSide::new(ThisCpu, thread::yield_now)
    }
}

/// Statistics by CPU, so that they neither order the threads nor multiply the interleavings.
type Parts = Extras<(), CpuCounters<ThisCpu, CPUS>, (), (), (), Slots, File>;

pub(crate) struct Kernel<R> {
    pub(crate) memory: Memory,
    pub(crate) cpus: Arc<Cpus>,
    read_side: R,
    extras: Parts,
}

// SAFETY: one memory is the map, the table and the source.
unsafe impl<R: Side> Env for Kernel<R> {
    type PhysMap = Memory;
    type Frames = Memory;
    type Source = Memory;
    type ReadSide = R;
    type Shootdown = Cpus;
    type Relax = Yield;
    type Extras = Parts;

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
    fn extras(&self) -> &Parts {
        &self.extras
    }
}

/// One execution of a model: makes a kernel with `frames` frames, runs `model` on CPU 0, and checks that everything was given back.
pub(crate) fn with_kernel<R: Side>(frames: u32, tables: Tables, model: impl FnOnce(&'static Kernel<R>)) {
    let cpus = Arc::new(Cpus::default());
    let extras = Extras::new().counters(CpuCounters::new(ThisCpu));
    let extras = extras.tokens(Slots::default()).objects(File::default());
    let kernel = Kernel { memory: Memory::new(frames, tables), read_side: R::new(&cpus), cpus, extras };
    // The checker's threads ask for 'static; all have been joined when the model returns, and the box is taken back.
    let kernel = Box::into_raw(Box::new(kernel));
    // SAFETY: just made, and freed only below.
    let shared: &'static Kernel<R> = unsafe { &*kernel };
    model(shared);
    kit::check_balance(shared, (0, 0));
    // SAFETY: made by `into_raw` above; the model has dropped its spaces and joined its threads.
    drop(unsafe { Box::from_raw(kernel) });
}

/// From now on this thread is `cpu`. Which it was.
pub(crate) fn become_cpu(cpu: usize) -> usize {
    CPU.with(|this| this.replace(cpu))
}

/// Runs `body` as thread `cpu`.
pub(crate) fn on_cpu<T: Send + 'static>(cpu: usize, body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(move || {
        become_cpu(cpu);
        body()
    })
}

impl<R: Side> Kernel<R> {
    /// Runs `body` as thread `cpu`.
    pub(crate) fn on_cpu<T: Send + 'static>(
        &'static self,
        cpu: usize,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        on_cpu(cpu, body)
    }

    /// User code accesses `page` through this CPU's TLB, with as many faults as it takes.
    pub(crate) fn access<T>(
        &self,
        space: &UserSpace<&'static Self>,
        page: u64,
        access: Access,
        touch: impl Fn(Pfn) -> T,
    ) -> Result<T, FaultError> {
        let attempt = || {
            let cpu = CPU.with(Cell::get);
            let walk = || self.memory.walk_to(space.root(), page, access);
            let done = self.cpus.translate(cpu, space.root(), page, access, walk, &touch);
            let fault = Fault { address: page * PAGE, access, key_denied: false, malformed_table: false };
            done.map_or(Attempt::Fault(fault), Attempt::Done)
        };
        kit::access(MOST_FAULTS, attempt, |fault| space.fault(fault))
    }

    /// The frame that `page` maps now.
    pub(crate) fn mapped(&self, space: &UserSpace<&'static Self>, page: u64) -> Option<Pfn> {
        self.entry(space, page).map(|entry| entry.leaf_frame(LeafSize::Size4KiB))
    }

    /// The entry of `page`, if it has a frame, be it out of hardware's reach.
    fn entry(&self, space: &UserSpace<&'static Self>, page: u64) -> Option<Entry> {
        self.memory.walk(space.root(), page).filter(|entry| entry.has_frame())
    }

    /// See [`kit::audit`]: over all address spaces there are, whose entries and `pinned`, frame by frame, explain every
    /// reference, with those of slots and of the file.
    pub(crate) fn audit(&self, spaces: &[&UserSpace<&'static Self>], pinned: &[Pfn]) {
        let roots: Vec<_> =
            spaces.iter().map(|space| Root { table: space.root(), levels: space.mm().levels() }).collect();
        let mut held = kit::Held::new();
        for frame in pinned {
            let counts = held.entry(*frame).or_default();
            *counts = (counts.0 + 1, counts.1 + 1);
        }
        for frame in self.kept_elsewhere() {
            held.entry(frame).or_default().0 += 1;
        }
        kit::audit(self, &roots, &held);
    }
}

impl<R: Side> Plug for Kernel<R> {
    fn entries(&self, table: Pfn, places: u64) -> Vec<(EntryAddr, u64)> {
        // SAFETY: the caller is the only thread.
        let bits = |at| unsafe { self.memory.load_entry(at) }.bits();
        let kept = (0..places.min(ENTRIES as u64)).map(|index| EntryAddr::new(table, index));
        kept.map(|at| (at, bits(at))).filter(|(_, bits)| *bits != 0).collect()
    }

    fn snapshot(&self, frame: Pfn) -> Snapshot {
        self.memory.snapshot(frame)
    }

    fn frames(&self) -> Vec<Pfn> {
        self.memory.frames()
    }

    fn allocated(&self) -> Vec<Pfn> {
        self.memory.allocated()
    }

    fn zero_frame(&self) -> Option<(Pfn, bool)> {
        self.memory.zero_frame().map(|zero| (zero, (0..WORDS).all(|word| self.memory.load(zero, word) == 0)))
    }

    fn counters(&self) -> CounterValues {
        self.statistics()
    }
}
