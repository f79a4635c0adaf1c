//! A pin keeps whole leaves, so it costs whole leaves: in every form, in every way back, and when there is not enough.

use pagepin::frame::{Dirty, Layout, Wide};
use pagepin::pin::{self, PhysRun, PinError, PinFlags, Pinned, RawPins, Read, Stopped, Write};
use pagepin::space::SpaceOptions;
use pagepin::{LeafSize, Levels, PinBudget, PinTerm};

use crate::forms::{self, FORMS, Form};
use crate::machine::{Machine, PAGE, Process, RW, range};
use crate::pin_terms::{Charged, Terms};

const SIZE: LeafSize = LeafSize::Size2MiB;
const BLOCK: u64 = 512;
/// Two large leaves, and four base pages behind them.
const LARGE: u64 = 3 << 30;
const BASE: u64 = LARGE + 2 * BLOCK * PAGE;

fn machine<L: Layout>() -> Machine<L> {
    Machine::new(4 * 512)
}

/// A process that may pin so much.
fn process<L: Layout>(machine: &Machine<L>, limit: u64) -> Process<'_, L> {
    let process = machine.process_within(limit, SpaceOptions::without_kernel_half(Levels::Four));
    process.map(LARGE, (2 * BLOCK + 4) * PAGE, RW).unwrap();
    let (first, second) = (machine.block(SIZE), machine.block(SIZE));
    machine.install(&process, LARGE, SIZE, second, 7);
    machine.install(&process, LARGE + SIZE.bytes(), SIZE, first, 7);
    machine.put_pages(&process, BASE, 4, 1);
    process
}

/// First page and number of pages of a range, and what it costs.
const COSTS: [(u64, u64, u64); 8] = [
    (0, 1, BLOCK),
    (511, 1, BLOCK),
    (0, 512, BLOCK),
    (3, 100, BLOCK),
    (511, 2, 2 * BLOCK),
    (0, 1024, 2 * BLOCK),
    (1023, 3, BLOCK + 2),
    (1024, 4, 4),
];

fn pages<L: Layout>(process: &Process<'_, L>, first: u64, pages: u64) -> pagepin::UserRange {
    range(process, LARGE + first * PAGE, pages * PAGE)
}

fn a_part_of_a_leaf_costs_all_of_it<L: Layout>() {
    let machine = machine::<L>();
    let process = process(&machine, 3 * BLOCK);
    let used = || process.budget().used();
    for form in FORMS {
        for (first, count, cost) in COSTS {
            let wanted = pages(&process, first, count);
            let pins = forms::pin::<Read, L>(form, &process, wanted, PinFlags::empty(), 4).unwrap();
            assert_eq!((pins.pages(), used()), (count, cost), "{form:?}, {first} + {count}");
            assert_eq!(pins.runs().iter().map(PhysRun::held_pages).sum::<u64>(), cost);
            // Each pin is charged, of one leaf as of one page.
            let again = forms::pin::<Write, L>(form, &process, pages(&process, first, 1), PinFlags::empty(), 1);
            assert_eq!(used(), cost + if first < 1024 { BLOCK } else { 1 });
            drop((again.unwrap(), pins));
            assert_eq!(used(), 0);
        }
    }
}

