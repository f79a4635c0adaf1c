//! The mm lock of a `UserSpace`: who waits for whom. What it lets through together is `tests/models/loom`'s business.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};

use pagepin::fault::{Fault, FaultError, handle_fault};
use pagepin::frame::Wide;
use pagepin::pin::{PinError, PinFlags, Read, Write};
use pagepin::space::{Advice, ForkError, Placement, SpaceError, SpaceOptions, UserSpace};
use pagepin::{Access, AddressSpace, CurrentCpu, Env, Extras, PageAddr, Platform, Reentered, SectionCount, Vmas};
use spin::relax::RelaxStrategy;

use crate::forms::{self, Form};
use crate::machine::{A, Machine, PAGE, Process, R, RW, range};

thread_local! {
    /// Where this thread notes that it has waited.
    static WAITS: Cell<Option<&'static AtomicBool>> = const { Cell::new(None) };
}

/// What the kernel does while it waits.
struct Noted;

impl RelaxStrategy for Noted {
    fn relax() {
        if let Some(waits) = WAITS.get() {
            waits.store(true, Ordering::Relaxed);
        }
        thread::yield_now();
    }
}

/// Runs `act` in a thread of its own, and returns when that waits or is done.
fn until_it_waits<'s, T: Send + 's>(
    scope: &'s Scope<'s, '_>,
    act: impl FnOnce() -> T + Send + 's,
) -> ScopedJoinHandle<'s, T> {
    let waits: &'static AtomicBool = Box::leak(Box::default());
    let thread = scope.spawn(move || {
        WAITS.set(Some(waits));
        act()
    });
    while !waits.load(Ordering::Relaxed) && !thread.is_finished() {
        thread::yield_now();
    }
    thread
}

/// INV-15: faults and pins that overlap for ever do not keep `map`, `fork` or `unmap` out: whoever comes after one of
/// these lets it go first.
#[test]
fn a_fault_that_comes_after_a_waiting_map_lets_it_go_first() {
    let machine = Machine::<Wide>::new(16);
    // SAFETY: the parts of one machine.
    let kernel =
        unsafe { Platform::<_, _, _, _, _, Noted>::with_relax(&machine, &machine, &machine, &machine, &machine) };
    let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(pagepin::Levels::Four)).unwrap();
    let is_mapped = || {
        let mut mapped = false;
        space.with_vmas(&mut |vmas| mapped = vmas.vma_at(PageAddr::containing(A)).is_some()).unwrap();
        mapped
    };
    thread::scope(|scope| {
        let mut late = None;
        space
            .with_vmas(&mut |vmas| {
                let map = until_it_waits(scope, || space.map(A, PAGE, RW).unwrap());
                late = Some(until_it_waits(scope, is_mapped));
                assert!(!map.is_finished() && vmas.vma_at(PageAddr::containing(A)).is_none());
            })
            .unwrap();
        assert!(late.unwrap().join().unwrap(), "it got in before the map that had waited longer");
    });
}

/// Whatever asks for an mm lock inside a section of one is told so, and changes nothing: of the same mm or another.
#[test]
fn a_section_in_a_section_is_an_error_that_names_it() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.populated(2, 7);
    let other = machine.populated(1, 9);
    let before = machine.image(&[&process, &other]);
    let inside = |space: &Process<'_, Wide>| {
        let fault = Fault { address: A, access: Access::Write, key_denied: false, malformed_table: false };
        assert_eq!(space.fault(fault), Err(FaultError::Reentered));
        assert_eq!(handle_fault(space, fault), Err(FaultError::Reentered));
        for form in [Form::Slow, Form::Remote] {
            let pins = forms::pin::<Write, Wide>(form, space, range(space, A, 1), PinFlags::empty(), 1);
            assert_eq!(pins.err(), Some(PinError::Reentered));
        }
        // What is there and this mm's own needs no lock.
        assert!(forms::pin::<Read, Wide>(Form::Fast, space, range(space, A, 1), PinFlags::empty(), 1).is_ok());
        assert_eq!(space.map(A + 8 * PAGE, PAGE, RW), Err(SpaceError::Reentered));
        assert_eq!(space.map_anywhere(PAGE, Placement::new(), RW), Err(SpaceError::Reentered));
        assert_eq!(space.unmap(A, PAGE), Err(SpaceError::Reentered));
        assert_eq!(space.discard(A, PAGE), Err(SpaceError::Reentered));
        assert_eq!(space.protect(A, PAGE, R), Err(SpaceError::Reentered));
        assert_eq!(space.advise(A, PAGE, Advice::DontFork), Err(SpaceError::Reentered));
        assert_eq!(space.fork().err(), Some(ForkError::Reentered));
        assert_eq!(space.resident(), Err(SpaceError::Reentered));
        assert_eq!(space.vma_at(A), Err(Reentered));
        assert_eq!(space.vmas().collect::<Vec<_>>(), [Err(Reentered)]);
        assert_eq!(space.with_vmas(&mut |_| unreachable!("a section in a section")), Err(Reentered));
        assert_eq!(Reentered.errno(), 35, "EDEADLK");
    };
    process
        .with_vmas(&mut |_| {
            inside(&process);
            inside(&other);
        })
        .unwrap();
    machine.image(&[&process, &other]).assert_same(&before, "after refusals");
    assert_eq!(machine.get(&process, A), 7);
    process.unmap(A, 2 * PAGE).unwrap();
}

/// The same in a kernel that has no slots and counts its sections: without either it would wait for itself for ever.
#[test]
fn a_section_in_a_section_is_found_by_counting() {
    struct One;
    // SAFETY: there is one thread.
    unsafe impl CurrentCpu for One {
        fn current_cpu(&self) -> usize {
            0
        }
    }
    let machine = Machine::<Wide>::new(64);
    // SAFETY: the parts of one machine, which does not preempt.
    let platform = unsafe { Platform::new(&machine, &machine, &machine, &machine, &machine) };
    let kernel = platform.with_extras(Extras::new().no_preempt(SectionCount::<_, 1>::new(One)));
    let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(pagepin::Levels::Four)).unwrap();
    space.map(A, PAGE, RW).unwrap();
    let fault = Fault { address: A, access: Access::Write, key_denied: false, malformed_table: false };
    let inside = |_: &dyn Vmas| {
        assert_eq!(space.fault(fault), Err(FaultError::Reentered));
        assert_eq!(space.unmap(A, PAGE), Err(SpaceError::Reentered));
        assert_eq!(space.vma_at(A), Err(Reentered));
        assert_eq!(space.fork().err(), Some(ForkError::Reentered));
    };
    space.with_vmas(&mut { inside }).unwrap();
    // A copy to user memory, or an interrupt, in a section of who owns an entry.
    let stay = pagepin::NoPreempt::enter(pagepin::ExtraParts::no_preempt(kernel.extras()));
    assert_eq!(space.fault(fault), Err(FaultError::Reentered));
    drop(stay);
    assert!(space.fault(fault).is_ok());
}
