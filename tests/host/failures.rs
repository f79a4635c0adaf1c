//! Every operation with the n-th allocation failing, for every n: a precise error, nothing lost, nothing half done.

use std::collections::BTreeMap;

use pagepin::fault::{Fault, FaultAccess, FaultError, FaultOutcome};
use pagepin::frame::Layout;
use pagepin::pin::{PinError, Read, Write};
use pagepin::space::{ForkError, SpaceError, SpaceOptions, UserSpace, fork_areas};
use pagepin::{AddressSpace, Area, Backing, LeafSize, PageAddr, Pfn, Rights};

use crate::machine::{A, Machine, NONE, PAGE, Process, R, RW};

/// A process with a bit of everything, over several tables.
fn furnished<L: Layout>(machine: &Machine<L>) -> Process<'_, L> {
    let process = machine.populated(5, 10);
    let far = 1 << 40;
    process.map(far, 3 * PAGE, RW).unwrap();
    machine.put(&process, far, 1);
    assert_eq!(machine.get(&process, far + PAGE), 0, "the zero frame");
    process.map(A + 16 * PAGE, PAGE, RW).unwrap();
    machine.put(&process, A + 16 * PAGE, 9);
    process.protect(A + 2 * PAGE, PAGE, NONE).unwrap();
    process.protect(A + 3 * PAGE, PAGE, R).unwrap();
    // SAFETY: registers of the emulated machine.
    unsafe { process.map_foreign(far + 8 * PAGE, PAGE, Pfn::new(0xfee0), RW).unwrap() };
    process
}

/// INV-14 (and tgoskits #2096): fork with every number of allocations granted before memory runs out.
fn a_fork_that_fails_leaves_everything_as_it_was<L: Layout>() {
    for shared_before in [false, true] {
        let machine = Machine::<L>::new(128);
        let parent = furnished(&machine);
        let sibling = shared_before.then(|| parent.fork().unwrap());
        if shared_before {
            // Some pages are shared already, some are this process's own again, one of those read-only.
            machine.put(&parent, A, 20);
            drop(machine.pin::<Read>(&parent, A + PAGE, 1).unwrap());
        }
        let pins = [machine.pin::<Write>(&parent, A + 4 * PAGE, 1).unwrap(), machine.pin(&parent, 1 << 40, 1).unwrap()];
        let before = machine.image();
        let mut failures = 0;
        for allowed in 0.. {
            machine.memory().allow(Some(allowed));
            let result = parent.fork();
            machine.memory().allow(None);
            match result {
                Err(error) => assert_eq!(error, ForkError::NoMemory),
                Ok(child) => {
                    assert_ne!(machine.image(), before);
                    drop(child);
                    break;
                }
            }
            assert_eq!(machine.image(), before, "INV-14: after {allowed} allocations");
            failures += 1;
            // The parent's rights are what they were, in hardware too: no fault is needed to write.
            let write = machine.attempt(3, &parent, A, FaultAccess::Write);
            assert!(write.is_ok(), "after {allowed} allocations: {write:?}");
        }
        assert!(failures >= 9, "a root, six or more tables, two copies: {failures}");
        drop(pins);
        drop(sibling);
    }
}

/// The same when a count is at its limit or a frame is frozen, in the last page of all.
fn a_fork_that_meets_a_refusing_frame_leaves_everything_as_it_was<L: Layout>() {
    let machine = Machine::<L>::new(128);
    let parent = machine.populated(6, 10);
    let last = machine.word(machine.frame_at(&parent, A + 5 * PAGE).0);
    let limit = pagepin::PageFrame::<L>::MAX_REFS;
    last.try_freeze(1).unwrap();
    let before = machine.image();
    assert_eq!(parent.fork().err(), Some(ForkError::Frozen));
    assert_eq!(machine.image(), before, "INV-14");
    last.unfreeze(limit).unwrap();
    let before = machine.image();
    assert_eq!(parent.fork().err(), Some(ForkError::CountOverflow));
    assert_eq!(machine.image(), before, "INV-14");
    last.try_freeze(limit).unwrap();
    last.unfreeze(1).unwrap();
    assert!(parent.fork().is_ok());
}

/// A leaf that nobody accounts for: the tables were damaged by someone else.
fn a_fork_of_damaged_tables_is_undone<L: Layout>() {
    let machine = Machine::<L>::new(128);
    let parent = machine.populated(6, 10);
    let leaf = machine.leaf(&parent, A + 5 * PAGE).unwrap();
    machine.poke(leaf.at, (leaf.bits & 0xfff) | 0xfee0_0000);
    let before = machine.image();
    assert_eq!(parent.fork().err(), Some(ForkError::MalformedTable));
    assert_eq!(machine.image(), before, "INV-14");
    machine.poke(leaf.at, leaf.bits);
}

/// The large leaves are undone, too: both a shared and a copied one.
fn a_fork_with_large_leaves_is_undone<L: Layout>() {
    let machine = Machine::<L>::new(8192);
    let (parent, size, address) = (machine.process(), LeafSize::Size2MiB, 1 << 30);
    parent.map(address, 3 * size.bytes(), RW).unwrap();
    for index in 0..3 {
        let block = machine.block(size);
        machine.install(&parent, address + index * size.bytes(), size, block, 7);
    }
    let area = Area {
        start: PageAddr::containing(address),
        end: PageAddr::containing(address + 3 * size.bytes()),
        rights: RW,
        may: Rights::all(),
        backing: Backing::Anonymous,
        key: 0,
    };
    let pins = machine.pin::<Read>(&parent, address + size.bytes(), 1).unwrap();
    let before = machine.image();
    for allowed in 0..3 {
        let child = machine.process();
        machine.memory().allow(Some(allowed));
        // SAFETY: the area is what was installed; nothing else runs meanwhile, and the child is new.
        let forked = unsafe { fork_areas(&machine, parent.mm(), child.mm(), &[area]) };
        assert_eq!(forked, Err(ForkError::NoMemory), "{allowed}");
        machine.memory().allow(None);
        drop(child);
        assert_eq!(machine.image(), before, "INV-14");
    }
    drop(pins);
}

