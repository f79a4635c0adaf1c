//! [`IpiShootdown`] by itself: CPUs that switch roots, use translations and answer, and flushes between them. The other models
//! have CPUs that interrupt each other by locks in its place.
//!
//! A CPU's TLB is its thread's own, and its walk is a relaxed load: what is ordered is so by the shootdown alone.

use std::cell::RefCell;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::{thread, thread_local};
use pagepin::model::{self, Safeguard};
use pagepin::{Cpus, CurrentCpu, FlushRange, IpiShootdown, LocalCpu, PageAddr, ReadSide, Shootdown, SwitchMm};

use super::checker::{Bound, UNORDERED};
use super::kernel::{ThisCpu, become_cpu, on_cpu};
use super::processor::{MINE, NO_END, Processor, translate};
use super::runner::Model;

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "shootdown: flush x switch",
        bound: Bound::AtMost(3),
        body: flush_and_switch,
        twins: &[
            (Safeguard::SwitchFence, &[UNORDERED]),
            (Safeguard::ShootdownFence, &[UNORDERED]),
            (Safeguard::ChangingUsesAll, &[UNORDERED]),
            (Safeguard::WaitForAnswers, &[UNORDERED]),
            (Safeguard::AnswerOrdering, &[UNORDERED]),
        ],
    },
    Model {
        name: "shootdown: flush x coming back",
        bound: Bound::AtMost(3),
        body: flush_and_come_back,
        twins: &[(Safeguard::LazyIsTold, &[UNORDERED])],
    },
    Model {
        name: "shootdown: flush x flush",
        bound: Bound::AtMost(2),
        body: flush_and_flush,
        twins: &[(Safeguard::AnswerWhileWaiting, &[NO_END]), (Safeguard::WaitForAnswers, &[UNORDERED])],
    },
    Model {
        name: "shootdown: two flushes x one CPU",
        bound: Bound::AtMost(3),
        body: two_flushes,
        twins: &[(Safeguard::CallsAreTaken, &[NO_END])],
    },
    Model {
        name: "shootdown: walk x wait for walks",
        bound: Bound::AtMost(3),
        body: walk_and_wait,
        twins: &[(Safeguard::WaitForAnswers, &[UNORDERED]), (Safeguard::AnswerOrdering, &[UNORDERED])],
    },
    Model {
        name: "shootdown: end of an mm x lazy CPU",
        bound: Bound::AtMost(3),
        body: end_and_lazy,
        twins: &[(Safeguard::WaitForAnswers, &["runs in an address space", UNORDERED])],
    },
];

/// What the mappings name first, and then.
const OLD: usize = 0;
const NEW: usize = 1;

thread_local! {
    /// Where interrupts of a CPU without a thread are handled.
    static HANDLER: RefCell<Option<Arc<World>>> = RefCell::new(None);
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
    fn interrupt(&self, cpu: usize) {
        // Of a CPU without a thread, only the handler runs: here.
        if let Some(world) = HANDLER.with(|world| world.borrow().clone()) {
            let this = become_cpu(cpu);
            let idle = world.idle.lock().expect("poisoned");
            world.smp.answer();
            drop(idle);
            become_cpu(this);
        }
    }

    fn relax(&self) {
        thread::yield_now();
    }
}

/// An mm with one page, and the frames that it had and gets. Who holds a frame alone writes it.
struct World {
    smp: IpiShootdown<Machine, 3, Processor>,
    entry: model::AtomicU64,
    frames: [UnsafeCell<()>; 2],
    /// Held by the handler of a CPU without a thread, which takes one interrupt at a time.
    idle: Mutex<()>,
    /// CPUs whose flushes are over.
    over: AtomicU64,
}

// SAFETY: loom reports uses of a frame that are not ordered.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

impl World {
    /// With CPU 0, which calls, and those up to `cpus` in it.
    fn new(cpus: usize) -> Arc<Self> {
        let world = Self {
            smp: IpiShootdown::with_local(Machine, Processor),
            entry: model::AtomicU64::new(OLD as u64),
            frames: [UnsafeCell::new(()), UnsafeCell::new(())],
            idle: Mutex::new(()),
            over: AtomicU64::new(0),
        };
        for cpu in (0..cpus).rev() {
            become_cpu(cpu);
            world.smp.join();
        }
        Arc::new(world)
    }

    fn on_cpu(self: &Arc<Self>, cpu: usize, body: fn(&Self)) -> thread::JoinHandle<()> {
        let world = Arc::clone(self);
        on_cpu(cpu, move || body(&world))
    }

    fn switch(&self) {
        // SAFETY: this root is a number.
        unsafe { self.smp.switch_mm(MINE) };
    }

