//! The mm lock of a `UserSpace`: who waits for whom. What it lets through together is `tests/models/loom`'s business.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};

use pagepin::frame::Wide;
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{AddressSpace, PageAddr, Platform};
use spin::relax::RelaxStrategy;

use crate::machine::{A, Machine, PAGE, RW};

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
