//! Bugs of other kernels that no test of a promise covers by itself. `docs/BUGS.md` lists all of them.

use std::cell::Cell;
use std::collections::BTreeMap;

use pagepin::fault::FaultError;
use pagepin::frame::{Dirty, FrameKind, Layout, Ownership};
use pagepin::pin::{self, PhysRun, PinError, PinFlags, RawPins, Read, Write};
use pagepin::space::{ForkError, Unmapped};
use pagepin::{FlushRange, FrameRequest, FrameSource, LeafSize, MemoryType, ReadSide, Rights, Shootdown, Unlimited};

use crate::forms::{self, FORMS, Form};
use crate::machine::{A, CPUS, Machine, NONE, PAGE, Process, R, RW, range};

const DIRTY: u64 = 1 << 6;

fn writable<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, address: u64) -> bool {
    Machine::<L>::is_writable(machine.leaf(process, address).unwrap().bits)
}

/// CVE-2016-5195 (Dirty COW) and Linux 4ceb5db9757a: the copy that a write pin has just made is taken away before the
/// pin looks for it. What it does then is still a write, to a page of its own.
fn a_page_that_goes_between_fault_and_pin_is_asked_for_as_before<L: Layout>() {
    for forced in [false, true] {
        let gone = (0..).take(100).find(|step| page_goes_between_fault_and_pin::<L>(forced, *step));
        assert!(gone.is_some(), "the copy was never seen, forced {forced}");
    }
}

/// Whether the copy was there at this step, so that it could be taken away.
fn page_goes_between_fault_and_pin<L: Layout>(forced: bool, step: u64) -> bool {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(1, 10);
    let child = parent.fork().unwrap();
    if forced {
        child.protect(A, PAGE, R).unwrap();
    }
    let shared = machine.frame_at(&parent, A).0;
    let gone = Cell::new(false);
    // As the `discard` of another thread would do it.
    let zap = || {
        let leaf = machine.leaf(&child, A).unwrap();
        if leaf.frame() != shared && leaf.is_present() {
            machine.poke(leaf.at, 0);
            machine.flush(child.root(), FlushRange::Everything);
            assert!(machine.word(leaf.frame()).put().is_ok());
            // SAFETY: that was its only reference, and no CPU has a translation.
            unsafe { machine.free(leaf.frame(), 0) };
            gone.set(true);
        }
    };
    let flags = if forced { PinFlags::FORCE } else { PinFlags::empty() };
    // Inside a walk every look at an entry is a step, those under the lock as well.
    let walk = machine.enter();
    let (pins, _) = machine.race_at(step, zap, || machine.pin_slow::<Write>(&child, A, 1, flags));
    drop(walk);
    let pins = pins.unwrap().complete().unwrap();
    let (frame, word) = machine.frame_at(&child, A);
    assert_eq!((word.pins, word.exclusive), (1, true), "the page that is mapped is the one that is pinned");
    assert_ne!(frame, shared);
    assert_eq!(writable(&machine, &child, A), !forced, "INV-9");
    pins.copy_from(0, &[42]).unwrap();
    assert_eq!((machine.get(&parent, A), machine.get(&child, A)), (10, 42));
    machine.audit(&[&parent, &child], &BTreeMap::from([(frame, (1, 1))]));
    gone.get()
}

/// CVE-2017-1000405 (Huge Dirty COW), CVE-2022-2590: a dirty bit in a read-only entry is no proof that the page was copied
/// for this process.
fn a_dirty_bit_does_not_stand_for_a_copy<L: Layout>() {
    let sizes = [LeafSize::Size4KiB, LeafSize::Size2MiB];
    for (size, forced) in sizes.into_iter().flat_map(|size| [(size, false), (size, true)]) {
        let machine = Machine::<L>::new(4096);
        let (parent, address) = (machine.process(), 1 << 30);
        parent.map(address, size.bytes(), RW).unwrap();
        machine.install(&parent, address, size, machine.block(size), 7);
        machine.put(&parent, address, 10);
        let child = parent.fork().unwrap();
        if forced {
            child.protect(address, size.bytes(), R).unwrap();
        }
        let leaf = machine.leaf(&child, address).unwrap();
        machine.poke(leaf.at, leaf.bits | DIRTY);
        if forced {
            let pins = machine.pin_slow::<Write>(&child, address, 1, PinFlags::FORCE).unwrap();
            pins.complete().unwrap().copy_from(0, &[42]).unwrap();
        } else {
            machine.put(&child, address, 42);
        }
        assert_eq!((machine.get(&parent, address), machine.get(&child, address)), (10, 42), "{size:?}");
    }
    // The zero frame, read by a touch that left the bit behind. The machine checks that it stays zero.
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 2 * PAGE, RW).unwrap();
    for page in [A, A + PAGE] {
        assert_eq!(machine.get(&process, page), 0);
        let leaf = machine.leaf(&process, page).unwrap();
        machine.poke(leaf.at, leaf.bits | DIRTY);
    }
    machine.put(&process, A, 1);
    drop(machine.pin::<Write>(&process, A + PAGE, 1).unwrap().complete().unwrap());
}

