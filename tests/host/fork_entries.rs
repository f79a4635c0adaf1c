//! What fork leaves in the entries of both: large leaves, the dirty bit, and what an undone fork gives back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use pagepin::frame::Layout;
use pagepin::pin::Write;
use pagepin::{LeafSize, MapOptions, PageAddr};

use crate::machine::{A, Machine, NONE, PAGE, RW};

const SIZE: LeafSize = LeafSize::Size2MiB;
const ADDRESS: u64 = 1 << 30;
const ACCESSED: u64 = 0x20;
const DIRTY: u64 = 0x40;

/// A kernel with VMAs of its own may have cut one VMA in two that are alike.
fn a_large_leaf_over_two_vmas_is_shared_once<L: Layout>() {
    let machine = Machine::<L>::new(4096);
    let parent = machine.process();
    parent.map(ADDRESS, SIZE.bytes() / 2, RW).unwrap();
    parent.map(ADDRESS + SIZE.bytes() / 2, SIZE.bytes() / 2, MapOptions::new(RW).max_rights(RW).key(0)).unwrap();
    let block = machine.block(SIZE);
    machine.install(&parent, ADDRESS, SIZE, block, 7);
    machine.put(&parent, ADDRESS, 10);
    // Not enough memory for all of the child: the share is undone once as well.
    for allowed in 0..4 {
        machine.memory().allow(Some(allowed));
        let child = parent.fork();
        machine.memory().allow(None);
        assert!(child.is_err() || allowed == 3, "{allowed}");
        drop(child);
        machine.audit(&[&parent], &BTreeMap::new());
    }
    let child = parent.fork().unwrap();
    assert_eq!(machine.word(block).snapshot().refs, 2, "two mappings");
    machine.audit(&[&parent, &child], &BTreeMap::new());
    assert_eq!(machine.get(&child, ADDRESS), 10);
}

fn large_leaves_without_rights_are_inherited_and_come_back<L: Layout>() {
    let machine = Machine::<L>::new(4096);
    let parent = machine.process();
    parent.map(ADDRESS, SIZE.bytes(), RW).unwrap();
    machine.install(&parent, ADDRESS, SIZE, machine.block(SIZE), 7);
    machine.put(&parent, ADDRESS, 10);
    parent.protect(ADDRESS, SIZE.bytes(), NONE).unwrap();
    let child = parent.fork().unwrap();
    for process in [&parent, &child] {
        assert!(machine.load(0, process, ADDRESS, 1).is_err());
        process.protect(ADDRESS, SIZE.bytes(), RW).unwrap();
        assert_eq!(machine.get(process, ADDRESS), 10);
    }
    machine.audit(&[&parent, &child], &BTreeMap::new());
}

/// What the child shares with the parent stays shared when a fork of the child fails (INV-14, INV-2).
fn a_failed_fork_of_a_child_makes_nothing_exclusive<L: Layout>() {
    for allowed in 0..8 {
        let machine = Machine::<L>::new(64);
        let parent = machine.populated(2, 10);
        let child = parent.fork().unwrap();
        // The second page is the child's own, and pinned, so that its copy can fail.
        machine.put(&child, A + PAGE, 20);
        let pins = machine.pin::<Write>(&child, A + PAGE, 1).unwrap();
        machine.memory().allow(Some(allowed));
        let grandchild = child.fork();
        machine.memory().allow(None);
        let spaces: Vec<_> = [&parent, &child].into_iter().chain(grandchild.as_ref().ok()).collect();
        machine.audit(&spaces, &[(pins.runs()[0].first(), (1, 1))].into());
        machine.put(&child, A, 30);
        assert_eq!(machine.get(&parent, A), 10);
        drop(pins);
    }
}

/// Hardware sets the dirty bit of the parent's entry while fork is between looking at it and taking W away.
fn a_dirty_bit_set_during_fork_is_kept<L: Layout>() {
    for pages in 1..=3 {
        let machine = Machine::<L>::new(64);
        let parent = machine.populated(pages, 10);
        let leaf = machine.leaf(&parent, A + (pages - 1) * PAGE).unwrap();
        machine.poke(leaf.at, leaf.bits & !(ACCESSED | DIRTY));
        pagepin::Shootdown::flush(&machine, parent.root(), pagepin::FlushRange::Everything);
        let hardware = || _ = machine.slot(leaf.at).fetch_or(ACCESSED | DIRTY, Ordering::AcqRel);
        // Frames are looked up for the child's root and tables first.
        let lookups = 4 + (pages - 1);
        let child = machine.before_lookup(lookups, hardware, || parent.fork().unwrap());
        let now = machine.leaf(&parent, leaf.address).unwrap().bits;
        assert_eq!(now & (DIRTY | ACCESSED), DIRTY | ACCESSED, "{now:#x}");
        assert!(!Machine::<L>::is_writable(now));
        parent.unmap(A, pages * PAGE).unwrap();
        assert!(machine.frame_at(&child, leaf.address).1.dirty, "noted when the entry goes");
    }
}

/// The child has written nothing: its entry must not say so when the parent's page was clean.
fn a_childs_entries_are_neither_accessed_nor_dirty<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(2, 10);
    let pins = machine.pin::<Write>(&parent, A + PAGE, 1).unwrap();
    let child = parent.fork().unwrap();
    let bits = |process, address| machine.leaf(process, address).unwrap().bits & (ACCESSED | DIRTY);
    assert_eq!(bits(&child, A), 0);
    assert_eq!(bits(&parent, A), ACCESSED | DIRTY, "the parent's stay");
    let shared = machine.frame_at(&child, A).0;
    child.unmap(A, PAGE).unwrap();
    assert!(!machine.word(shared).snapshot().dirty, "{:?}", PageAddr::containing(A));
    drop(pins);
}

every_layout!(
    a_large_leaf_over_two_vmas_is_shared_once,
    large_leaves_without_rights_are_inherited_and_come_back,
    a_failed_fork_of_a_child_makes_nothing_exclusive,
    a_dirty_bit_set_during_fork_is_kept,
    a_childs_entries_are_neither_accessed_nor_dirty,
);
