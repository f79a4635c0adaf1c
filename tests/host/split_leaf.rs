//! Large leaves that are split: what an operation needs of them, and no more.

use std::collections::BTreeMap;

use pagepin::frame::{FrameKind, Layout, Ownership, Wide};
use pagepin::pin::{PinFlags, Read, Write};
use pagepin::space::{Resident, SpaceError};
use pagepin::{Entry, LeafSize, MapOptions, MemoryType, Pfn, VmaFlags};

use crate::forms::{self, Form};
use crate::machine::{FAR, LARGE, Machine, NONE, PAGE, Process, R, RW, range};

const SIZE: LeafSize = LeafSize::Size2MiB;
const BYTES: u64 = SIZE.bytes();
/// The present, writable and user bits.
const RIGHTS: u64 = 7;

/// A process with a VMA of two large leaves, of which the first is there, with a byte in each of some pages.
fn process<L: Layout>(machine: &Machine<L>) -> (Process<'_, L>, Pfn) {
    let process = machine.process();
    process.map(LARGE, 2 * BYTES, RW).unwrap();
    let block = machine.block(SIZE);
    machine.install(&process, LARGE, SIZE, block, RIGHTS);
    write(machine, &process, 0);
    (process, block)
}

const SOME: [u64; 5] = [0, 1, 7, 300, 511];

fn write<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, more: u8) {
    SOME.iter().for_each(|page| machine.put(process, LARGE + page * PAGE, (*page as u8).wrapping_add(more)));
}

#[track_caller]
fn reads<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, at: u64, more: u8) {
    for page in SOME {
        assert_eq!(machine.get(process, at + page * PAGE), (page as u8).wrapping_add(more), "page {page}");
    }
}

fn size_at<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, address: u64) -> LeafSize {
    machine.leaf(process, address).unwrap().size
}

fn a_part_is_unmapped_and_the_rest_stays<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let (process, block) = process(&machine);
    assert_eq!(process.unmap(LARGE + 8 * PAGE, 100 * PAGE).unwrap().pages, 100);
    assert_eq!(machine.leaf(&process, LARGE + 8 * PAGE), None);
    reads(&machine, &process, LARGE, 0);
    for page in SOME {
        assert_eq!(machine.frame_at(&process, LARGE + page * PAGE).0, block.offset(page), "no page has moved");
    }
    machine.audit(&[&process], &BTreeMap::new());
    // What went is somebody else's at once.
    let free = |frame: u64| machine.word(block.offset(frame)).snapshot().is_free();
    assert!(free(8) && free(107) && !free(7) && !free(108));
    write(&machine, &process, 9);
    reads(&machine, &process, LARGE, 9);
}

fn a_part_gets_other_rights<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let (process, _) = process(&machine);
    process.protect(LARGE + PAGE, PAGE, R).unwrap();
    assert!(machine.store(0, &process, LARGE + PAGE, 1, 1).is_err());
    assert_eq!(machine.store(0, &process, LARGE, 0, 1), Ok(()));
    process.protect(LARGE + 7 * PAGE, PAGE, NONE).unwrap();
    assert!(machine.load(0, &process, LARGE + 7 * PAGE, 1).is_err());
    process.protect(LARGE, BYTES, RW).unwrap();
    reads(&machine, &process, LARGE, 0);
    machine.audit(&[&process], &BTreeMap::new());
}

/// A leaf without rights is split like any other.
fn a_part_of_a_leaf_without_rights_comes_back<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let (process, block) = process(&machine);
    process.protect(LARGE, BYTES, NONE).unwrap();
    process.protect(LARGE + 300 * PAGE, PAGE, RW).unwrap();
    assert!(machine.load(0, &process, LARGE + 301 * PAGE, 1).is_err());
    assert_eq!(machine.get(&process, LARGE + 300 * PAGE), 300u64 as u8);
    assert_eq!(machine.frame_at(&process, LARGE + 300 * PAGE).0, block.offset(300));
    machine.audit(&[&process], &BTreeMap::new());
}

