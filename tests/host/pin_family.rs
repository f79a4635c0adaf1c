//! The forms of the pin family, their flags, budgets, and how pins are given back.

use std::collections::BTreeMap;

use pagepin::frame::{Dirty, Layout, Wide};
use pagepin::pin::{self, ByteRun, GotPages, OutOfRange, PhysRun, PinError, PinFlags, Pinned, Read, Write};
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{
    Env, Levels, MemoryType, Pfn, PhysMap, PinBudget, PinLimit, PinTerm, Platform, RangeError, Rights, UserRange,
};

use crate::forms::{self, FORMS, Form};
use crate::machine::{A, FIRST, Machine, NONE, PAGE, R, RW, range};

fn untouched_pages_are_faulted_in_unless_forbidden<L: Layout>() {
    for form in FORMS {
        let machine = Machine::<L>::new(64);
        let process = machine.process();
        process.map(A, 4 * PAGE, RW).unwrap();
        let all = range(&process, A + 5, 3 * PAGE);
        let pin = |flags| forms::pin::<Write, L>(form, &process, all, flags, 8);
        assert_eq!(pin(PinFlags::NOFAULT).err(), Some(PinError::WouldFault), "{form:?}");
        if form == Form::FastOnly {
            assert_eq!(pin(PinFlags::empty()).err(), Some(PinError::WouldFault));
            continue;
        }
        let pins = pin(PinFlags::empty()).unwrap();
        assert_eq!((pins.pages(), pins.range(), pins.stopped()), (4, all, None));
        let again = pin(PinFlags::NOFAULT).unwrap();
        assert_eq!(again.runs(), pins.runs());
        assert!((0..4).all(|page| machine.frame_at(&process, A + page * PAGE).1.pins == 2));
    }
}

/// INV-9: a page that is pinned for writing is writable through its entry.
fn write_pins_make_the_page_writable<L: Layout>() {
    for form in [Form::Fast, Form::Slow, Form::Remote] {
        for before in ["nothing", "zero", "shared", "sole", "protected"] {
            let machine = Machine::<L>::new(64);
            let process = machine.process();
            process.map(A, PAGE, RW).unwrap();
            let mut child = None;
            match before {
                "nothing" => {}
                "zero" => assert_eq!(machine.get(&process, A), 0),
                _ => machine.put(&process, A, 10),
            }
            match before {
                "shared" => child = Some(process.fork().unwrap()),
                "sole" => drop(process.fork().unwrap()),
                "protected" => {
                    process.protect(A, PAGE, R).unwrap();
                    drop(process.fork().unwrap());
                    process.protect(A, PAGE, RW).unwrap();
                }
                _ => {}
            }
            let content = machine.get(&process, A);
            let pins = forms::pin::<Write, L>(form, &process, range(&process, A, 1), PinFlags::empty(), 1);
            let pins = pins.unwrap();
            let leaf = machine.leaf(&process, A).unwrap();
            assert!(Machine::<L>::is_writable(leaf.bits), "{before}, {form:?}");
            assert_eq!(pins.runs()[0].first(), leaf.frame());
            machine.dma_write(leaf.frame().address() + 1, &[77]);
            assert_eq!((machine.get(&process, A), machine.get(&process, A + 1)), (content, 77));
            drop((pins, child));
        }
    }
}

fn vmas_decide_what_may_be_pinned<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    for (index, rights) in [RW, R, NONE, Rights::EXECUTE, Rights::WRITE].into_iter().enumerate() {
        process.map(A + index as u64 * PAGE, PAGE, rights).unwrap();
    }
    let page = |index: u64| range(&process, A + index * PAGE, PAGE);
    for form in [Form::Fast, Form::Slow, Form::Remote] {
        let none = PinFlags::empty();
        let write = |index| forms::pin::<Write, L>(form, &process, page(index), none, 1).err();
        let read = |index| forms::pin::<Read, L>(form, &process, page(index), none, 1).err();
        let denied = Some(PinError::AccessDenied);
        assert_eq!([0, 1, 2, 3, 4].map(write), [None, denied, denied, denied, None], "{form:?}");
        assert_eq!([0, 1, 2, 3, 4].map(read), [None, None, denied, None, None], "{form:?}");
        assert_eq!([5, 99].map(read), [Some(PinError::NoVma); 2]);
        // From a good VMA into a bad one: the good part.
        let pins = forms::pin::<Write, L>(form, &process, range(&process, A, 2 * PAGE), none, 4).unwrap();
        assert_eq!((pins.pages(), pins.stopped().map(|stopped| stopped.reason)), (1, denied));
        assert_eq!(pins.complete().err(), denied);
    }
    machine.audit(&[&process], &BTreeMap::new());
}

