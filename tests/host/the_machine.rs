//! The fakes can fail: deliberately wrong sequences are caught by the machine, so a passing test means something.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pagepin::Access;
use pagepin::frame::{FrameKind, Layout, Released};
use pagepin::pin::Write;
use pagepin::{
    Entry, EntryAddr, EntryChange, FrameRequest, FrameSource, MemoryType, Pfn, PhysMap, ReadSide, Shootdown,
};

use crate::machine::{A, Machine, NONE, PAGE, Process, RX};

/// Runs a wrong sequence; the panic's message. The machine is lost afterwards.
fn caught<L: Layout>(wrong: impl FnOnce(&Machine<L>, &Process<'_, L>)) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let machine = Machine::<L>::new(64);
        let process = machine.populated(2, 1);
        wrong(&machine, &process);
    }))
    .expect_err("the machine did not notice");
    panic.downcast::<String>().map_or_else(|panic| (*panic.downcast::<&str>().unwrap()).to_string(), |text| *text)
}

fn free_before_flush_is_caught<L: Layout>() {
    let text = caught::<L>(|machine, process| {
        let leaf = machine.leaf(process, A).unwrap();
        machine.poke(leaf.at, 0);
        assert_eq!(machine.word(leaf.frame()).put(), Ok(Released::Last { order: 0, kind: FrameKind::Anonymous }));
        // SAFETY: wrong on purpose: a TLB still maps the frame.
        unsafe { machine.free(leaf.frame(), 0) };
    });
    assert!(text.contains("INV-12"), "{text}");
}

fn publish_before_flush_is_caught<L: Layout>() {
    let text = caught::<L>(|machine, process| {
        let leaf = machine.leaf(process, A).unwrap();
        // SAFETY: wrong on purpose: no flush between the two.
        unsafe {
            _ = machine.change_entry(leaf.at, EntryChange::Clear(1));
            machine.store_entry(leaf.at, Entry::from_bits(leaf.bits & !2));
        }
    });
    assert!(text.contains("INV-8"), "{text}");
}

/// The place of the entry that leads to the table of `at`.
fn above<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, at: EntryAddr) -> EntryAddr {
    let path = machine.path(process, A);
    path.iter().find(|(_, _, bits)| Entry::from_bits(*bits).table_frame() == at.table()).unwrap().1
}

fn table_freed_without_waiting_for_walkers_is_caught<L: Layout>() {
    let text = caught::<L>(|machine, process| {
        let leaf = machine.leaf(process, A).unwrap();
        // SAFETY: wrong on purpose: flushed, but no grace period.
        unsafe { machine.change_entry(above(machine, process, leaf.at), EntryChange::Clear(1)) };
        machine.flush(process.root(), pagepin::FlushRange::Everything);
        assert_eq!(machine.word(leaf.at.table()).put(), Ok(Released::Last { order: 0, kind: FrameKind::Table }));
        // SAFETY: wrong on purpose.
        unsafe { machine.free(leaf.at.table(), 0) };
    });
    assert!(text.contains("INV-13"), "{text}");
}

/// A table that left the tree takes what is below it along: who is in it may find all of it.
fn what_a_detached_table_names_is_watched<L: Layout>() {
    // Two levels up, where a walker does not look again.
    let detach = |machine: &Machine<L>, process: &Process<'_, L>| {
        let leaf = machine.leaf(process, A).unwrap();
        let (_, at, _) = machine.path(process, A)[1];
        // SAFETY: the table is in use.
        unsafe { machine.change_entry(at, EntryChange::Clear(u64::MAX)) };
        leaf
    };
    let text = caught::<L>(|machine, process| {
        let leaf = detach(machine, process);
        machine.flush(process.root(), pagepin::FlushRange::Everything);
        machine.synchronize();
        assert_eq!(machine.word(leaf.frame()).put(), Ok(Released::Last { order: 0, kind: FrameKind::Anonymous }));
        // SAFETY: wrong on purpose: the leaf still names it.
        unsafe { machine.free(leaf.frame(), 0) };
    });
    assert!(text.contains("may find it in a table that left the tree"), "{text}");
    let text = caught::<L>(|machine, process| {
        let leaf = detach(machine, process);
        // SAFETY: wrong on purpose: not flushed.
        unsafe { machine.store_entry(leaf.at, Entry::EMPTY) };
        assert_eq!(machine.word(leaf.frame()).put(), Ok(Released::Last { order: 0, kind: FrameKind::Anonymous }));
        // SAFETY: as above.
        unsafe { machine.free(leaf.frame(), 0) };
    });
    assert!(text.contains("INV-12"), "{text}");
    let text = caught::<L>(|machine, process| {
        let leaf = detach(machine, process);
        machine.flush(process.root(), pagepin::FlushRange::Everything);
        assert_eq!(machine.word(leaf.at.table()).put(), Ok(Released::Last { order: 0, kind: FrameKind::Table }));
        // SAFETY: wrong on purpose: a walker may be two tables above it.
        unsafe { machine.free(leaf.at.table(), 0) };
    });
    assert!(text.contains("INV-13"), "{text}");
}