fn a_part_is_discarded<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let (process, _) = process(&machine);
    assert_eq!(process.discard(LARGE + 7 * PAGE, PAGE).unwrap().pages, 1);
    assert_eq!(machine.get(&process, LARGE + 7 * PAGE), 0);
    assert_eq!(machine.get(&process, LARGE + 300 * PAGE), 300u64 as u8);
    machine.audit(&[&process], &BTreeMap::new());
}

/// A leaf that lies in the range as a whole is not split, nor one outside.
fn what_is_not_cut_is_not_split<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let (process, _) = process(&machine);
    let second = machine.block(SIZE);
    machine.install(&process, LARGE + BYTES, SIZE, second, RIGHTS);
    process.protect(LARGE + BYTES - PAGE, BYTES + PAGE, R).unwrap();
    assert_eq!(size_at(&machine, &process, LARGE), LeafSize::Size4KiB);
    assert_eq!(size_at(&machine, &process, LARGE + BYTES), SIZE);
    machine.audit(&[&process], &BTreeMap::new());
}

/// a pin of one page holds the block, before and after; the bytes are the process's all the time.
fn pins_of_a_part_hold_through_a_split<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let (process, block) = process(&machine);
    let pins = machine.pin::<Write>(&process, LARGE + 7 * PAGE, PAGE).unwrap();
    let unmapped = process.unmap(LARGE + 8 * PAGE, 10 * PAGE).unwrap();
    assert_eq!((unmapped.pages, unmapped.pinned_pages), (10, 10), "the pin was of the whole block");
    assert_eq!(unmapped.still_pinned.runs().len(), 1, "they are neighbours");
    let word = |page: u64| machine.word(block.offset(page)).snapshot();
    assert!((word(9).refs, word(9).pins, word(7).refs, word(7).pins) == (1, 1, 2, 1));
    machine.put(&process, LARGE + 7 * PAGE, 77);
    let pins = pins.complete().unwrap();
    let mut byte = [0];
    pins.copy_to(0, &mut byte).unwrap();
    assert_eq!(byte, [77]);
    pins.copy_from(0, &[78]).unwrap();
    assert_eq!(machine.get(&process, LARGE + 7 * PAGE), 78);
    // Fork copies what is pinned, page by page now.
    let child = process.fork().unwrap();
    assert_ne!(machine.frame_at(&child, LARGE).0, block);
    drop(pins);
    assert!(word(9).is_free() && word(7).pins == 0 && word(7).dirty);
    machine.audit(&[&process, &child], &BTreeMap::new());
}

/// Pins and gets of all sorts that were taken of the block are given back to its parts.
fn what_was_held_is_given_back_in_parts<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let (process, block) = process(&machine);
    let pins = (0..3).map(|_| machine.pin::<Read>(&process, LARGE + 300 * PAGE, 5 * PAGE).unwrap()).collect::<Vec<_>>();
    process.protect(LARGE, PAGE, R).unwrap();
    let later = machine.pin::<Read>(&process, LARGE + 300 * PAGE, 5 * PAGE).unwrap();
    let counts = |page: u64| machine.word(block.offset(page)).snapshot().pins;
    assert_eq!([0, 299, 300, 304, 305, 511].map(counts), [3, 3, 4, 4, 3, 3]);
    drop(pins);
    assert_eq!([0, 299, 300, 304, 305, 511].map(counts), [0, 0, 1, 1, 0, 0]);
    drop(later);
    machine.audit(&[&process], &BTreeMap::new());
}

fn gets_hold_the_parts<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let (process, block) = process(&machine);
    let gets = machine.reference::<Read>(&process, LARGE + PAGE, PAGE).unwrap();
    process.unmap(LARGE, BYTES - PAGE).unwrap();
    assert_eq!(machine.word(block.offset(5)).snapshot().refs, 1);
    drop(gets);
    assert!(machine.word(block.offset(5)).snapshot().is_free());
    machine.audit(&[&process], &BTreeMap::new());
}

