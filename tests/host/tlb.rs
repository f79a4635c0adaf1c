//! Stale translations: what other CPUs may do between a flush request and its acknowledgement, and never after it.

use std::cell::Cell;
use std::collections::BTreeMap;

use pagepin::Access;
use pagepin::frame::Layout;
use pagepin::pin::Write;

use crate::machine::{A, CPUS, Machine, NONE, PAGE, Process, R, RW, Trap};

/// A store through the TLB, without resolving a fault.
fn try_store<L: Layout>(machine: &Machine<L>, cpu: usize, process: &Process<'_, L>, byte: u8) -> Result<(), Trap> {
    machine.attempt(cpu, process, A, Access::Write).map(|physical| machine.memory().write(physical, byte))
}

fn try_load<L: Layout>(machine: &Machine<L>, cpu: usize, process: &Process<'_, L>) -> Option<u8> {
    machine.attempt(cpu, process, A, Access::Read).ok().map(|physical| machine.memory().read(physical))
}

/// golang/go #34988: one thread forks, one writes and so breaks copy-on-write, one runs on a stale translation. What a
/// thread reads never goes back, and no write is lost.
fn no_write_is_lost_while_a_page_is_copied<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(1, 1);
    // CPU 2 has the page cached, writable.
    machine.store(2, &parent, A, 2, 1).unwrap();
    let child = parent.fork().unwrap();
    assert!(try_store(&machine, 2, &parent, 9).is_err(), "fork is over, so the translation is too");
    // CPU 2 has it cached again, read-only, and shared with the child.
    assert_eq!(try_load(&machine, 2, &parent), Some(2));
    let seen = Cell::new(None);
    let worst_moment = || {
        // CPU 1's new page is ready, CPU 2 still reads the old one. It must not be able to write there.
        seen.set(try_load(&machine, 2, &parent));
        assert!(try_store(&machine, 2, &parent, 66).is_err());
        assert_eq!(machine.get(&child, A), 2);
        // The other CPUs, without a cached translation, must not find a new one yet.
        assert_eq!(try_load(&machine, 3, &parent), None);
    };
    machine.before_acknowledgement(worst_moment, || machine.store(1, &parent, A, 3, 1).unwrap());
    assert!(matches!(seen.get(), None | Some(2)));
    for cpu in 0..CPUS {
        assert_eq!(machine.load(cpu, &parent, A, 1), Ok(3), "CPU {cpu} reads an old page");
    }
    machine.store(2, &parent, A, 4, 1).unwrap();
    assert!((0..CPUS).all(|cpu| machine.load(cpu, &parent, A, 1) == Ok(4)));
    assert_eq!(machine.get(&child, A), 2);
}

/// A write through a stale translation during fork counts as before the fork: both see it, or neither loses it.
fn a_stale_writer_during_fork_loses_nothing<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(1, 1);
    machine.store(2, &parent, A, 2, 1).unwrap();
    let child = machine.before_acknowledgement(
        || assert!(try_store(&machine, 2, &parent, 3).is_ok(), "still cached"),
        || parent.fork().unwrap(),
    );
    assert_eq!((machine.get(&parent, A), machine.get(&child, A)), (3, 3));
    // From here on the two are apart, whoever writes.
    machine.store(2, &parent, A, 4, 1).unwrap();
    assert_eq!((machine.get(&parent, A), machine.get(&child, A)), (4, 3));
}

/// A page that is pinned while its stale writer runs: fork copies it, and the parent's page stays where it is.
fn a_stale_writer_keeps_writing_to_a_pinned_page<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(2, 1);
    machine.store(2, &parent, A, 2, 1).unwrap();
    let pins = machine.pin::<Write>(&parent, A, 1).unwrap();
    let child =
        machine.before_acknowledgement(|| try_store(&machine, 2, &parent, 3).unwrap(), || parent.fork().unwrap());
    assert!(try_store(&machine, 2, &parent, 4).is_ok(), "the page is the parent's own: no fault");
    assert_eq!(machine.dma_read(pins.runs()[0].first().address()), 4);
    assert_eq!(machine.get(&child, A), 2);
    drop(pins);
}

