//! Fork, copy-on-write and pins: what stays coherent with what.

use std::collections::BTreeMap;

use pagepin::frame::{Layout, Wide};
use pagepin::pin::{PinFlags, Read, Write};
use pagepin::space::{ForkError, Forked, fork_vmas};
use pagepin::{AddressSpace, Backing, LeafSize, Levels, MemoryType, Pfn, UserRange, Vma};

use crate::machine::{A, Machine, NONE, PAGE, Process, R, RW};

fn vma(start: u64, pages: u64, backing: Backing) -> Vma {
    let range = UserRange::pages_only(Levels::Four.user_half(), start, pages * PAGE).unwrap();
    Vma::new(range, backing, RW).unwrap()
}

/// Fork by the function that tells what it did.
fn fork_of<'m, L: Layout>(
    machine: &'m Machine<L>,
    parent: &Process<'m, L>,
    pages: u64,
) -> (Result<Forked, ForkError>, Process<'m, L>) {
    let child = machine.process();
    child.map(A, pages * PAGE, RW).unwrap();
    // SAFETY: the VMA is the parent's; nothing else runs meanwhile, and the child is new.
    let forked = unsafe { fork_vmas(parent.mm(), child.mm(), &[vma(A, pages, Backing::Anonymous)]) };
    (forked, child)
}

fn writes_after_fork_are_seen_by_the_writer_only<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(3, 10);
    let child = parent.fork().unwrap();
    machine.audit(&[&parent, &child], &BTreeMap::new());
    machine.put(&parent, A, 50);
    machine.put(&child, A + PAGE, 60);
    assert_eq!([0, 1, 2].map(|page| machine.get(&parent, A + page * PAGE)), [50, 11, 12]);
    assert_eq!([0, 1, 2].map(|page| machine.get(&child, A + page * PAGE)), [10, 60, 12]);
    assert_eq!(machine.frame_at(&parent, A + 2 * PAGE).0, machine.frame_at(&child, A + 2 * PAGE).0);
    machine.audit(&[&parent, &child], &BTreeMap::new());
}

/// The race that DMA loses on a kernel without pins: fork, then a write by the parent moves it away from the device.
fn pinned_page_stays_with_parent_across_fork<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(3, 10);
    let pins = machine.pin::<Write>(&parent, A + PAGE, PAGE).unwrap();
    let (frame, address) = (machine.frame_at(&parent, A + PAGE).0, pins.runs()[0].first().address());
    let (forked, child) = fork_of(&machine, &parent, 3);
    assert_eq!(forked, Ok(Forked { shared_pages: 2, copied_pages: 1 }));
    assert_eq!(machine.frame_at(&parent, A + PAGE).0, frame, "INV-3");
    assert_ne!(machine.frame_at(&child, A + PAGE).0, frame);
    machine.audit(&[&parent, &child], &BTreeMap::from([(frame, (1, 1))]));
    // Late DMA, and writes by the parent, meet in one page (INV-11); the child has the bytes of the moment of the fork.
    machine.dma_write(address, &[77]);
    assert_eq!((machine.get(&parent, A + PAGE), machine.get(&child, A + PAGE)), (77, 11));
    machine.put(&parent, A + PAGE, 78);
    assert_eq!((machine.dma_read(address), machine.get(&child, A + PAGE)), (78, 11));
    drop(pins);
    assert_eq!(machine.frame_at(&parent, A + PAGE).0, frame);
    assert!(machine.frame_at(&parent, A + PAGE).1.dirty);
}

/// The parent's entry keeps its right to write: a pinned page costs no fault after fork.
fn pinned_page_stays_writable_after_fork<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(2, 10);
    let pins = machine.pin::<Write>(&parent, A, PAGE).unwrap();
    let child = parent.fork().unwrap();
    let writable = |process, address| Machine::<L>::is_writable(machine.leaf(process, address).unwrap().bits);
    assert!(writable(&parent, A) && writable(&child, A), "both have their own");
    assert!(!writable(&parent, A + PAGE) && !writable(&child, A + PAGE));
    drop(pins);
}

