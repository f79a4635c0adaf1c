//! The parts of a kernel that have a default, replaced.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use pagepin::frame::Wide;
use pagepin::pin::{PhysRun, Write};
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{CpuCounters, CurrentCpu, Env, Extras, FrameRequest, FrameSource, NoPreempt, Pfn, Platform};

use crate::machine::{A, Machine, PAGE, RW};

thread_local! {
    /// How many guards the thread holds.
    static STAYING: Cell<u32> = const { Cell::new(0) };
}

struct Stay;
struct Staying;

impl Drop for Staying {
    fn drop(&mut self) {
        STAYING.set(STAYING.get() - 1);
    }
}

// SAFETY: a thread is its own CPU here.
unsafe impl NoPreempt for Stay {
    type Guard<'a> = Staying;

    fn enter(&self) -> Staying {
        STAYING.set(STAYING.get() + 1);
        Staying
    }
}

/// A CPU number that is asked for only by who stays.
struct Numbered(fn() -> usize);

// SAFETY: as the number says.
unsafe impl CurrentCpu for Numbered {
    fn current_cpu(&self) -> usize {
        assert!(STAYING.get() > 0, "the thread may move on");
        (self.0)()
    }
}

/// A source that is called with the mm lock held, and looks.
struct Looking<'m> {
    machine: &'m Machine,
    stayed: AtomicBool,
}

// SAFETY: forwards to the machine.
unsafe impl FrameSource for Looking<'_> {
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        self.stayed.store(STAYING.get() > 0, Ordering::Relaxed);
        self.machine.allocate(request)
    }

    unsafe fn free(&self, frame: Pfn, order: u8) {
        // SAFETY: forwarded from the caller.
        unsafe { self.machine.free(frame, order) };
    }
}

#[test]
fn who_holds_the_mm_lock_or_counts_on_a_cpu_stays_there() {
    let machine = Machine::<Wide>::new(64);
    let source = Looking { machine: &machine, stayed: AtomicBool::new(false) };
    // SAFETY: one machine is every part.
    let kernel = unsafe { Platform::new(&machine, &machine, source, &machine, &machine) };
    let counters = CpuCounters::<_, 2>::new(Numbered(|| 1));
    let kernel = kernel.with_extras(Extras::new().no_preempt(Stay).counters(counters));
    let process = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(pagepin::Levels::Four)).unwrap();
    process.map(A, 2 * PAGE, RW).unwrap();
    let pins = process.pin(Write, process.range(A, 2 * PAGE).unwrap(), [PhysRun::default(); 2]).unwrap();
    assert!(kernel.source().stayed.load(Ordering::Relaxed), "a page was allocated with the mm lock held");
    assert_eq!((kernel.statistics().pins_acquired, kernel.statistics().pins_released), (2, 0));
    drop(pins);
    assert_eq!((kernel.statistics().pins_acquired, kernel.statistics().pins_released), (2, 2));
    drop(process);
    assert_eq!(STAYING.get(), 0);
}

/// INV-10 is tested by these totals. That CPUs lose nothing to each other, the threads of `tests/threads` show.
#[test]
fn totals_of_all_cpus_count_even_of_one_that_is_numbered_too_high() {
    thread_local! {
        static CPU: Cell<usize> = const { Cell::new(0) };
    }
    let machine = Machine::<Wide>::new(64);
    // SAFETY: one machine is every part.
    let kernel = unsafe { Platform::new(&machine, &machine, &machine, &machine, &machine) };
    let counters = CpuCounters::<_, 2>::new(Numbered(|| CPU.get()));
    let kernel = kernel.with_extras(Extras::new().no_preempt(Stay).counters(counters));
    let process = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(pagepin::Levels::Four)).unwrap();
    process.map(A, PAGE, RW).unwrap();
    let page = process.range(A, PAGE).unwrap();
    for (cpu, pages) in [(0, 1), (1, 2), (2, 3), (usize::MAX, 4)] {
        CPU.set(cpu);
        let pins = process.pin(Write, page, [PhysRun::default()]).unwrap();
        CPU.set(cpu.wrapping_add(1));
        drop(pins);
        let counted = kernel.statistics();
        assert_eq!((counted.pins_acquired, counted.pins_released), (pages, pages), "CPU {cpu}");
    }
    assert_eq!((kernel.statistics().gets_acquired, kernel.statistics().bugs_caught), (0, 0));
}