/// Device registers are never pinned, whatever is asked, and nothing spins on them.
fn foreign_memory_is_not_pinnable<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    // SAFETY: registers of the emulated machine.
    unsafe { process.map_foreign(A, PAGE, Pfn::new(0xfee0), MemoryType::UNCACHED, RW).unwrap() };
    for form in [Form::Fast, Form::Slow, Form::Remote] {
        for flags in [PinFlags::empty(), PinFlags::NOFAULT] {
            let page = range(&process, A, 4);
            let wanted = Some(PinError::NotPinnable);
            assert_eq!(forms::pin::<Write, L>(form, &process, page, flags, 1).err(), wanted, "{form:?}");
            assert_eq!(forms::pin::<Read, L>(form, &process, page, flags, 1).err(), wanted, "{form:?}");
            assert_eq!(forms::get::<Write, L>(form, &process, page, flags, 1).err(), wanted, "{form:?}");
        }
    }
    let page = range(&process, A, 4);
    let forced = forms::pin::<Write, L>(Form::Slow, &process, page, PinFlags::FORCE, 1);
    assert_eq!(forced.err(), Some(PinError::NotPinnable));
}

/// Only known flags, and only where they mean something.
fn flags_are_checked<L: Layout>() {
    assert_eq!(PinFlags::from_raw(1 << 9), Err(PinError::InvalidFlags));
    assert_eq!(PinFlags::from_raw(0b1111), Ok(PinFlags::all()));
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let page = range(&process, A, 1);
    let unknown = PinFlags::from_bits_retain(1 << 20);
    let invalid = Some(PinError::InvalidFlags);
    for form in FORMS {
        assert_eq!(forms::pin::<Read, L>(form, &process, page, unknown, 1).err(), invalid);
        assert_eq!(forms::get::<Read, L>(form, &process, page, unknown, 1).err(), invalid);
        assert_eq!(forms::pin::<Read, L>(form, &process, page, PinFlags::FORCE, 1).err(), invalid);
        for flags in [PinFlags::LONGTERM, PinFlags::FORCE] {
            assert_eq!(forms::get::<Write, L>(form, &process, page, flags, 1).err(), invalid, "{form:?}");
        }
        assert_eq!(forms::pin::<Write, L>(form, &process, page, PinFlags::LONGTERM, 1).err(), None);
    }
    let forced = forms::pin::<Write, L>(Form::FastOnly, &process, page, PinFlags::FORCE, 1);
    assert_eq!(forced.err(), invalid);
}

/// A limit is an error before anything is taken, and is exact after partial success, failure and release.
fn budgets_are_charged_for_what_is_pinned<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process_within(6, SpaceOptions::without_kernel_half(Levels::Four));
    process.map(A, 8 * PAGE, RW).unwrap();
    machine.put_pages(&process, A, 8, 1);
    let used = || process.budget().used();
    let pages = |first: u64, count: u64| range(&process, A + first * PAGE, count * PAGE);
    for form in FORMS {
        let pin = |range, buffer| forms::pin::<Write, L>(form, &process, range, PinFlags::empty(), buffer);
        assert_eq!(pin(pages(0, 7), 8).err(), Some(PinError::BudgetExceeded), "{form:?}");
        let four = pin(pages(0, 4), 8).unwrap();
        assert_eq!(used(), 4);
        assert_eq!(pin(pages(0, 3), 8).err(), Some(PinError::BudgetExceeded));
        let two = pin(pages(4, 2), 8).unwrap();
        assert_eq!(used(), 6);
        // Plain references are not charged.
        let gets = forms::get::<Read, L>(form, &process, pages(6, 2), PinFlags::empty(), 8).unwrap();
        assert_eq!((gets.pages(), used()), (2, 6));
        drop(four);
        assert_eq!(used(), 2);
        assert_eq!(pin(pages(0, 3), 0).err(), Some(PinError::BufferTooSmall));
        assert_eq!(used(), 2, "nothing was pinned");
        drop(two);
        assert_eq!(used(), 0);
    }
    // Partial success.
    process.unmap(A + 2 * PAGE, PAGE).unwrap();
    let two = forms::pin::<Write, L>(Form::Slow, &process, pages(0, 5), PinFlags::empty(), 8).unwrap();
    assert_eq!((two.pages(), used()), (2, 2));
    assert_eq!(two.complete().err(), Some(PinError::NoVma));
    assert_eq!(used(), 0);
    // Raw pins keep their charge until they are taken back.
    let raw = forms::pin::<Write, L>(Form::Fast, &process, pages(0, 2), PinFlags::empty(), 8).unwrap().into_raw();
    assert_eq!((raw.pages(), used()), (2, 2));
    // SAFETY: pinned above, through this machine, and charged to this budget.
    drop(unsafe { Pinned::from_raw(&process, raw) });
    assert_eq!(used(), 0);
    let limit = PinLimit::new(u64::MAX - 1);
    limit.charge(u64::MAX - 1, PinTerm::Short).unwrap();
    assert!(limit.charge(1, PinTerm::Long).is_err());
    assert!(limit.charge(u64::MAX, PinTerm::Short).is_err(), "no wrap");
    assert_eq!(limit.used(), u64::MAX - 1);
}