/// A read pin of a shared page unshares it first, so later writes of its mm reach the device (INV-11).
fn read_pin_unshares_and_stays_coherent<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(1, 10);
    let child = parent.fork().unwrap();
    let before = machine.frame_at(&child, A).0;
    let pins = machine.pin::<Read>(&child, A, 4).unwrap();
    let address = pins.runs()[0].first().address();
    assert_ne!(Pfn::containing(address), before, "the child got its own page");
    assert!(!Machine::<L>::is_writable(machine.leaf(&child, A).unwrap().bits), "read-only until it is written");
    machine.put(&child, A, 99);
    assert_eq!(machine.dma_read(address), 99, "INV-11");
    assert_eq!(machine.get(&parent, A), 10);
    drop(pins);
}

fn read_pin_of_untouched_memory_is_not_the_zero_frame<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 2 * PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A), 0);
    let pins = machine.pin::<Read>(&process, A, 2 * PAGE).unwrap();
    for page in 0..2 {
        machine.put(&process, A + page * PAGE, 5);
        assert_eq!(machine.dma_read(machine.physical(&process, A + page * PAGE)), 5);
    }
    let frames: Vec<_> = pins.runs().iter().flat_map(|run| run.first().number()..run.end().number()).collect();
    assert!((0..2).all(|page| machine.frame_at(&process, A + page * PAGE).0 == Pfn::new(frames[page as usize])));
    drop(pins);
}

/// The documented difference: a plain reference keeps the frame allocated, but not the page of its mm.
fn plain_reference_loses_coherence_after_fork<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(1, 10);
    let gets = machine.reference::<Read>(&parent, A, 4).unwrap();
    let address = gets.runs()[0].first().address();
    let child = parent.fork().unwrap();
    machine.put(&parent, A, 20);
    assert_eq!((machine.dma_read(address), machine.get(&parent, A)), (10, 20));
    assert_eq!(machine.get(&child, A), 10);
    drop(child);
    drop(gets);
}

/// CVE-2020-29374 ("vmsplice hole"): a child references a page, unmaps it, and the parent's write must not be seen
/// through the reference.
fn a_reference_of_the_child_does_not_see_later_writes_of_the_parent<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(1, 10);
    let child = parent.fork().unwrap();
    let gets = machine.reference::<Read>(&child, A, 4).unwrap();
    let address = gets.runs()[0].first().address();
    child.unmap(A, PAGE).unwrap();
    machine.put(&parent, A, 0x5e);
    assert_eq!(machine.dma_read(address), 10, "the secret went to the child");
    assert_eq!(machine.get(&parent, A), 0x5e);
    drop(gets);
    drop(child);
}

/// The same with a pin: the child's pin is on its own copy.
fn a_pin_of_the_child_does_not_hold_the_parents_page<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(1, 10);
    let child = parent.fork().unwrap();
    let pins = machine.pin::<Read>(&child, A, 4).unwrap();
    child.unmap(A, PAGE).unwrap();
    machine.put(&parent, A, 0x5e);
    assert_eq!(machine.dma_read(pins.runs()[0].first().address()), 10);
    drop(pins);
}

/// nanvix #2512: the second fork of a page that is shared already.
fn fork_of_a_fork_shares_among_all<L: Layout>() {
    let machine = Machine::<L>::new(128);
    let first = machine.populated(2, 10);
    let second = first.fork().unwrap();
    let third = second.fork().unwrap();
    let fourth = first.fork().unwrap();
    assert_eq!(machine.frame_at(&first, A).1.refs, 4);
    machine.audit(&[&first, &second, &third, &fourth], &BTreeMap::new());
    for (process, byte) in [(&third, 3), (&first, 1), (&fourth, 4), (&second, 2)] {
        machine.put(process, A, byte);
    }
    for (process, byte) in [(&first, 1), (&second, 2), (&third, 3), (&fourth, 4)] {
        assert_eq!(machine.get(process, A), byte);
        assert_eq!(machine.get(process, A + PAGE), 11);
    }
    machine.audit(&[&first, &second, &third, &fourth], &BTreeMap::new());
}

