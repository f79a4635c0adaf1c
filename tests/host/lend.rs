//! Lending to a device, and the quarantine of what did not come back.

use pagepin::frame::Wide;
use pagepin::pin::{Lent, PhysRun, PinnedRange, QuarantineTable, Read, Write};
use pagepin::space::{KernelHalf, SpaceOptions, UserSpace};
use pagepin::{Access, Env, Extras, LedgerTable, Levels, Pfn, PinBudget, PinLimit, Platform, Quarantine};

use crate::machine::{A, Machine, PAGE, RW};

type Parts<'m> = &'m Machine<Wide>;
type Kernel<'m, Q> = Platform<Parts<'m>, Parts<'m>, Parts<'m>, Parts<'m>, Parts<'m>, spin::relax::Spin, With<'m, Q>>;
type With<'m, Q> = Extras<(), pagepin::Counters, &'m LedgerTable<16>, Q>;
type Space<'k, 'm, Q> = UserSpace<&'k Kernel<'m, Q>, &'k PinLimit>;

/// A device's number.
const DISK: u64 = 3;

fn kernel<'m, Q: Quarantine>(machine: Parts<'m>, ledger: &'m LedgerTable<16>, quarantine: Q) -> Kernel<'m, Q> {
    // SAFETY: one machine is every part.
    let kernel = unsafe { Platform::new(machine, machine, machine, machine, machine) };
    kernel.with_extras(Extras::new().ledger(ledger).quarantine(quarantine))
}

fn space<'k, 'm, Q: Quarantine + Sync>(kernel: &'k Kernel<'m, Q>, budget: &'k PinLimit) -> Space<'k, 'm, Q> {
    let options = SpaceOptions::new(KernelHalf::none(Levels::Four));
    let space = UserSpace::with_budget(kernel, options, budget).unwrap();
    space.map(A, 4 * PAGE, RW).unwrap();
    space
}

fn clock() -> u64 {
    77
}

/// Frames of a machine that scatters them, so that each page is a run.
fn scattered() -> Machine<Wide> {
    let machine = Machine::new(64);
    machine.memory().scatter(true);
    machine
}

#[test]
fn what_is_completed_is_the_callers_again() {
    let (machine, ledger, quarantine) = (scattered(), LedgerTable::new(clock), QuarantineTable::<4>::new(clock));
    let (kernel, budget) = (kernel(&machine, &ledger, &quarantine), PinLimit::new(8));
    let space = space(&kernel, &budget);
    let pinned = space.pin(Write, space.range(A + 8, PAGE).unwrap(), [PhysRun::default(); 2]).unwrap();
    let wanted: Vec<_> = pinned.byte_runs().collect();
    let lent = pinned.lend_to(DISK);
    assert_eq!((lent.byte_runs().collect::<Vec<_>>(), lent.device(), lent.range().length()), (wanted, DISK, PAGE));
    // SAFETY: there is no device.
    let pinned = unsafe { lent.complete() };
    assert_eq!(pinned.copy_from(0, b"done"), Ok(()));
    drop(pinned);
    assert_eq!((quarantine.runs().count(), ledger.records().count(), budget.used()), (0, 0, 0));
    assert!(kernel.statistics().pins_released == 2 && kernel.statistics().bugs_caught == 0);
}

/// The frames of a request that was given up are nobody else's while its device may write them, even after the process has gone.
#[test]
fn what_is_dropped_stays_pinned_until_the_device_was_reset() {
    let (machine, ledger, quarantine) = (scattered(), LedgerTable::new(clock), QuarantineTable::<4>::new(clock));
    let (kernel, budget) = (kernel(&machine, &ledger, &quarantine), PinLimit::new(8));
    let process = space(&kernel, &budget);
    let pin = |page: u64, pages: u64| {
        process.pin(Write, process.range(A + page * PAGE, pages * PAGE).unwrap(), [PhysRun::default(); 2]).unwrap()
    };
    let (disk, other) = (pin(0, 2).into_owned(), pin(3, 1).into_owned());
    let frames: Vec<Pfn> = disk.runs().iter().map(PhysRun::first).collect();
    let mut others = other.lend_to(9);
    let lost = disk.lend_to(DISK);
    std::thread::scope(|scope| {
        // In an interrupt on another CPU, for all that Rust knows.
        scope.spawn(move || drop::<Lent<_, _, _>>(lost));
    });
    assert_eq!(budget.used(), 1, "what holds the frames is the kernel");
    let held: Vec<_> = quarantine.runs().map(|held| (held.device, held.start, held.access, held.since)).collect();
    assert_eq!(held, [(DISK, A, Access::Write, 77); 2]);
    assert!(ledger.records().filter(|entry| entry.quarantined).count() == 2);
    drop(process);
    assert!(frames.iter().all(|frame| machine.word(*frame).snapshot().pins == 1), "pinned, and so not free");
    // SAFETY: there is no such device, nor was anything lent to it.
    assert_eq!(unsafe { quarantine.device_was_reset(&&kernel, DISK + 1) }, 0);
    // SAFETY: there is no device that could go on.
    assert_eq!(unsafe { quarantine.device_was_reset(&&kernel, DISK) }, 2);
    assert!(frames.iter().all(|frame| machine.word(*frame).snapshot().is_free()));
    assert_eq!((quarantine.runs().count(), ledger.records().count()), (0, 1));
    // SAFETY: as above.
    assert_eq!(unsafe { quarantine.device_was_reset(&&kernel, DISK) }, 0, "once");
    // SAFETY: as above.
    others = unsafe { others.complete() }.lend();
    drop(others);
    // SAFETY: as above.
    assert_eq!(unsafe { quarantine.device_was_reset(&&kernel, 0) }, 1);
    let totals = kernel.statistics();
    assert_eq!((totals.pins_acquired, totals.pins_released, totals.bugs_caught, budget.used()), (3, 3, 0, 0));
}