/// S14: who wants no other has none in any part.
fn a_sole_pin_holds_every_part<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let (process, block) = process(&machine);
    let pins = forms::pin::<Write, L>(Form::Fast, &process, range(&process, LARGE, PAGE), PinFlags::SOLE, 1).unwrap();
    process.protect(LARGE, PAGE, R).unwrap();
    assert!(machine.word(block.offset(511)).snapshot().sole);
    assert!(machine.pin::<Read>(&process, LARGE + 5 * PAGE, PAGE).is_err());
    drop(pins);
    assert!(machine.pin::<Read>(&process, LARGE + 5 * PAGE, PAGE).is_ok());
    machine.audit(&[&process], &BTreeMap::new());
}

/// of a block that others map the tables alone are split, and its parts are borrowed.
fn a_shared_block_stays_one<L: Layout>() {
    let machine = Machine::<L>::new(4096);
    let (parent, block) = process(&machine);
    let child = parent.fork().unwrap();
    assert_eq!(child.unmap(LARGE + 8 * PAGE, 4 * PAGE).unwrap().pages, 4);
    let word = machine.word(block).snapshot();
    assert_eq!((word.order, word.refs, word.exclusive), (9, 1 + 508, false));
    assert_eq!(size_at(&machine, &parent, LARGE), SIZE);
    assert!(machine.leaf(&child, LARGE + PAGE).unwrap().is_borrowed());
    machine.audit(&[&parent, &child], &BTreeMap::new());
    assert_eq!(child.resident().unwrap(), Resident { shared: 508, tables: 5 - 1, ..Resident::default() });
    // Each copies what it writes, and sees what it had.
    machine.put(&child, LARGE + 7 * PAGE, 99);
    assert_eq!(machine.get(&parent, LARGE + 7 * PAGE), 7);
    assert_eq!(machine.word(block).snapshot().refs, 1 + 507);
    reads(&machine, &parent, LARGE, 0);
    let grandchild = child.fork().unwrap();
    assert_eq!(machine.get(&grandchild, LARGE + 7 * PAGE), 99);
    assert_eq!(machine.get(&grandchild, LARGE + 511 * PAGE), 511u64 as u8);
    assert_eq!(machine.word(block).snapshot().refs, 1 + 2 * 507);
    machine.audit(&[&parent, &child, &grandchild], &BTreeMap::new());
    // A read pin gets a page of its own, never the one that others have.
    let pins = machine.pin::<Read>(&grandchild, LARGE, PAGE).unwrap();
    assert_ne!(machine.frame_at(&grandchild, LARGE).0, block);
    drop(pins);
    let pins = machine.pin::<Write>(&grandchild, LARGE + 300 * PAGE, 8 * PAGE).unwrap();
    assert_eq!(pins.pages(), 8);
    drop(pins);
    machine.audit(&[&parent, &child, &grandchild], &BTreeMap::new());
    // The last part that goes takes the block with it.
    drop((parent, grandchild));
    assert_eq!(machine.get(&child, LARGE + 300 * PAGE), 300u64 as u8);
    drop(child);
    assert!(machine.word(block).snapshot().is_free());
}

every_layout!(
    a_part_is_unmapped_and_the_rest_stays,
    a_part_gets_other_rights,
    a_part_of_a_leaf_without_rights_comes_back,
    a_part_is_discarded,
    what_is_not_cut_is_not_split,
    pins_of_a_part_hold_through_a_split,
    what_was_held_is_given_back_in_parts,
    gets_hold_the_parts,
    a_shared_block_stays_one;
    two_counters: a_sole_pin_holds_every_part
);

/// The last process that has a shared block takes it apart.
#[test]
fn the_last_one_takes_the_block() {
    let machine = Machine::<Wide>::new(2048);
    let (parent, block) = process(&machine);
    drop(parent.fork().unwrap());
    assert!(!machine.word(block).snapshot().exclusive);
    parent.unmap(LARGE, PAGE).unwrap();
    assert!(machine.word(block).snapshot().is_free() && machine.word(block.offset(1)).snapshot().exclusive);
    machine.audit(&[&parent], &BTreeMap::new());
}