/// Counts of sharers do not end at a byte (tgoskits #1991, nyx #82).
fn three_hundred_children_share_a_page<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let parent = machine.populated(1, 10);
    let children: Vec<_> = (0..300).map(|_| parent.fork().unwrap()).collect();
    assert_eq!(machine.frame_at(&parent, A).1.refs, 301);
    machine.put(&children[7], A, 7);
    machine.put(&parent, A, 8);
    assert!(children.iter().enumerate().all(|(i, child)| machine.get(child, A) == if i == 7 { 7 } else { 10 }));
    let mut children = children;
    while children.len() > 1 {
        drop(children.swap_remove(children.len() / 2));
    }
    assert_eq!(machine.get(&children[0], A), 10);
}

/// Whoever is left last reuses the page without a copy, in every order of exits (INV-7).
fn the_last_one_reuses_the_page<L: Layout>() {
    for parent_first in [true, false] {
        for pinned in [true, false] {
            let machine = Machine::<L>::new(64);
            let parent = machine.populated(1, 10);
            let child = parent.fork().unwrap();
            let frame = machine.frame_at(&parent, A).0;
            let (gone, left) = if parent_first { (parent, child) } else { (child, parent) };
            drop(gone);
            let allocations = machine.memory().allocations();
            if pinned {
                let pins = machine.pin::<Write>(&left, A, 1).unwrap();
                assert_eq!(pins.runs()[0].first(), frame);
            } else {
                machine.put(&left, A, 11);
            }
            assert_eq!(machine.memory().allocations(), allocations, "no copy");
            assert_eq!(machine.frame_at(&left, A).0, frame);
        }
    }
}

fn a_pinned_page_outlives_both_processes<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(1, 10);
    let pins = machine.pin::<Write>(&parent, A, 1).unwrap().into_owned();
    let child = parent.fork().unwrap();
    let frame = pins.runs()[0].first();
    drop(parent);
    drop(child);
    let word = machine.word(frame).snapshot();
    assert_eq!((word.refs, word.pins), (1, 1));
    machine.dma_write(frame.address(), &[1]);
    drop(pins);
    assert!(machine.word(frame).snapshot().is_free());
}

/// Each page on its own: read pins, write pins and none, and exactly the pinned ones are copied early.
fn only_pinned_pages_are_copied_early<L: Layout>() {
    for pinned in 0u32..16 {
        let machine = Machine::<L>::new(96);
        let parent = machine.populated(4, 10);
        let mut pins = Vec::new();
        for page in (0..4).filter(|page| pinned >> page & 1 != 0) {
            pins.push(machine.pin::<Read>(&parent, A + page * PAGE, 1).unwrap());
        }
        let allocations = machine.memory().allocations();
        let (forked, child) = fork_of(&machine, &parent, 4);
        let copied = u64::from(pinned.count_ones());
        assert_eq!(forked, Ok(Forked { shared_pages: 4 - copied, copied_pages: copied }));
        assert_eq!(machine.memory().allocations() - allocations, copied + 4, "the copies, a root and three tables");
        for page in 0..4 {
            let same = machine.frame_at(&parent, A + page * PAGE).0 == machine.frame_at(&child, A + page * PAGE).0;
            assert_eq!(same, pinned >> page & 1 == 0, "page {page} of {pinned:#b}");
            assert_eq!(machine.get(&child, A + page * PAGE), 10 + page as u8);
        }
        drop(pins);
        drop(child);
    }
}

/// Zero pages, pages without rights, foreign memory: inherited as they are.
fn special_pages_are_inherited<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(2, 10);
    let registers = Pfn::new(0xfee0);
    parent.map(A + 4 * PAGE, PAGE, RW).unwrap();
    assert_eq!(machine.get(&parent, A + 4 * PAGE), 0);
    // SAFETY: registers of the emulated machine.
    unsafe { parent.map_foreign(A + 6 * PAGE, PAGE, registers, MemoryType::UNCACHED, RW).unwrap() };
    machine.put(&parent, A + 6 * PAGE, 66);
    parent.protect(A + PAGE, PAGE, NONE).unwrap();
    let child = parent.fork().unwrap();
    for process in [&parent, &child] {
        assert_eq!(machine.get(process, A + 4 * PAGE), 0);
        assert_eq!(machine.get(process, A + 6 * PAGE), 66, "the same registers");
        assert!(machine.load(0, process, A + PAGE, 1).is_err(), "still without rights");
        process.protect(A + PAGE, PAGE, RW).unwrap();
        assert_eq!(machine.get(process, A + PAGE), 11);
    }
    machine.put(&child, A + 6 * PAGE, 67);
    assert_eq!(machine.get(&parent, A + 6 * PAGE), 67);
    machine.put(&child, A + 4 * PAGE, 1);
    machine.put(&child, A + PAGE, 2);
    assert_eq!((machine.get(&parent, A + 4 * PAGE), machine.get(&parent, A + PAGE)), (0, 11));
    machine.audit(&[&parent, &child], &BTreeMap::new());
}

