//! Two that wait for each other: a writer of the mm lock for the note of a reader who owns an entry, and that reader for the answer
//! of the writer's CPU to its flush. Lock, slots and shootdown are the library's.

use std::cell::RefCell;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::{thread, thread_local};
use pagepin::model::{self, MmLock, Safeguard};
use pagepin::{
    CpuCounters, CpuReaders, Cpus, CurrentCpu, Extras, FlushRange, IpiShootdown, PageAddr, Shootdown, SwitchMm,
};
use spin::relax::RelaxStrategy;

use super::checker::{Bound, CPUS, UNORDERED};
use super::kernel::{ThisCpu, on_cpu};
use super::processor::{MINE, NO_END, Processor, translate};
use super::runner::Model;

pub(crate) const MODELS: &[Model] = &[Model {
    name: "writer x noted owner x shootdown",
    bound: Bound::AtMost(2),
    body: writer_and_owner,
    twins: &[
        (Safeguard::WriterWaitsForNotes, &[UNORDERED]),
        (Safeguard::NoteFence, &[UNORDERED]),
        (Safeguard::WriterRelaxes, &[NO_END]),
        (Safeguard::WaitForAnswers, &[UNORDERED]),
        (Safeguard::AnswerOrdering, &[UNORDERED]),
    ],
}];

/// What the one entry says: a frame, or this.
const GONE: u64 = 2;

thread_local! {
    static WORLD: RefCell<Option<Arc<World>>> = RefCell::new(None);
}

/// Waits as a kernel does with interrupts off: flushes are answered.
struct Answer;

impl RelaxStrategy for Answer {
    fn relax() {
        if let Some(world) = WORLD.with(|world| world.borrow().clone()) {
            world.smp.answer();
        }
        thread::yield_now();
    }
}

struct Machine;

// SAFETY: each thread of a model has a number of its own.
unsafe impl CurrentCpu for Machine {
    fn current_cpu(&self) -> usize {
        ThisCpu.current_cpu()
    }
}

// SAFETY: each thread of a model answers again and again until the others are done.
unsafe impl Cpus for Machine {
    fn interrupt(&self, _: usize) {}

    fn relax(&self) {
        thread::yield_now();
    }
}

/// What the mm lock is for, whose users loom watches.
struct Vmas(UnsafeCell<bool>);

// SAFETY: loom reports two accesses that are not ordered.
unsafe impl Send for Vmas {}
// SAFETY: as above.
unsafe impl Sync for Vmas {}

type Slots = Extras<(), CpuCounters<ThisCpu, CPUS>, (), (), CpuReaders<ThisCpu, CPUS>>;

/// An mm with one VMA of one page. Who holds a frame alone writes it.
struct World {
    slots: Slots,
    vmas: MmLock<Vmas, Answer>,
    smp: IpiShootdown<Machine, CPUS, Processor>,
    entry: model::AtomicU64,
    frames: [UnsafeCell<()>; 2],
    /// CPUs that are done.
    over: AtomicU64,
}

// SAFETY: loom reports uses of a frame that are not ordered.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            slots: Extras::new().counters(CpuCounters::new(ThisCpu)).mm_readers(CpuReaders::new(ThisCpu)),
            vmas: MmLock::new(Vmas(UnsafeCell::new(true))),
            smp: IpiShootdown::with_local(Machine, Processor),
            entry: model::AtomicU64::new(0),
            frames: [UnsafeCell::new(()), UnsafeCell::new(())],
            over: AtomicU64::new(0),
        })
    }

    /// User code reads its page, if it is there.
    fn access(&self) {
        let walk = || Some(self.entry.load(Ordering::Relaxed)).filter(|entry| *entry != GONE);
        if let Some(frame) = translate(walk) {
            // SAFETY: loom reports a write that is not ordered with this read.
            self.frames[frame as usize].with(|_| ());
        }
    }

    /// As a fault that moves the page to another frame: with the lock shared, waiting for the other CPUs' answers.
    fn own(&self) {
        let section = self.vmas.read(&self.slots).expect("in no section");
        // SAFETY: loom reports a write that is not ordered with this read.
        if section.0.with(|mapped| unsafe { *mapped }) {
            self.entry.store(1, Ordering::Relaxed);
            self.flush();
            // SAFETY: loom reports a use that is not ordered with this one.
            self.frames[0].with_mut(|_| ());
        }
    }

    /// As unmap: takes the VMA out, and its page.
    fn unmap(&self) {
        let section = self.vmas.write(&self.slots).expect("in no section");
        // SAFETY: loom reports an access that is not ordered with this write.
        section.0.with_mut(|mapped| unsafe { *mapped = false });
        let had = self.entry.load(Ordering::Relaxed);
        self.entry.store(GONE, Ordering::Relaxed);
        self.flush();
        // SAFETY: loom reports a use that is not ordered with this one.
        self.frames[had as usize].with_mut(|_| ());
    }

    fn flush(&self) {
        self.smp.flush(MINE, FlushRange::Leaves { first: PageAddr::containing(0), pages: 1 });
    }

    /// Runs `act` as a thread of the process, and takes interrupts until both are done.
    fn run(self: &Arc<Self>, act: fn(&Self)) {
        WORLD.with(|world| *world.borrow_mut() = Some(Arc::clone(self)));
        self.smp.join();
        // SAFETY: this root is a number.
        unsafe { self.smp.switch_mm(MINE) };
        self.access();
        act(self);
        self.over.fetch_add(1, Ordering::Relaxed);
        while self.over.load(Ordering::Relaxed) != 2 {
            Answer::relax();
        }
        WORLD.with(|world| world.borrow_mut().take());
    }
}

fn writer_and_owner() {
    let world = World::new();
    let writer = on_cpu(1, {
        let world = Arc::clone(&world);
        move || world.run(World::unmap)
    });
    world.run(World::own);
    writer.join().expect("no panic");
    assert_eq!(world.entry.load(Ordering::Relaxed), GONE, "whoever came last");
}