/// INV-12: after unmap, discard and protect no CPU can do what it could before; and every flush covers large leaves.
fn rights_that_are_taken_away_are_gone_on_every_cpu<L: Layout>() {
    type Taking<L> = for<'m> fn(&Process<'m, L>);
    let ways: [(Taking<L>, bool); 4] = [
        (|process| _ = process.unmap(A, PAGE).unwrap(), false),
        (|process| _ = process.discard(A, PAGE).unwrap(), false),
        (|process| process.protect(A, PAGE, NONE).unwrap(), false),
        (|process| process.protect(A, PAGE, R).unwrap(), true),
    ];
    for (take, readable) in ways {
        let machine = Machine::<L>::new(64);
        let process = machine.populated(1, 1);
        (0..CPUS).for_each(|cpu| machine.store(cpu, &process, A, 5, 1).unwrap());
        let flushes = machine.flushes();
        take(&process);
        assert_eq!(machine.flushes(), flushes + 1, "one flush for the whole operation");
        for cpu in 0..CPUS {
            assert!(try_store(&machine, cpu, &process, 6).is_err());
            assert_eq!(try_load(&machine, cpu, &process).is_some(), readable);
        }
    }
}

/// A stale translation that says less than the entry costs a fault and nothing else.
fn a_stale_read_only_translation_is_spurious<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    drop(process.fork().unwrap());
    assert_eq!(machine.load(2, &process, A, 1), Ok(1));
    machine.store(1, &process, A, 2, 1).unwrap();
    let frame = machine.frame_at(&process, A).0;
    machine.store(2, &process, A, 3, 1).unwrap();
    assert_eq!(machine.frame_at(&process, A).0, frame);
    assert!((0..CPUS).all(|cpu| machine.load(cpu, &process, A, 1) == Ok(3)));
}

/// Operations that take nothing away flush nothing.
fn first_touches_and_reuse_do_not_flush<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 1);
    let read_only = process.fork().unwrap();
    drop(read_only);
    let flushes = machine.flushes();
    machine.put(&process, A, 9);
    process.map(A + 4 * PAGE, PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A + 4 * PAGE), 0);
    drop(machine.pin::<Write>(&process, A, 2 * PAGE).unwrap());
    process.unmap(A + 8 * PAGE, PAGE).unwrap();
    assert_eq!(machine.flushes(), flushes);
}

/// A second fork finds everything write-protected already, and asks no CPU to forget anything.
fn a_second_fork_does_not_flush<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(2, 1);
    let first = parent.fork().unwrap();
    let flushes = machine.flushes();
    let second = parent.fork().unwrap();
    assert_eq!(machine.flushes(), flushes);
    machine.audit(&[&parent, &first, &second], &BTreeMap::new());
}

/// The table under a walk cache: unmapped, freed, and the region mapped again elsewhere in memory.
fn cached_upper_entries_go_with_their_tables<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 1);
    (0..CPUS).for_each(|cpu| assert_eq!(machine.load(cpu, &process, A, 1), Ok(1)));
    process.unmap(A, PAGE).unwrap();
    let other = machine.populated(1, 7);
    process.map(A, PAGE, RW).unwrap();
    machine.store(3, &process, A, 2, 1).unwrap();
    assert!((0..CPUS).all(|cpu| machine.load(cpu, &process, A, 1) == Ok(2)));
    assert_eq!(machine.get(&other, A), 7);
}

/// Locks are not needed to give pins back: a completion interrupt may come while its CPU holds the mm lock.
fn pins_are_released_while_the_mm_lock_is_held<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(3, 1);
    let own = machine.pin::<Write>(&process, A, PAGE).unwrap();
    let other = machine.pin::<Write>(&process, A + PAGE, PAGE).unwrap().into_owned();
    let gets = machine.reference::<Write>(&process, A + 2 * PAGE, PAGE).unwrap();
    // The flush of an unmap runs with the mm lock held. One release is the last of its frame.
    let interrupt = || {
        drop(own);
        drop(gets);
        let (_, buffer) = other.release();
        assert_eq!(buffer.len(), 64, "the buffer comes back: its memory is not given to a heap here");
    };
    let unmapped = machine.before_acknowledgement(interrupt, || process.unmap(A, 3 * PAGE).unwrap());
    assert_eq!((unmapped.pages, unmapped.pinned_pages), (3, 0));
}

every_layout!(
    no_write_is_lost_while_a_page_is_copied,
    a_stale_writer_during_fork_loses_nothing,
    a_stale_writer_keeps_writing_to_a_pinned_page,
    rights_that_are_taken_away_are_gone_on_every_cpu,
    a_stale_read_only_translation_is_spurious,
    first_touches_and_reuse_do_not_flush,
    a_second_fork_does_not_flush,
    cached_upper_entries_go_with_their_tables,
    pins_are_released_while_the_mm_lock_is_held,
);