fn use_after_free_double_free_and_leak_are_caught<L: Layout>() {
    let text = caught::<L>(|machine, _| {
        let frame = machine.allocate(FrameRequest::movable(0)).unwrap();
        // SAFETY: the second free is wrong on purpose.
        unsafe {
            machine.free(frame, 0);
            machine.free(frame, 0);
        }
    });
    assert!(text.contains("freed twice"), "{text}");
    let text = caught::<L>(|machine, _| {
        let frame = machine.allocate(FrameRequest::movable(0)).unwrap();
        // SAFETY: the write after the free is wrong on purpose, but stays within the arena.
        unsafe {
            machine.free(frame, 0);
            machine.frame_ptr(frame).write(1);
        }
        machine.allocate(FrameRequest::movable(0));
    });
    assert!(text.contains("written after it was freed"), "{text}");
    let text = caught::<L>(|machine, _| _ = machine.allocate(FrameRequest::movable(0)));
    assert!(text.contains("frames were lost"), "{text}");
    let text = caught::<L>(|machine, process| {
        let pins = machine.pin::<Write>(process, A, 1).unwrap();
        std::mem::forget(pins);
    });
    assert!(text.contains("frames were lost"), "{text}");
}

fn device_access_to_freed_memory_is_caught<L: Layout>() {
    let text = caught::<L>(|machine, process| {
        let physical = machine.physical(process, A);
        process.unmap(A, PAGE).unwrap();
        machine.dma_write(physical, &[1]);
    });
    assert!(text.contains("Free memory"), "{text}");
}

fn instructions_that_nobody_announced_are_caught<L: Layout>() {
    let text = caught::<L>(|machine, process| {
        process.protect(A, PAGE, RX).unwrap();
        machine.execute(0, process, A).unwrap();
        machine.dma_write(machine.physical(process, A), &[1]);
        _ = machine.execute(0, process, A);
    });
    assert!(text.contains("stale instructions"), "{text}");
}

fn memory_accessed_by_two_types_is_caught<L: Layout>() {
    let text = caught::<L>(|machine, process| {
        let leaf = machine.leaf(process, A).unwrap();
        machine.poke(leaf.at, leaf.bits | 0x80);
        machine.flush(process.root(), pagepin::FlushRange::Everything);
        machine.get(process, A);
    });
    assert!(text.contains("memory type"), "{text}");
    let text = caught::<L>(|machine, process| {
        // SAFETY: registers of the emulated machine, which are not to be cached.
        unsafe { process.map_foreign(A + 2 * PAGE, PAGE, Pfn::new(0xfee0), MemoryType::WRITE_BACK, RX).unwrap() };
        machine.get(process, A + 2 * PAGE);
    });
    assert!(text.contains("memory type"), "{text}");
}

fn waiting_for_a_lock_of_ones_own_is_caught<L: Layout>() {
    let text = caught::<L>(|machine, process| {
        machine.before_acknowledgement(|| _ = process.unmap(A, PAGE), || process.protect(A, PAGE, NONE).unwrap());
    });
    assert!(text.contains("deadlock"), "{text}");
}

/// Stale translations work until the flush, and not after it.
fn translations_stay_until_they_are_flushed<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 5);
    let leaf = machine.leaf(&process, A).unwrap();
    assert_eq!(machine.store(1, &process, A, 6, 1), Ok(()));
    machine.poke(leaf.at, leaf.bits & !3);
    assert!(machine.attempt(1, &process, A, Access::Write).is_ok(), "CPU 1 has it cached");
    assert!(machine.attempt(2, &process, A, Access::Read).is_err(), "CPU 2 has not");
    machine.flush(process.root(), pagepin::FlushRange::Everything);
    assert!(machine.attempt(1, &process, A, Access::Read).is_err());
    machine.poke(leaf.at, leaf.bits);
    assert_eq!(machine.get(&process, A), 6);
}

/// A table that is freed during a walk keeps its bytes until the walk is over.
fn a_walk_keeps_tables_in_limbo<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 5);
    let before = machine.memory().allocated().len();
    let walk = machine.enter();
    let table = machine.leaf(&process, A).unwrap().at;
    process.unmap(A, PAGE).unwrap();
    assert!(machine.memory().allocated().len() < before);
    // SAFETY: the walk keeps the table alive.
    assert!(unsafe { machine.load_entry(table) }.is_empty());
    drop(walk);
    assert!(machine.word(table.table()).snapshot().is_free());
}

every_layout!(
    free_before_flush_is_caught,
    publish_before_flush_is_caught,
    table_freed_without_waiting_for_walkers_is_caught,
    what_a_detached_table_names_is_watched,
    use_after_free_double_free_and_leak_are_caught,
    device_access_to_freed_memory_is_caught,
    instructions_that_nobody_announced_are_caught,
    memory_accessed_by_two_types_is_caught,
    waiting_for_a_lock_of_ones_own_is_caught,
    translations_stay_until_they_are_flushed,
    a_walk_keeps_tables_in_limbo,
);