/// Out of memory: an error by name, and everything is where it was.
#[test]
fn without_memory_for_a_table_nothing_changes() {
    let machine = Machine::<Wide>::new(2048);
    let (parent, _) = process(&machine);
    let child = parent.fork().unwrap();
    for space in [&parent, &child] {
        let before = machine.image(&[&parent, &child]);
        machine.memory().allow(Some(0));
        assert_eq!(space.unmap(LARGE, PAGE).err(), Some(SpaceError::NoMemory));
        assert_eq!(space.discard(LARGE, PAGE).err(), Some(SpaceError::NoMemory));
        assert_eq!(space.protect(LARGE, PAGE, R), Err(SpaceError::NoMemory));
        assert_eq!(space.move_pages(LARGE, PAGE, FAR), Err(SpaceError::NoMemory));
        machine.memory().allow(None);
        before.assert_same(&machine.image(&[&parent, &child]), "refused");
    }
}

/// What is no process's own block is not taken apart.
#[test]
fn what_is_no_block_of_a_process_is_refused_by_name() {
    let machine = Machine::<Wide>::new(2048);
    let process = machine.process();
    process.map(LARGE, BYTES, RW).unwrap();
    let block = machine.block(SIZE);
    for (kind, order) in [(FrameKind::Device, 9), (FrameKind::File, 9), (FrameKind::Anonymous, 0)] {
        assert!(machine.word(block).put().is_ok());
        machine.word(block).hand_out(kind, order, Ownership::Exclusive).unwrap();
        machine.install(&process, LARGE, SIZE, block, RIGHTS);
        let before = machine.word(block).snapshot();
        assert_eq!(process.unmap(LARGE, PAGE).err(), Some(SpaceError::LargeLeaf));
        assert_eq!(process.protect(LARGE, PAGE, R), Err(SpaceError::LargeLeaf));
        assert_eq!(machine.word(block).snapshot(), before);
        let leaf = machine.leaf(&process, LARGE).unwrap();
        assert_eq!(leaf.size, SIZE);
        machine.poke(leaf.at, 0);
    }
    assert!(machine.word(block).put().is_ok());
    machine.word(block).hand_out(FrameKind::Anonymous, 9, Ownership::Exclusive).unwrap();
    assert!(machine.word(block).put().is_ok());
    // SAFETY: that was the last reference.
    unsafe { pagepin::FrameSource::free(&machine, block, 9) };
}

/// Foreign memory has no word to ask; its type stays what it was.
#[test]
fn foreign_memory_is_split_in_the_tables() {
    let machine = Machine::<Wide>::new(64);
    let process = machine.process();
    let registers = Pfn::new(0xfe00);
    // SAFETY: registers of the emulated machine.
    unsafe { process.map_foreign(LARGE, BYTES, registers, MemoryType::UNCACHED, RW).unwrap() };
    process.discard(LARGE, BYTES).unwrap();
    process.unmap(LARGE + PAGE, BYTES - PAGE).unwrap();
    process.unmap(LARGE, PAGE).unwrap();
    process.map(LARGE, BYTES, RW).unwrap();
    let typed = Entry::from_bits(RIGHTS).special().with_memory_type(SIZE, MemoryType::WRITE_COMBINING);
    machine.install(&process, LARGE, SIZE, registers, typed.bits());
    process.protect(LARGE + 5 * PAGE, PAGE, R).unwrap();
    for page in [0, 4, 5, 511] {
        let leaf = machine.leaf(&process, LARGE + page * PAGE).unwrap();
        let entry = Entry::from_bits(leaf.bits);
        assert_eq!((leaf.size, leaf.frame()), (LeafSize::Size4KiB, registers.offset(page)));
        assert_eq!(entry.memory_type(LeafSize::Size4KiB), MemoryType::WRITE_COMBINING);
        assert!(entry.is_special() && entry.is_writable() == (page != 5));
    }
}

/// A move to where a large leaf cannot lie moves its pages, and one of a part moves that.
#[test]
fn a_move_splits_what_would_not_be_aligned() {
    let machine = Machine::<Wide>::new(2048);
    let (process, block) = process(&machine);
    let pins = machine.pin::<Write>(&process, LARGE, 1).unwrap();
    process.move_pages(LARGE, BYTES, FAR + PAGE).unwrap();
    reads(&machine, &process, FAR + PAGE, 0);
    assert_eq!(machine.frame_at(&process, FAR + 8 * PAGE).0, block.offset(7));
    drop(pins);
    process.move_pages(FAR + PAGE, 2 * PAGE, LARGE).unwrap();
    assert_eq!((machine.get(&process, LARGE + PAGE), machine.get(&process, FAR + 8 * PAGE)), (1, 7));
    machine.audit(&[&process], &BTreeMap::new());
}