/// Linux 57efa1fe5957, from the other side than `walker_races`: wherever fork is when another CPU pins without a lock, fork
/// has seen the pin, or the pin is refused.
fn a_pin_at_any_step_of_fork_is_seen_or_refused<L: Layout>() {
    let mut outcomes = [0, 0];
    for step in 0.. {
        let machine = Machine::<L>::new(64);
        let parent = machine.populated(3, 10);
        let page = range(&parent, A + PAGE, 1);
        let mut pins = None;
        let pin = || {
            pins = forms::pin::<Write, L>(Form::FastOnly, &parent, page, PinFlags::empty(), 1).ok();
        };
        let walk = machine.enter();
        let (child, fired) = machine.race_at(step, pin, || parent.fork().unwrap());
        drop(walk);
        let mut held = BTreeMap::new();
        if let Some(pins) = &pins {
            let frame = pins.runs()[0].first();
            held.insert(frame, (1, 1));
            assert_eq!(machine.frame_at(&parent, A + PAGE).0, frame, "INV-3, step {step}");
            assert_ne!(machine.frame_at(&child, A + PAGE).0, frame, "INV-2, step {step}");
            machine.put(&parent, A + PAGE, 20);
            assert_eq!(machine.dma_read(frame.address()), 20, "INV-11, step {step}");
        }
        machine.audit(&[&parent, &child], &held);
        assert_eq!(machine.get(&child, A + PAGE), 11);
        outcomes[usize::from(pins.is_some())] += 1;
        if !fired {
            break;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 1), "refused, granted: {outcomes:?}");
}

/// CVE-2022-46689 (MacDirtyCow): the right to write goes after the first look and before the second.
fn rights_that_go_during_a_pin_are_not_remembered<L: Layout>() {
    let mut granted = 0;
    for step in 0.. {
        let machine = Machine::<L>::new(64);
        let process = machine.populated(1, 10);
        let page = range(&process, A, 1);
        let take = || process.protect(A, PAGE, R).unwrap();
        let call = || forms::pin::<Write, L>(Form::Fast, &process, page, PinFlags::empty(), 1).map(drop);
        let (result, fired) = machine.race_at(step, take, call);
        if !fired {
            assert_eq!(result, Ok(()));
            break;
        }
        assert_eq!(machine.store(1, &process, A, 1, 1), Err(FaultError::AccessDenied), "step {step}");
        assert!(!writable(&machine, &process, A), "step {step}");
        // After the second look at the entry the pin has come before.
        granted += u32::from(result.is_ok());
        assert!(result.is_ok() || result == Err(PinError::AccessDenied), "step {step}: {result:?}");
    }
    assert!(granted <= 1, "{granted} pins of a page that was read-only by then");
}

/// CVE-2026-98999: whichever way the last hold of a frame is given back, the frame is free then.
fn every_way_to_give_back_frees_with_the_last_hold<L: Layout>() {
    type Way<L> = fn(&Machine<L>, RawPins<Read, Vec<PhysRun>>);
    let ways: [Way<L>; 4] = [
        // SAFETY: the run is one base page, pinned through this machine and not given back yet.
        |machine, pins| unsafe { pin::unpin_user_runs(machine, &[pins.runs()[0]], Dirty::No) },
        // SAFETY: as above.
        |machine, pins| unsafe { pin::unpin_user_runs(machine, &[pins.runs()[0]], Dirty::Yes) },
        // SAFETY: as above.
        |machine, pins| unsafe { drop(pin::unpin_user_pages(machine, &Unlimited, pins, Dirty::No)) },
        // SAFETY: as above.
        |machine, pins| unsafe { drop(pin::unpin_user_pages(machine, &Unlimited, pins, Dirty::Yes)) },
    ];
    for give_back in ways {
        let machine = Machine::<L>::new(64);
        let process = machine.populated(1, 1);
        let [first, last] = [0, 1].map(|_| machine.pin::<Read>(&process, A, 1).unwrap().into_raw());
        drop(process);
        give_back(&machine, first);
        assert_eq!(machine.memory().allocated(), [(last.runs()[0].first(), 0)], "one pin is left");
        give_back(&machine, last);
        assert_eq!(machine.memory().allocated(), []);
    }
}