/// What does not fit stays pinned: lost memory, and never somebody else's.
#[test]
fn a_full_quarantine_loses_memory_and_nothing_else() {
    let (machine, ledger, quarantine) = (scattered(), LedgerTable::new(clock), QuarantineTable::<1>::new(clock));
    let (kernel, budget) = (kernel(&machine, &ledger, &quarantine), PinLimit::new(8));
    let space = space(&kernel, &budget);
    let pinned = space.pin(Read, space.range(A, 2 * PAGE).unwrap(), [PhysRun::default(); 2]).unwrap();
    let runs = pinned.runs().to_vec();
    assert_eq!(quarantine.lost(), 0);
    drop(pinned.lend());
    assert_eq!((quarantine.runs().count(), quarantine.lost(), budget.used()), (1, 1, 0));
    // SAFETY: there is no device.
    assert_eq!(unsafe { quarantine.device_was_reset(&&kernel, 0) }, 1);
    let pins = || runs.iter().map(|run| machine.word(run.first()).snapshot().pins).sum::<u64>();
    assert_eq!(pins(), 1);
    let lost = runs.iter().find(|run| machine.word(run.first()).snapshot().pins == 1).unwrap();
    // SAFETY: the test knows which run was lost, and plays the device that stopped.
    unsafe { pagepin::pin::unpin_user_runs(&&kernel, &[*lost], pagepin::frame::Dirty::No) };
    assert_eq!(pins(), 0);
}

/// Without a quarantine the frames stay pinned, and the statistics say that something is wrong.
#[test]
fn without_a_quarantine_a_lost_loan_is_a_bug_that_is_counted() {
    let (machine, ledger) = (scattered(), LedgerTable::new(clock));
    let (kernel, budget) = (kernel(&machine, &ledger, ()), PinLimit::new(8));
    let space = space(&kernel, &budget);
    let pinned: PinnedRange<_, _, _> = space.pin(Write, space.range(A, PAGE).unwrap(), [PhysRun::default()]).unwrap();
    let run = pinned.runs()[0];
    drop(pinned.lend());
    assert_eq!((machine.word(run.first()).snapshot().pins, budget.used()), (1, 0));
    assert_eq!((kernel.statistics().bugs_caught, ledger.records().next().unwrap().quarantined), (1, true));
    // SAFETY: the test plays the device, and ends.
    unsafe { pagepin::pin::unpin_user_runs(&&kernel, &[run], pagepin::frame::Dirty::No) };
    budget.uncharge(0, pagepin::PinTerm::Short);
}

/// One budget may serve many address spaces, terms have limits of their own, and every way back gives back what was charged.
#[test]
fn terms_are_charged_apart_and_exactly_on_every_path() {
    use pagepin::pin::{PinError, PinFlags, PinnedPages, pin_user_pages};
    use pagepin::{PinLimits, PinTerm};
    let machine = scattered();
    let budget = PinLimits::new(6, 3);
    let used = || (budget.used(PinTerm::Short), budget.used(PinTerm::Long));
    let options = SpaceOptions::new(KernelHalf::none(Levels::Four));
    let spaces = [(); 2].map(|()| UserSpace::with_budget(&machine, options, &budget).unwrap());
    for space in &spaces {
        space.map(A, 4 * PAGE, RW).unwrap();
    }
    let pin = |space: usize, pages: u64, flags| {
        let range = spaces[space].range(A, pages * PAGE).unwrap();
        pin_user_pages(&spaces[space], Write, range, flags, [PhysRun::default(); 4])
    };
    let long = pin(0, 2, PinFlags::LONGTERM).unwrap();
    assert_eq!(pin(1, 2, PinFlags::LONGTERM).err(), Some(PinError::BudgetExceeded), "two mms, one budget");
    let short = pin(1, 4, PinFlags::empty()).unwrap();
    let child = spaces[0].fork().unwrap();
    assert_eq!(used(), (4, 2), "fork inherits no charge");
    // SAFETY: what was just taken, in this kernel.
    drop(unsafe { PinnedPages::from_raw(&spaces[1], short.into_raw()) });
    assert_eq!(used(), (0, 2));
    let again = pin(1, 4, PinFlags::LONGTERM | PinFlags::NOFAULT);
    assert_eq!((again.err(), used()), (Some(PinError::BudgetExceeded), (0, 2)));
    drop(long.into_owned());
    assert_eq!(used(), (0, 0));
    budget.uncharge(5, PinTerm::Long);
    assert_eq!(used(), (0, 0), "it does not wrap");
    drop(child);
}