/// A large leaf is shared whole, copied whole when it is pinned, and copied on write.
fn large_leaves_are_shared_and_copied<L: Layout>() {
    let (size, address) = (LeafSize::Size2MiB, 1 << 30);
    for pinned in [false, true] {
        let machine = Machine::<L>::new(4096);
        let parent = machine.process_of(Levels::Four);
        parent.map(address, size.bytes(), RW).unwrap();
        let block = machine.block(size);
        machine.install(&parent, address, size, block, 7);
        machine.put(&parent, address + 300 * PAGE, 5);
        let pins = pinned.then(|| machine.pin::<Read>(&parent, address + 10 * PAGE, 1).unwrap());
        let child = parent.fork().unwrap();
        assert_eq!(machine.frame_at(&child, address).0 != block, pinned);
        assert_eq!(machine.word(block).snapshot().exclusive, pinned);
        machine.put(&child, address + 300 * PAGE, 6);
        assert_eq!(machine.get(&parent, address + 300 * PAGE), 5);
        assert_ne!(machine.frame_at(&child, address).0, block);
        machine.put(&parent, address + 300 * PAGE, 7);
        assert_eq!(machine.frame_at(&parent, address).0, block, "kept, or reused");
        assert_eq!(machine.get(&child, address + 300 * PAGE), 6);
        drop(pins);
    }
}

/// INV-9: a forced write gets a private copy, reaches neither the other process nor user code's rights.
fn a_forced_write_stays_private_and_read_only<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(1, 10);
    let child = parent.fork().unwrap();
    child.protect(A, PAGE, R).unwrap();
    let pins = machine.pin_slow::<Write>(&child, A, 1, PinFlags::FORCE).unwrap();
    pins.complete().unwrap().copy_from(0, &[42]).unwrap();
    assert_eq!((machine.get(&parent, A), machine.get(&child, A)), (10, 42));
    assert!(machine.store(0, &child, A, 1, 1).is_err(), "still read-only for user code");
    assert!(machine.frame_at(&child, A).1.dirty);
}

every_layout!(
    writes_after_fork_are_seen_by_the_writer_only,
    pinned_page_stays_with_parent_across_fork,
    pinned_page_stays_writable_after_fork,
    read_pin_unshares_and_stays_coherent,
    read_pin_of_untouched_memory_is_not_the_zero_frame,
    plain_reference_loses_coherence_after_fork,
    a_reference_of_the_child_does_not_see_later_writes_of_the_parent,
    a_pin_of_the_child_does_not_hold_the_parents_page,
    fork_of_a_fork_shares_among_all,
    three_hundred_children_share_a_page,
    the_last_one_reuses_the_page,
    a_pinned_page_outlives_both_processes,
    only_pinned_pages_are_copied_early,
    special_pages_are_inherited,
    large_leaves_are_shared_and_copied,
    a_forced_write_stays_private_and_read_only,
);

/// A page that is elsewhere is shared as those are that are in memory.
#[test]
fn pages_that_are_elsewhere_are_counted_as_shared() {
    let machine = Machine::<Wide>::new(64);
    let parent = machine.populated(3, 10);
    assert_eq!(parent.swap_out(A + PAGE, PAGE).unwrap().pages, 1);
    let (forked, child) = fork_of(&machine, &parent, 3);
    assert_eq!(forked, Ok(Forked { shared_pages: 3, copied_pages: 0 }));
    assert_eq!([0, 1, 2].map(|page| machine.get(&child, A + page * PAGE)), [10, 11, 12]);
}