/// Safe code that uncharges too much gets a limit that is too large, never a count that wraps.
#[test]
fn a_budget_does_not_wrap() {
    let limit = PinLimit::new(10);
    limit.uncharge(1, PinTerm::Short);
    assert_eq!((limit.used(), limit.charge(10, PinTerm::Short)), (0, Ok(())));
    limit.uncharge(11, PinTerm::Long);
    assert_eq!(limit.used(), 0);
}

/// Pins that come back without a guard, or with one of their own, give their charge back with them.
fn raw_and_owned_pins_are_uncharged<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process_within(2, SpaceOptions::without_kernel_half(Levels::Four));
    process.map(A, 2 * PAGE, RW).unwrap();
    for _ in 0..3 {
        let raw = machine.pin::<Write>(&process, A, 2 * PAGE).unwrap().into_raw();
        assert_eq!(process.budget().used(), 2);
        // SAFETY: pinned above, through this machine.
        let buffer = unsafe { pin::unpin_user_pages(&machine, process.budget(), raw, Dirty::No) };
        assert_eq!((process.budget().used(), buffer.len()), (0, 64), "the buffer comes back");
        let owned = machine.pin::<Write>(&process, A, 2 * PAGE).unwrap().into_owned();
        assert_eq!(process.budget().used(), 2);
        let (_, buffer) = owned.release();
        assert_eq!((process.budget().used(), buffer.len()), (0, 64));
    }
}

/// What a pin was taken for decides: nobody writes through a read pin, whatever who gives it back says.
fn a_read_pin_that_comes_back_marks_nothing_dirty<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let raw = machine.pin::<Read>(&process, A, PAGE).unwrap().into_raw();
    // SAFETY: pinned above, through this machine.
    drop(unsafe { pin::unpin_user_pages(&machine, process.budget(), raw, Dirty::Yes) });
    assert!(!machine.frame_at(&process, A).1.dirty);
    // And a write pin through which nothing was written says so.
    drop(machine.pin::<Write>(&process, A, PAGE).unwrap().release_unwritten());
    assert!(!machine.frame_at(&process, A).1.dirty);
    machine.audit(&[&process], &BTreeMap::new());
}

/// Owned pins outlive the process, and are a value that any thread may have.
fn owned_pins_outlive_their_process<L: Layout>() {
    fn anywhere<T: Send>(value: T) -> T {
        value
    }
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 7);
    let pins =
        anywhere(process.pin(Write, range(&process, A, 2 * PAGE), vec![PhysRun::default(); 2]).unwrap().into_owned());
    let budget = process.budget().clone();
    drop(process);
    assert_eq!(budget.used(), 2, "charged as long as they are held");
    pins.copy_from(PAGE - 1, &[1, 2]).unwrap();
    let mut bytes = [0; 3];
    pins.copy_to(PAGE - 2, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 1, 2]);
    let frames: Vec<Pfn> = pins.runs().iter().map(PhysRun::first).collect();
    drop(pins);
    assert_eq!(budget.used(), 0);
    assert!(frames.iter().all(|frame| machine.word(*frame).snapshot().is_free()));
}

/// A range that was checked against more levels names another page here: it is refused, not walked to an alias.
fn a_range_of_more_levels_is_refused<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 10);
    let alias = UserRange::new(Levels::Five.user_half(), (1 << 48) + A, 1).unwrap();
    let refused = PinError::Range(RangeError::NonCanonical);
    for form in FORMS {
        assert_eq!(
            forms::pin::<Write, L>(form, &process, alias, PinFlags::empty(), 1).err(),
            Some(refused),
            "{form:?}"
        );
        assert_eq!(forms::get::<Read, L>(form, &process, alias, PinFlags::empty(), 1).err(), Some(refused), "{form:?}");
    }
    machine.audit(&[&process], &BTreeMap::new());
}