/// asterinas #2269: two devices work on one page, and one is done before the other.
fn a_page_stays_pinned_until_the_last_device_is_done<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(1, 10);
    let first = machine.pin::<Write>(&parent, A, 1).unwrap();
    let second = machine.pin::<Read>(&parent, A, 1).unwrap();
    let frame = second.runs()[0].first();
    assert_eq!(first.runs()[0].first(), frame);
    drop(first);
    let child = parent.fork().unwrap();
    machine.put(&parent, A, 20);
    assert_eq!((machine.dma_read(frame.address()), machine.get(&child, A)), (20, 10));
    machine.audit(&[&parent, &child], &BTreeMap::from([(frame, (1, 1))]));
    drop(second);
}

/// Linux 9844f5462392 and asterinas #3651: a large page that is copied on write, and the zero frame that is written for the
/// first time, leave every TLB.
fn what_a_copy_replaced_is_read_by_no_cpu<L: Layout>() {
    let (size, large) = (LeafSize::Size2MiB, 1 << 30);
    let machine = Machine::<L>::new(4096);
    let process = machine.process();
    process.map(A, PAGE, RW).unwrap();
    process.map(large, size.bytes(), RW).unwrap();
    machine.install(&process, large, size, machine.block(size), 7);
    let far = large + 300 * PAGE;
    [large, far].iter().for_each(|address| machine.put(&process, *address, 0));
    let child = process.fork().unwrap();
    for address in [A, far, large] {
        assert!((0..CPUS).all(|cpu| machine.load(cpu, &process, address, 1) == Ok(0)));
    }
    for (address, byte) in [(A, 5), (far, 6), (large, 7)] {
        machine.store(1, &process, address, byte, 1).unwrap();
        for cpu in 0..CPUS {
            assert_eq!(machine.load(cpu, &process, address, 1), Ok(byte), "CPU {cpu}, {address:#x}");
        }
    }
    assert_eq!([A, far, large].map(|address| machine.get(&child, address)), [0; 3]);
}

/// CVE-2002-1667 (FreeBSD), Managarm #1616: memory that nobody has touched is changed, given away and inherited as well.
fn untouched_memory_can_be_changed_and_inherited<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 600 * PAGE, RW).unwrap();
    let nothing = Ok(Unmapped::default());
    assert_eq!(process.discard(A, 600 * PAGE), nothing);
    assert_eq!(process.unmap(A + 100 * PAGE, PAGE), nothing);
    for rights in [NONE, R, RW] {
        process.protect(A, 50 * PAGE, rights).unwrap();
    }
    let child = process.fork().unwrap();
    assert_eq!(machine.leaves(&child).1.len(), 1, "no table was needed");
    for (index, process) in [&process, &child].into_iter().enumerate() {
        assert_eq!(machine.load(0, process, A + 100 * PAGE, 1), Err(FaultError::NoVma));
        machine.put(process, A + 599 * PAGE, 7 + index as u8);
    }
    assert_eq!((machine.get(&process, A + 599 * PAGE), machine.get(&child, A + 599 * PAGE)), (7, 8));
}

/// NetBSD's loans, and the GUP of Linux 5.8 that read by a forced write: a pin for reading takes no right to write away,
/// also from a page that is pinned for writing, and gives none.
fn a_read_pin_changes_no_rights<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 10);
    let device = machine.pin::<Write>(&process, A, 1).unwrap();
    let before = machine.leaf(&process, A);
    let reader = machine.pin::<Read>(&process, A, 1).unwrap();
    assert_eq!((machine.leaf(&process, A), reader.runs()), (before, device.runs()));
    drop((device, reader));
    // Untouched, the zero frame, shared, and its own but read-only.
    for state in 0..4 {
        let machine = Machine::<L>::new(64);
        let process = machine.process();
        process.map(A, PAGE, RW).unwrap();
        match state {
            0 => {}
            1 => assert_eq!(machine.get(&process, A), 0),
            _ => machine.put(&process, A, 10),
        }
        let child = (state == 2).then(|| process.fork().unwrap());
        process.protect(A, PAGE, R).unwrap();
        drop(machine.pin::<Read>(&process, A, 1).unwrap());
        let bits = machine.leaf(&process, A).unwrap().bits;
        assert!(!writable(&machine, &process, A) && (bits & DIRTY == 0 || state == 3), "state {state}: {bits:#x}");
        assert_eq!(machine.store(0, &process, A, 1, 1), Err(FaultError::AccessDenied), "state {state}");
        drop(child);
    }
}

