//! The shootdown by interrupts, on CPUs that are played one after the other. What it does between CPUs that run at the same
//! time is explored by `tests/models/loom`.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pagepin::{Cpus, CurrentCpu, FlushRange, IpiShootdown, LocalCpu, PageAddr, Pfn, ReadSide, Shootdown, SwitchMm};

const HOME: Pfn = Pfn::new(1);
const MINE: Pfn = Pfn::new(2);
const OTHER: Pfn = Pfn::new(3);
const ONE_PAGE: FlushRange = FlushRange::Leaves { first: PageAddr::containing(0x5000), pages: 1 };
const TABLES: FlushRange = FlushRange::Pages { first: PageAddr::containing(0x5000), pages: 1 };

/// What a wait without end comes to.
const NO_ANSWER: &str = "it has heard and does not answer";

type Smp = IpiShootdown<Machine, 3, Processor>;

thread_local! {
    static SMP: &'static Smp = Box::leak(Box::new(IpiShootdown::with_local(Machine, Processor)));
    static CPU: Cell<usize> = const { Cell::new(0) };
    static ROOTS: Cell<[Pfn; 3]> = const { Cell::new([HOME; 3]) };
    /// CPUs that have been interrupted, and that were late.
    static INTERRUPTED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static LATE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    /// How often somebody waited.
    static RELAXED: Cell<usize> = const { Cell::new(0) };
    /// CPU and range of each flush.
    static FLUSHED: RefCell<Vec<(usize, FlushRange)>> = const { RefCell::new(Vec::new()) };
    /// How many calls of `late` it takes until an interrupt is answered; 0: it is answered at once.
    static DEAF: Cell<usize> = const { Cell::new(0) };
}

struct Machine;

// SAFETY: one thread plays all CPUs, and says which.
unsafe impl CurrentCpu for Machine {
    fn current_cpu(&self) -> usize {
        CPU.get()
    }
}

// SAFETY: an interrupted CPU answers, here or when it is late.
unsafe impl Cpus for Machine {
    const PATIENCE: u32 = 5;

    fn interrupt(&self, cpu: usize) {
        INTERRUPTED.with_borrow_mut(|all| all.push(cpu));
        if DEAF.get() == 0 {
            on(cpu, Smp::answer);
        }
    }

    fn late(&self, cpu: usize) {
        LATE.with_borrow_mut(|all| all.push(cpu));
        let calls = LATE.with_borrow(Vec::len);
        assert!(calls <= DEAF.get(), "{NO_ANSWER}");
        if calls == DEAF.get() {
            on(cpu, Smp::answer);
        }
    }

    fn relax(&self) {
        RELAXED.set(RELAXED.get() + 1);
    }
}

struct Processor;

// SAFETY: nothing is cached.
unsafe impl LocalCpu for Processor {
    type InterruptsOff = ();

    fn interrupts_off(&self) {}

    fn has_tags(&self) -> bool {
        false
    }

    fn flush(&self, range: FlushRange) {
        FLUSHED.with_borrow_mut(|all| all.push((CPU.get(), range)));
    }

    fn loaded_root(&self) -> Pfn {
        ROOTS.get()[CPU.get()]
    }

    unsafe fn load_root(&self, root: Pfn) {
        let mut roots = ROOTS.get();
        roots[CPU.get()] = root;
        ROOTS.set(roots);
    }
}