/// INV-10: every way to give pins back, each exactly once.
fn every_release_balances<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(3, 1);
    let raw = || machine.pin::<Write>(&process, A, 3 * PAGE).unwrap().into_raw();
    let dirty = || (0..3).map(|page| machine.frame_at(&process, A + page * PAGE).1.dirty).collect::<Vec<_>>();
    let balance = || {
        let counters = machine.statistics();
        assert_eq!(counters.pins_acquired, counters.pins_released);
        machine.audit(&[&process], &BTreeMap::new());
    };
    let all = raw();
    // SAFETY: the pins were just taken, one on each frame, through this machine; the same holds below.
    unsafe { pin::unpin_user_pages(&machine, process.budget(), all, Dirty::No) };
    assert_eq!(dirty(), [false; 3]);
    balance();
    for run in raw().runs() {
        // SAFETY: as above.
        unsafe { pin::unpin_user_runs(&machine, &[*run], Dirty::No) };
    }
    assert_eq!(dirty(), [false; 3]);
    balance();
    let frames: Vec<Pfn> =
        raw().runs().iter().flat_map(|run| run.first().number()..run.end().number()).map(Pfn::new).collect();
    for (index, frame) in frames.iter().enumerate() {
        // SAFETY: as above.
        unsafe {
            let dirty = if index == 0 { Dirty::Yes } else { Dirty::No };
            pin::unpin_user_runs(&machine, &[PhysRun::from_parts(*frame, 1, 0)], dirty);
        }
    }
    assert_eq!(dirty(), [true, false, false]);
    balance();
    for run in raw().runs() {
        // SAFETY: as above.
        unsafe { pin::unpin_user_runs(&machine, &[*run], Dirty::Yes) };
    }
    assert_eq!(dirty(), [true; 3]);
    balance();
    let gets = machine.reference::<Read>(&process, A, 2 * PAGE).unwrap();
    assert_eq!((gets.pages(), gets.stopped()), (2, None));
    let gets = gets.into_raw();
    assert_eq!(machine.frame_at(&process, A).1.refs, 2);
    // SAFETY: referenced above, through this machine.
    let gets = unsafe { GotPages::from_raw(process.env(), gets) };
    let gets = gets.into_raw();
    // SAFETY: as above.
    unsafe { pin::put_user_pages(&machine, gets) };
    assert_eq!(machine.frame_at(&process, A).1.refs, 1);
    balance();
}

fn read_pins_do_not_mark_dirty_and_write_pins_do<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 1);
    drop(machine.pin::<Read>(&process, A, PAGE).unwrap());
    drop(machine.pin::<Write>(&process, A + PAGE, PAGE).unwrap());
    assert!(!machine.frame_at(&process, A).1.dirty && machine.frame_at(&process, A + PAGE).1.dirty);
}

/// A release too many is caught before the count wraps.
fn a_release_too_many_is_counted_as_a_bug<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    let frame = machine.frame_at(&process, A).0;
    // SAFETY: wrong on purpose; the word refuses.
    unsafe { pin::unpin_user_runs(&machine, &[PhysRun::from_parts(frame, 1, 0)], Dirty::No) };
    assert_eq!(machine.statistics().bugs_caught, 1);
    assert!(machine.frame_at(&process, A).1.is_sole());
    // SAFETY: wrong on purpose: not a frame at all.
    unsafe { pin::unpin_user_runs(&machine, &[PhysRun::from_parts(Pfn::new(1), 1, 0)], Dirty::No) };
    assert_eq!(machine.statistics().bugs_caught, 2);
    // The books are even again with two pins that nobody releases through the family.
    drop(process);
    let counters = machine.statistics();
    assert_eq!(counters.pins_released - counters.pins_acquired, 2);
    machine.expect_bugs(2);
}