/// asterinas #1458 (an endless loop of faults), aplus #44 (fork gave rights): with every set of rights an access comes to
/// an end, and to the same one in a child.
fn every_set_of_rights_decides_and_is_inherited<L: Layout>() {
    for rights in (0..8).map(Rights::from_bits_truncate) {
        for (touched, forked) in [(false, false), (true, false), (false, true), (true, true)] {
            let machine = Machine::<L>::new(64);
            let parent = machine.process();
            parent.map(A, PAGE, RW).unwrap();
            if touched {
                machine.put(&parent, A, 10);
            }
            parent.protect(A, PAGE, rights).unwrap();
            let child = forked.then(|| parent.fork().unwrap());
            for process in [Some(&parent), child.as_ref()].into_iter().flatten() {
                let wanted = |allowed: bool| if allowed { Ok(()) } else { Err(FaultError::AccessDenied) };
                let what = format!("{rights:?}, touched {touched}, forked {forked}");
                // The machine gives up after a few faults of one access.
                assert_eq!(machine.load(0, process, A, 1).map(drop), wanted(!rights.is_empty()), "{what}");
                assert_eq!(machine.store(1, process, A, 1, 1), wanted(rights.contains(Rights::WRITE)), "{what}");
                assert_eq!(machine.execute(2, process, A), wanted(rights.contains(Rights::EXECUTE)), "{what}");
            }
        }
    }
}

/// CVE-2021-22543: memory that a driver has lent is not counted, though it is ordinary memory with a word in use.
fn memory_of_a_driver_is_not_taken_though_it_has_a_word<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    let lent = machine.allocate(FrameRequest::movable(0)).unwrap();
    machine.word(lent).hand_out(FrameKind::Device, 0, Ownership::Exclusive).unwrap();
    // SAFETY: the frame is this test's.
    unsafe { process.map_foreign(A, PAGE, lent, MemoryType::WRITE_BACK, RW).unwrap() };
    machine.put(&process, A, 1);
    let before = machine.word(lent).snapshot();
    for form in FORMS {
        let page = range(&process, A, 1);
        let error = Some(if form == Form::FastOnly { PinError::WouldFault } else { PinError::NotPinnable });
        let none = PinFlags::empty();
        // What may be written and not counted no fault makes anything else.
        assert_eq!(
            forms::pin::<Write, L>(form, &process, page, none, 1).err(),
            Some(PinError::NotPinnable),
            "{form:?}"
        );
        assert_eq!(forms::get::<Read, L>(form, &process, page, none, 1).err(), error, "{form:?}");
    }
    assert_eq!(machine.word(lent).snapshot(), before);
    drop(process);
    assert!(machine.word(lent).put().is_ok());
    // SAFETY: that was its only reference.
    unsafe { machine.free(lent, 0) };
}

/// tgoskits #1991: too many children are a matter of memory, not of a bad address.
#[test]
fn a_fork_that_hits_a_limit_is_not_a_bad_address() {
    let (again, memory, fault) = (11, 12, 14);
    assert_eq!((ForkError::CountOverflow.errno(), ForkError::NoMemory.errno()), (memory, memory));
    assert_eq!((ForkError::Frozen.errno(), ForkError::MalformedTable.errno()), (again, fault));
}

/// A pin that nobody has does not pass for one of the references that the frame has.
fn a_pin_that_nobody_has_is_not_given_back<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 7);
    let child = process.fork().unwrap();
    let (frame, before) = machine.frame_at(&process, A);
    assert_eq!((before.refs, before.pins), (2, 0));
    // SAFETY: not what the function asks for: nobody has pinned the page.
    unsafe { pin::unpin_user_runs(&machine, &[PhysRun::from_parts(frame, 1, 0)], Dirty::No) };
    assert_eq!(machine.frame_at(&process, A).1, before);
    machine.expect_bugs(1);
    machine.audit(&[&process, &child], &BTreeMap::new());
}

every_layout!(
    a_pin_that_nobody_has_is_not_given_back,
    a_page_that_goes_between_fault_and_pin_is_asked_for_as_before,
    a_dirty_bit_does_not_stand_for_a_copy,
    a_pin_at_any_step_of_fork_is_seen_or_refused,
    rights_that_go_during_a_pin_are_not_remembered,
    every_way_to_give_back_frees_with_the_last_hold,
    a_page_stays_pinned_until_the_last_device_is_done,
    what_a_copy_replaced_is_read_by_no_cpu,
    untouched_memory_can_be_changed_and_inherited,
    a_read_pin_changes_no_rights,
    every_set_of_rights_decides_and_is_inherited,
    memory_of_a_driver_is_not_taken_though_it_has_a_word,
);