/// Runs `operation` on a fresh scene with 0, 1, 2… allocations; the errors until it succeeds.
fn starved<L: Layout, E: std::fmt::Debug>(
    operation: impl for<'m> Fn(&'m Machine<L>, &Process<'m, L>) -> Result<(), E>,
) -> Vec<E> {
    let mut errors = Vec::new();
    loop {
        let machine = Machine::<L>::new(128);
        let process = furnished(&machine);
        machine.memory().allow(Some(errors.len() as u64));
        let result = operation(&machine, &process);
        machine.memory().allow(None);
        machine.audit(&[&process], &BTreeMap::new());
        match result {
            Ok(()) => return errors,
            Err(error) => errors.push(error),
        }
    }
}

fn fault<L: Layout>(process: &Process<'_, L>, address: u64, access: FaultAccess) -> Result<FaultOutcome, FaultError> {
    process.fault(Fault { address, access, key_denied: false, malformed_table: false })
}

fn faults_without_memory_say_so<L: Layout>() {
    let untouched = 0x10_0000_0000;
    let errors = starved::<L, _>(|_, process| {
        process.map(untouched, PAGE, RW).unwrap();
        fault(process, untouched, FaultAccess::Write).map(drop)
    });
    assert_eq!(errors, [FaultError::NoMemory; 3], "a frame and two tables");
    let errors = starved::<L, _>(|_, process| {
        process.map(untouched, PAGE, RW).unwrap();
        fault(process, untouched, FaultAccess::Read).map(drop)
    });
    assert_eq!(errors, [FaultError::NoMemory; 2], "two tables");
    let errors = starved::<L, _>(|_, process| fault(process, (1 << 40) + PAGE, FaultAccess::Write).map(drop));
    assert_eq!(errors, [FaultError::NoMemory], "a frame instead of the zero frame");
    let errors = starved::<L, _>(|machine, process| {
        machine.memory().allow(None);
        let child = process.fork().unwrap();
        machine.memory().allow(Some(0));
        assert_eq!(fault(process, A, FaultAccess::Write), Err(FaultError::NoMemory));
        assert_eq!(fault(&child, A, FaultAccess::Write), Err(FaultError::NoMemory), "no copy");
        machine.audit(&[process, &child], &BTreeMap::new());
        drop(child);
        fault(process, A, FaultAccess::Write).map(drop)
    });
    assert_eq!(errors, [], "nobody else is left: no memory is needed");
}

fn pins_without_memory_say_so_or_stop_short<L: Layout>() {
    let untouched = 0x10_0000_0000;
    let errors = starved::<L, _>(|machine, process| {
        process.map(untouched, 4 * PAGE, RW).unwrap();
        let pins = machine.pin::<Read>(process, untouched, 4 * PAGE)?;
        let stopped = pins.stopped().map(|stopped| stopped.reason);
        assert!(pins.pages() == 4 || stopped == Some(PinError::NoMemory));
        pins.complete().map(drop)
    });
    assert_eq!(errors, [PinError::NoMemory; 6], "four frames and two tables");
}

fn new_spaces_and_foreign_maps_without_memory_change_nothing<L: Layout>() {
    let errors = starved::<L, _>(|machine, _| UserSpace::new(machine, SpaceOptions::default()).map(drop));
    assert_eq!(errors, [SpaceError::NoMemory]);
    let start = 0x20_0020_0000 - 2 * PAGE;
    let errors = starved::<L, _>(|machine, process| {
        let tables = machine.leaves(process).1.len();
        // SAFETY: registers of the emulated machine.
        let result = unsafe { process.map_foreign(start, 4 * PAGE, Pfn::new(0xfee0), RW) };
        if result.is_err() {
            assert_eq!(machine.leaves(process).1.len(), tables, "its tables went as well");
            process.map(start, 4 * PAGE, RW).unwrap();
        }
        result
    });
    assert_eq!(errors, [SpaceError::NoMemory; 3], "a level-2 and two level-1 tables");
}

/// What takes memory away or changes rights needs none.
fn unmap_discard_and_protect_need_no_frames<L: Layout>() {
    let everything = (1u64 << 40) + (1 << 20);
    let unmap = starved::<L, _>(|_, process| process.unmap(A - A % PAGE, everything - A).map(drop));
    let discard = starved::<L, _>(|_, process| process.discard(A, 4 * PAGE).map(drop));
    let protect = starved::<L, _>(|_, process| process.protect(A, 5 * PAGE, R));
    assert_eq!((unmap, discard, protect), (vec![], vec![], vec![]));
}

both_layouts!(
    a_fork_that_fails_leaves_everything_as_it_was,
    a_fork_that_meets_a_refusing_frame_leaves_everything_as_it_was,
    a_fork_of_damaged_tables_is_undone,
    a_fork_with_large_leaves_is_undone,
    faults_without_memory_say_so,
    pins_without_memory_say_so_or_stop_short,
    new_spaces_and_foreign_maps_without_memory_change_nothing,
    unmap_discard_and_protect_need_no_frames,
);