/// What was pinned is given back when there is not enough for its leaves, and nothing is left of it, in words, budget or statistics.
fn leaves_that_cost_too_much_are_given_back<L: Layout>() {
    let machine = machine::<L>();
    let process = process(&machine, 2 * BLOCK - 1);
    let words = || [LARGE, LARGE + SIZE.bytes(), BASE].map(|page| machine.frame_at(&process, page).1);
    let before = words();
    let other = process.budget();
    for form in FORMS {
        for (first, count, cost) in COSTS {
            let all = || forms::pin::<Write, L>(form, &process, pages(&process, first, count), PinFlags::empty(), 4);
            if cost >= 2 * BLOCK {
                assert_eq!(all().err(), Some(PinError::BudgetExceeded), "{form:?}, {first} + {count}");
            }
            // One page less than it costs.
            let taken = 2 * BLOCK - cost.min(2 * BLOCK);
            pagepin::PinBudget::charge(&other, taken, PinTerm::Short).unwrap();
            assert_eq!(all().err(), Some(PinError::BudgetExceeded), "{form:?}, {first} + {count}");
            assert_eq!((other.used(), words()), (taken, before));
            pagepin::PinBudget::uncharge(&other, taken, PinTerm::Short);
        }
    }
    let statistics = pagepin::Env::statistics(&machine);
    assert_eq!(statistics.pins_acquired, statistics.pins_released);
}

/// Guards, raw pins, numbers for C, owners, and parts of a range come back with the charge that was made for them.
fn a_leaf_is_uncharged_in_every_way_back<L: Layout>() {
    let machine = machine::<L>();
    let process = process(&machine, BLOCK + 4);
    let used = || process.budget().used();
    let pin = |pages_wanted| {
        let wanted = pages(&process, 1023, pages_wanted);
        forms::pin::<Write, L>(Form::Fast, &process, wanted, PinFlags::empty(), 8).unwrap()
    };
    let raw = pin(3).into_raw();
    assert_eq!((raw.pages(), raw.charged_pages(), used()), (3, BLOCK + 2, BLOCK + 2));
    // SAFETY: pinned above, through this machine.
    unsafe { pin::unpin_user_pages(&machine, process.budget(), raw, Dirty::No) };
    assert_eq!(used(), 0);
    let (handle, buffer) = pin(3).into_raw().into_handle();
    // SAFETY: they were just made numbers.
    let raw = unsafe { RawPins::<Write, _>::from_handle(handle, buffer) }.unwrap();
    assert_eq!((raw.charged_pages(), used()), (BLOCK + 2, BLOCK + 2));
    // SAFETY: pinned above, through this machine.
    drop(unsafe { Pinned::from_raw(&process, raw) }.into_owned());
    assert_eq!(used(), 0);
    // A hole behind the base pages: all that is there.
    let (part, rest) = pin(6).into_part();
    assert_eq!((part.range().length() / PAGE, rest.map(|rest| rest.pages()), used()), (5, Some(1), BLOCK + 4));
    part.release();
    assert_eq!(used(), 0);
    // The device has not said that it has stopped: the process is not charged any more, and the leaf stays.
    let lent = pin(1).complete().unwrap().lend();
    let runs: Vec<_> = lent.runs().to_vec();
    drop(lent);
    assert_eq!((used(), runs[0].held_pages()), (0, BLOCK));
    // SAFETY: there is no device.
    unsafe { pin::unpin_user_runs(&machine, &runs, Dirty::No) };
    machine.expect_bugs(1);
    machine.expect_surplus(0);
}

/// The charge is for one term, in whichever steps it is made.
fn a_leaf_is_charged_for_one_term<L: Layout>() {
    let machine = machine::<L>();
    let process = process(&machine, u64::MAX);
    let space = Charged(&process, Terms::default());
    let two = pages(&process, 510, 2);
    for (flags, term) in [(PinFlags::LONGTERM, PinTerm::Long), (PinFlags::empty(), PinTerm::Short)] {
        drop(pin::pin_user_pages(&space, Write, two, flags, [PhysRun::default(); 1]).unwrap());
        assert_eq!(space.1.take(), [(2, term), (510, term), (-512, term)]);
    }
    if L::HAS_SOLE {
        let term = PinTerm::Short;
        drop(pin::pin_user_pages(&space, Write, two, PinFlags::SOLE, [PhysRun::default(); 1]).unwrap());
        assert_eq!(space.1.take(), [(2, term), (510, term), (-512, term)]);
    }
}