    /// User code reads its page, if this CPU is still where it was.
    fn access(&self) {
        let frame = translate(|| Some(self.entry.load(Ordering::Relaxed))).expect("a frame");
        // SAFETY: loom reports a write that is not ordered with this read.
        self.frames[frame as usize].with(|_| ());
    }

    /// Maps the page to the other frame, and has the old one alone.
    fn replace(&self) {
        self.entry.store(NEW as u64, Ordering::Relaxed);
        self.smp.flush(MINE, FlushRange::Leaves { first: PageAddr::containing(0), pages: 1 });
        // SAFETY: loom reports a use that is not ordered with this one.
        self.frames[OLD].with_mut(|_| ());
    }

    /// Takes interrupts until so many CPUs have done what they wanted.
    fn answer_until(&self, over: u64) {
        while self.over.load(Ordering::Relaxed) != over {
            self.smp.answer();
            thread::yield_now();
        }
    }

    fn done(&self) {
        self.over.fetch_add(1, Ordering::Relaxed);
    }
}

fn flush_and_switch() {
    let world = World::new(2);
    let user = world.on_cpu(1, |world| {
        world.switch();
        world.access();
        world.smp.answer();
        world.access();
        world.answer_until(1);
    });
    world.replace();
    world.done();
    user.join().expect("no panic");
}

fn flush_and_come_back() {
    let world = World::new(2);
    let user = world.on_cpu(1, |world| {
        world.switch();
        world.access();
        world.smp.enter_lazy_tlb();
        world.smp.answer();
        world.switch();
        world.access();
        world.answer_until(1);
    });
    world.replace();
    world.done();
    user.join().expect("no panic");
}

/// Two CPUs in one mm flush at the same time: each waits for the other.
fn flush_and_flush() {
    let world = World::new(2);
    let other = world.on_cpu(1, |world| {
        world.switch();
        world.access();
        world.smp.flush(MINE, FlushRange::Everything);
        world.done();
        world.access();
        world.answer_until(2);
    });
    world.switch();
    world.access();
    world.replace();
    world.done();
    world.answer_until(2);
    other.join().expect("no panic");
}

/// Two calls in the mailbox of an idle CPU. The callers are in no mm, so nobody calls them.
fn two_flushes() {
    let world = World::new(3);
    let flush = |world: &Arc<World>| {
        HANDLER.with(|handler| *handler.borrow_mut() = Some(Arc::clone(world)));
        world.smp.flush(MINE, FlushRange::Everything);
        HANDLER.with(|handler| handler.borrow_mut().take());
    };
    become_cpu(2);
    world.switch();
    become_cpu(0);
    let other = on_cpu(1, {
        let world = Arc::clone(&world);
        move || flush(&world)
    });
    flush(&world);
    other.join().expect("no panic");
}

/// What was unlinked before the wait is in no walk after it, though the walker answers in the middle of one.
fn walk_and_wait() {
    let world = World::new(2);
    let walker = world.on_cpu(1, |world| {
        let walk = world.smp.enter();
        let frame = world.entry.load(Ordering::Acquire) as usize;
        world.smp.answer();
        // SAFETY: loom reports a write that is not ordered with this read.
        world.frames[frame].with(|_| ());
        drop(walk);
        world.answer_until(1);
    });
    world.entry.store(NEW as u64, Ordering::Release);
    world.smp.synchronize();
    // SAFETY: loom reports a use that is not ordered with this one.
    world.frames[OLD].with_mut(|_| ());
    world.done();
    walker.join().expect("no panic");
}

/// An mm ends while a CPU that has left it may have it loaded: its root is then nobody's.
fn end_and_lazy() {
    let world = World::new(2);
    let left = Arc::new(AtomicBool::new(false));
    let user = on_cpu(1, {
        let (world, left) = (Arc::clone(&world), Arc::clone(&left));
        move || {
            world.switch();
            world.access();
            world.smp.enter_lazy_tlb();
            // As the last reference to an address space does.
            left.store(true, Ordering::Release);
            while world.over.load(Ordering::Relaxed) != 1 {
                if Processor.loaded_root() == MINE {
                    // A processor walks the tables of its root whenever it likes.
                    // SAFETY: loom reports a write that is not ordered with this read.
                    world.frames[OLD].with(|_| ());
                }
                world.smp.answer();
                thread::yield_now();
            }
        }
    });
    while !left.load(Ordering::Acquire) {
        thread::yield_now();
    }
    world.smp.leave_mm(MINE);
    // SAFETY: loom reports a use that is not ordered with this one.
    world.frames[OLD].with_mut(|_| ());
    world.done();
    user.join().expect("no panic");
}