/// A part that is to be unmapped waits for the pins of its block; what is refused stays one leaf or not, but stays.
#[test]
fn policies_are_asked_about_parts() {
    let machine = Machine::<Wide>::new(4096);
    for (flags, refused) in [(VmaFlags::DEFER_UNMAP_PINNED, false), (VmaFlags::REFUSE_UNMAP_PINNED, true)] {
        let process = machine.process();
        process.map(LARGE, BYTES, MapOptions::new(RW).flags(flags)).unwrap();
        machine.install(&process, LARGE, SIZE, machine.block(SIZE), RIGHTS);
        let pins = machine.pin::<Read>(&process, LARGE + 3 * PAGE, PAGE).unwrap();
        let unmapped = process.unmap(LARGE, 3 * PAGE);
        if refused {
            assert!(matches!(unmapped, Err(SpaceError::Pinned(page)) if page.address() == LARGE));
            drop(pins);
        } else {
            assert_eq!(unmapped.unwrap().deferred_pages, 3);
            drop(pins);
            assert_eq!(process.finish_deferred().unwrap().pages, 3);
        }
        machine.audit(&[&process], &BTreeMap::new());
    }
}

/// A leaf of 1 GiB becomes leaves of 2 MiB, and one of these pages; its own or shared, and pinned before.
#[test]
fn a_gigabyte_is_split_as_far_as_it_takes() {
    const HUGE: LeafSize = LeafSize::Size1GiB;
    let machine = Machine::<Wide>::new(2 << 18);
    let parent = machine.process();
    parent.map(LARGE, HUGE.bytes(), RW).unwrap();
    let block = machine.block(HUGE);
    machine.install(&parent, LARGE, HUGE, block, RIGHTS);
    let far = LARGE + 9 * BYTES + 7 * PAGE;
    machine.put(&parent, far, 5);
    let pins = machine.pin::<Read>(&parent, far, PAGE).unwrap();
    assert_eq!(parent.unmap(far + PAGE, PAGE).unwrap().pages, 1);
    assert_eq!([LARGE, far].map(|at| size_at(&machine, &parent, at)), [SIZE, LeafSize::Size4KiB]);
    let pins_of = |frame: u64| machine.word(block.offset(frame)).snapshot().pins;
    assert_eq!([0, 512, 9 * 512, 9 * 512 + 1, 513].map(pins_of), [1, 1, 1, 1, 0]);
    drop(pins);
    assert_eq!([0, 512, 9 * 512, 9 * 512 + 1, 513].map(pins_of), [0; 5]);
    machine.audit(&[&parent], &BTreeMap::new());
    drop(parent);

    let (parent, block) = (machine.process(), machine.block(HUGE));
    parent.map(LARGE, HUGE.bytes(), RW).unwrap();
    machine.install(&parent, LARGE, HUGE, block, RIGHTS);
    machine.put(&parent, far, 5);
    let child = parent.fork().unwrap();
    assert_eq!(child.unmap(far + PAGE, PAGE).unwrap().pages, 1);
    assert_eq!(machine.word(block).snapshot().refs, 1 + 511 + 511);
    machine.put(&child, far, 6);
    assert_eq!((machine.get(&parent, far), machine.get(&child, far)), (5, 6));
    // A part of 2 MiB is copied as one.
    machine.put(&child, LARGE, 7);
    assert_eq!(size_at(&machine, &child, LARGE), SIZE);
    let grandchild = child.fork().unwrap();
    machine.audit(&[&parent, &child, &grandchild], &BTreeMap::new());
    drop((parent, child));
    assert_eq!(machine.get(&grandchild, far), 6);
    drop(grandchild);
    assert!(machine.word(block).snapshot().is_free());
}