/// What was pinned stays, with its charge, and nothing of the rest.
fn a_resumed_pin_keeps_what_it_had<L: Layout>() {
    let machine = machine::<L>();
    let process = process(&machine, BLOCK + 4);
    let (used, words) =
        (|| process.budget().used(), || [LARGE, LARGE + SIZE.bytes()].map(|page| machine.frame_at(&process, page).1));
    for limit in [0, 3, 4] {
        // Four base pages of a VMA below the large leaves.
        let start = LARGE - 4 * PAGE;
        process.map(start, 4 * PAGE, RW).unwrap();
        machine.put_pages(&process, start, 4, 1);
        let all = range(&process, start, (4 + BLOCK + 1) * PAGE);
        process.protect(LARGE, 2 * SIZE.bytes(), pagepin::Rights::empty()).unwrap();
        let before = words();
        let pins = forms::pin::<Write, L>(Form::Slow, &process, all, PinFlags::empty(), 8).unwrap_err();
        assert_eq!(pins, PinError::BudgetExceeded, "it would be more, as it stands");
        let wanted = range(&process, start, (4 + 1) * PAGE);
        let pins = forms::pin::<Write, L>(Form::Slow, &process, wanted, PinFlags::empty(), 8).unwrap();
        assert_eq!((pins.pages(), used()), (4, 4));
        process.protect(LARGE, 2 * SIZE.bytes(), RW).unwrap();
        pagepin::PinBudget::charge(process.budget(), limit, PinTerm::Short).unwrap();
        let pins = pins.resume();
        if limit == 0 {
            assert_eq!((pins.pages(), pins.stopped(), used()), (5, None, 4 + BLOCK));
        } else {
            let stopped = Stopped { page_index: 4, reason: PinError::BudgetExceeded };
            assert_eq!((pins.pages(), pins.stopped(), used()), (4, Some(stopped), 4 + limit));
            assert_eq!(words(), before, "given back");
        }
        drop(pins);
        pagepin::PinBudget::uncharge(process.budget(), limit, PinTerm::Short);
        assert_eq!(used(), 0);
        process.unmap(start, 4 * PAGE).unwrap();
    }
}

/// A run that a C caller made up has no cost that panics.
#[test]
fn any_run_has_a_cost() {
    for order in 0..=u8::MAX {
        for pages in [0, 1, u32::MAX] {
            let run = PhysRun::from_parts(pagepin::Pfn::new(u64::MAX), pages, order);
            assert!(run.held_pages() >= u64::from(pages));
        }
    }
}

every_layout!(
    a_part_of_a_leaf_costs_all_of_it,
    leaves_that_cost_too_much_are_given_back,
    a_leaf_is_uncharged_in_every_way_back,
    a_leaf_is_charged_for_one_term,
    a_resumed_pin_keeps_what_it_had,
);

/// A charge that is refused when pins are resumed leaves what is pinned, and says so.
#[test]
fn pins_that_are_resumed_beyond_the_budget_are_as_they_were() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.process_within(4, SpaceOptions::without_kernel_half(Levels::Four));
    process.map(LARGE, 4 * PAGE, RW).unwrap();
    machine.put_pages(&process, LARGE, 2, 1);
    let all = range(&process, LARGE, 4 * PAGE);
    let part = forms::pin::<Write, Wide>(Form::FastOnly, &process, all, PinFlags::empty(), 4).unwrap();
    assert_eq!((part.pages(), part.stopped().unwrap().reason), (2, PinError::WouldFault));
    process.budget().charge(1, PinTerm::Short).unwrap();
    let part = part.resume();
    assert_eq!((part.pages(), part.stopped()), (2, Some(Stopped { page_index: 2, reason: PinError::BudgetExceeded })));
    process.budget().uncharge(1, PinTerm::Short);
    let pins = part.resume();
    assert_eq!((pins.pages(), pins.stopped(), process.budget().used()), (4, None, 4));
}