fn on<T>(cpu: usize, act: impl FnOnce(&'static Smp) -> T) -> T {
    let this = CPU.replace(cpu);
    let done = act(SMP.with(|smp| *smp));
    CPU.set(this);
    done
}

fn switch(cpu: usize, root: Pfn) {
    // SAFETY: nothing uses these roots.
    on(cpu, |smp| unsafe { smp.switch_mm(root) });
}

/// All three have joined; nothing has happened since.
fn joined() {
    (0..3).for_each(|cpu| on(cpu, Smp::join));
    FLUSHED.take();
}

fn flush(root: Pfn, range: FlushRange) -> (Vec<usize>, Vec<usize>) {
    FLUSHED.take();
    INTERRUPTED.take();
    on(0, |smp| smp.flush(root, range));
    let flushed = FLUSHED.take();
    assert!(flushed.iter().all(|(_, what)| *what == range), "{flushed:?}");
    (INTERRUPTED.take(), flushed.iter().map(|(cpu, _)| *cpu).collect())
}

#[test]
fn a_flush_interrupts_who_has_the_root_and_nobody_else() {
    joined();
    assert_eq!(flush(MINE, ONE_PAGE), (vec![], vec![]));
    switch(2, MINE);
    switch(1, OTHER);
    assert_eq!(flush(MINE, ONE_PAGE), (vec![2], vec![2]));
    switch(0, MINE);
    assert_eq!(flush(MINE, FlushRange::Everything), (vec![2], vec![0, 2]));
    switch(2, OTHER);
    assert_eq!(flush(MINE, TABLES), (vec![], vec![0]));
}

#[test]
fn a_lazy_cpu_is_spared_and_flushes_when_it_comes_back() {
    joined();
    switch(1, MINE);
    on(1, |smp| smp.enter_lazy_tlb());
    assert!(!on(1, |smp| smp.is_current(MINE)));
    switch(1, MINE);
    assert_eq!(FLUSHED.take(), [], "nothing was left out");
    on(1, |smp| smp.enter_lazy_tlb());
    assert_eq!(flush(MINE, ONE_PAGE), (vec![], vec![]));
    // It may be walking by itself.
    assert_eq!(flush(MINE, TABLES), (vec![1], vec![1]));
    switch(1, MINE);
    assert_eq!(FLUSHED.take(), [(1, FlushRange::Everything)]);
    assert!(on(1, |smp| smp.is_current(MINE)));
    assert_eq!(flush(MINE, ONE_PAGE), (vec![1], vec![1]));
}

#[test]
fn a_cpu_that_does_not_answer_is_named_again_and_again() {
    joined();
    switch(2, MINE);
    DEAF.set(4);
    RELAXED.take();
    assert_eq!(flush(MINE, ONE_PAGE), (vec![2], vec![2]));
    assert_eq!(LATE.take(), [2; 4]);
    assert_eq!(RELAXED.take(), 4 * Machine::PATIENCE as usize, "each time after as many turns");
}

#[test]
fn a_mark_for_a_lazy_cpu_stays_until_it_comes_back() {
    joined();
    switch(1, MINE);
    on(1, |smp| smp.enter_lazy_tlb());
    for _ in 0..2 {
        assert_eq!(flush(MINE, ONE_PAGE), (vec![], vec![]));
    }
    switch(1, MINE);
    assert_eq!(FLUSHED.take(), [(1, FlushRange::Everything)]);
}

#[test]
fn whoever_asks_is_asked_by_nobody_and_answered_by_all() {
    joined();
    (0..3).for_each(|cpu| switch(cpu, MINE));
    for cpu in 0..3 {
        FLUSHED.take();
        INTERRUPTED.take();
        on(cpu, |smp| smp.flush(MINE, ONE_PAGE));
        let others: Vec<_> = (0..3).filter(|other| *other != cpu).collect();
        assert_eq!(INTERRUPTED.take(), others);
        let mut flushed = FLUSHED.take();
        flushed.sort_by_key(|(cpu, _)| *cpu);
        assert_eq!(flushed, [0, 1, 2].map(|cpu| (cpu, ONE_PAGE)));
    }
}

#[test]
fn the_root_that_a_cpu_goes_back_to_is_never_lazy() {
    joined();
    let home = ROOTS.get()[1];
    on(1, |smp| smp.enter_lazy_tlb());
    assert!(on(1, |smp| smp.is_current(home)));
}

#[test]
fn an_mm_that_ends_is_taken_off_lazy_cpus() {
    joined();
    for cpu in [0, 1, 2] {
        switch(cpu, MINE);
        on(cpu, |smp| smp.enter_lazy_tlb());
    }
    switch(2, OTHER);
    on(0, |smp| smp.leave_mm(MINE));
    assert_eq!(ROOTS.get(), [HOME, HOME, OTHER]);
    assert_eq!(flush(MINE, TABLES), (vec![], vec![]), "nobody has it now");
}

#[test]
fn an_mm_that_ends_while_a_cpu_runs_in_it_is_caught() {
    joined();
    switch(1, MINE);
    let caught = catch_unwind(AssertUnwindSafe(|| on(0, |smp| smp.leave_mm(MINE))));
    let message = *caught.expect_err("a panic").downcast::<String>().expect("a message");
    assert_eq!(message, "CPU 1 runs in an address space that is dropped");
    assert_eq!(ROOTS.get()[1], MINE, "it still runs there");
}

/// Until it has ended, CPU 1 does not answer who frees tables.
fn is_waited_for(walk: impl Sized) {
    DEAF.set(1);
    let over = catch_unwind(AssertUnwindSafe(|| on(0, |smp| smp.synchronize())));
    assert_eq!(*over.expect_err("a panic").downcast::<String>().expect("a message"), NO_ANSWER);
    drop(walk);
    on(1, Smp::answer);
    CPU.set(0);
    LATE.take();
    on(0, |smp| smp.synchronize());
    assert_eq!(LATE.take(), [1]);
}

/// INV-13: a walk may be of tables that its CPU has not loaded. A flush of them does not ask that CPU; who frees them waits for it.
#[test]
fn a_cpu_walks_tables_that_it_has_not_loaded() {
    (0..2).for_each(|cpu| on(cpu, Smp::join));
    switch(1, OTHER);
    let walk = on(1, ReadSide::enter);
    assert_eq!(flush(MINE, TABLES), (vec![], vec![]));
    is_waited_for(walk);
}

/// INV-13: also if it waits for a lock meanwhile, and answers.
#[test]
fn a_walk_is_not_over_because_its_cpu_answers() {
    (0..2).for_each(|cpu| on(cpu, Smp::join));
    let walk = on(1, ReadSide::enter);
    drop(on(1, ReadSide::enter));
    is_waited_for(walk);
}