/// Byte-exact bounds, copies over page edges, and nothing beyond the range.
fn pinned_bytes_are_exact<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.memory().scatter(true);
    let process = machine.populated(4, 1);
    let (start, length) = (A + 100, 2 * PAGE + 300);
    let pinned = machine.pin::<Write>(&process, start, length).unwrap().complete().unwrap();
    let byte_runs: Vec<ByteRun> = pinned.byte_runs().collect();
    assert_eq!(byte_runs.iter().map(|run| run.length).collect::<Vec<_>>(), [PAGE - 100, PAGE, 400]);
    for (run, address) in byte_runs.iter().zip([start, A + PAGE, A + 2 * PAGE]) {
        assert_eq!(run.address, machine.physical(&process, address));
    }
    pinned.copy_from(PAGE - 102, &[1, 2, 3, 4]).unwrap();
    assert_eq!(machine.load(0, &process, A + PAGE - 2, 4), Ok(0x0403_0201));
    machine.store(0, &process, A + 2 * PAGE + 399, 0xaabb, 2).unwrap();
    let mut bytes = [0; 2];
    pinned.copy_to(length - 1, &mut bytes[..1]).unwrap();
    assert_eq!(bytes, [0xbb, 0]);
    assert_eq!(pinned.copy_to(length - 1, &mut bytes), Err(OutOfRange));
    assert_eq!(pinned.copy_from(u64::MAX, &[1]), Err(OutOfRange));
    // SAFETY: one thread; the same holds below.
    unsafe {
        assert_eq!(pinned.byte(length).err(), Some(OutOfRange));
        pinned.byte_mut(length - 1).unwrap().write(9);
        assert_eq!(pinned.byte(length - 1).unwrap().read(), 9);
    }
    for (edge, page) in [(PAGE - 100, 1), (2 * PAGE - 100, 2)] {
        let (last, first) = (A + page * PAGE - 1, A + page * PAGE);
        machine.put(&process, last, 0x70 + page as u8);
        machine.put(&process, first, 0x80 + page as u8);
        // SAFETY: as above.
        let seen = [edge - 1, edge].map(|offset| u64::from(unsafe { pinned.byte(offset) }.unwrap().read()));
        assert_eq!(seen, [0x70 + page, 0x80 + page], "runs that are no neighbours");
    }
    assert_eq!(machine.load(0, &process, A + 2 * PAGE + 399, 2), Ok(0xaa09));
    assert!(format!("{pinned:?}").contains("PhysRun"));
    // SAFETY: pinned above, through this machine, and charged to this budget.
    let pins = unsafe { Pinned::from_raw(&process, pinned.into_raw()) };
    assert_eq!(pins.complete().unwrap().range().start(), start);
}

every_layout!(
    untouched_pages_are_faulted_in_unless_forbidden,
    write_pins_make_the_page_writable,
    vmas_decide_what_may_be_pinned,
    foreign_memory_is_not_pinnable,
    flags_are_checked,
    budgets_are_charged_for_what_is_pinned,
    raw_and_owned_pins_are_uncharged,
    a_read_pin_that_comes_back_marks_nothing_dirty,
    owned_pins_outlive_their_process,
    a_range_of_more_levels_is_refused,
    every_release_balances,
    read_pins_do_not_mark_dirty_and_write_pins_do,
    a_release_too_many_is_counted_as_a_bug,
    pinned_bytes_are_exact,
);

/// More than poisoned memory has, since the frames' bytes are not where the machine thinks.
const MIRRORED: u64 = 16 * 1024 + 2;

/// Memory in which the frame behind another one is not behind it: only the frames of a block have to be.
struct Mirror<'m>(&'m Machine<Wide>);

// SAFETY: each frame has the bytes of another one, as long as the machine lives; there are no blocks of several.
unsafe impl PhysMap for Mirror<'_> {
    fn frame_ptr(&self, frame: Pfn) -> *mut u8 {
        self.0.frame_ptr(Pfn::new(2 * FIRST + MIRRORED - 1 - frame.number()))
    }
}

/// No copy goes on behind a page, whatever lies there.
#[test]
fn copies_end_with_each_page() {
    let machine = Machine::<Wide>::new(MIRRORED as usize);
    // SAFETY: one machine is every part but the map, which knows its frames.
    let kernel = unsafe { Platform::new(Mirror(&machine), &machine, &machine, &machine, &machine) };
    let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    space.map(A, 4 * PAGE, RW).unwrap();
    let pin =
        |start: u64, length: u64| space.pin(Write, space.range(start, length).unwrap(), vec![PhysRun::default(); 3]);
    // The tables come with the first page, so that no table lies between the others.
    drop(pin(A + 3 * PAGE, 1).unwrap());
    let whole = pin(A + 100, 2 * PAGE).unwrap();
    assert_eq!(whole.runs().len(), 1, "neighbours");
    let bytes: Vec<u8> = (0..2 * PAGE).map(|byte| (byte / 7) as u8).collect();
    whole.copy_from(0, &bytes).unwrap();
    let mut seen = vec![0; bytes.len()];
    whole.copy_to(0, &mut seen).unwrap();
    assert!(seen == bytes);
    for (start, end) in [(100, PAGE), (PAGE, 2 * PAGE), (2 * PAGE, 2 * PAGE + 100)] {
        let mut part = vec![0; (end - start) as usize];
        pin(A + start, end - start).unwrap().copy_to(0, &mut part).unwrap();
        assert!(part == bytes[start as usize - 100..end as usize - 100], "{start:#x}");
    }
}
