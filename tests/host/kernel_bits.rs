//! The bits of an entry that are the kernel's own stay with the page, whatever becomes of its frame, and mean nothing to the library.

use pagepin::frame::Layout;
use pagepin::pin::{Read, Write};
use pagepin::{Entry, KERNEL_BITS, LeafSize, Pfn, Rights, SOFTWARE_BITS, Token, Zone};

use crate::machine::{A, FAR, Machine, NONE, PAGE, Process, RW};

/// A mark for each of two pages: all bits that there are, and the lowest.
const MARKS: [u64; 2] = [KERNEL_BITS, 1 << KERNEL_BITS.trailing_zeros()];

/// Two pages at [`A`] that hold 1 and 2, and have their marks.
fn marked<L: Layout>(machine: &Machine<L>) -> Process<'_, L> {
    let process = machine.populated(2, 1);
    mark(machine, &process);
    process
}

fn mark<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>) {
    for (page, mark) in (0..).zip(MARKS) {
        let leaf = machine.leaf(process, A + page * PAGE).unwrap();
        machine.poke(leaf.at, Entry::from_bits(leaf.bits).with_kernel_bits(mark).bits());
    }
}

fn marks_at<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, address: u64) -> [u64; 2] {
    [0, 1].map(|page| {
        let leaf = machine.leaf(process, address + page * PAGE).unwrap();
        Entry::from_bits(leaf.bits).kernel_bits()
    })
}

#[track_caller]
fn are_there<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, bytes: [u8; 2]) {
    assert_eq!(marks_at(machine, process, A), MARKS);
    assert_eq!([A, A + PAGE].map(|at| machine.get(process, at)), bytes);
    assert_eq!(marks_at(machine, process, A), MARKS);
}

fn copies_and_children_have_them<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = marked(&machine);
    let child = process.fork().unwrap();
    are_there(&machine, &child, [1, 2]);
    machine.put(&process, A, 3);
    are_there(&machine, &process, [3, 2]);
    machine.put(&child, A, 4);
    are_there(&machine, &child, [4, 2]);
    // A copy at once, of what is pinned, and copies by a pin.
    let pins = machine.pin::<Write>(&process, A, PAGE).unwrap();
    let other = process.fork().unwrap();
    are_there(&machine, &other, [3, 2]);
    drop(pins);
    let third = other.fork().unwrap();
    let pins = machine.pin::<Read>(&other, A, 2 * PAGE).unwrap();
    assert_eq!(pins.pages(), 2);
    are_there(&machine, &other, [3, 2]);
    are_there(&machine, &third, [3, 2]);
    drop(pins);
    machine.audit(&[&process, &child, &other, &third], &Default::default());
}

fn copies_of_zeroes_have_them<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 2 * PAGE, RW).unwrap();
    _ = [A, A + PAGE].map(|at| machine.get(&process, at));
    mark(&machine, &process);
    machine.put(&process, A, 5);
    let pins = machine.pin::<Read>(&process, A, 2 * PAGE).unwrap();
    are_there(&machine, &process, [5, 0]);
    drop(pins);
}

fn a_slot_and_a_move_leave_them<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = marked(&machine);
    assert_eq!(process.swap_out(A, 2 * PAGE).unwrap().pages, 2);
    machine.write_out();
    let child = process.fork().unwrap();
    process.move_pages(A, 2 * PAGE, FAR).unwrap();
    assert_eq!([FAR, FAR + PAGE].map(|at| machine.get(&process, at)), [1, 2]);
    assert_eq!(marks_at(&machine, &process, FAR), MARKS);
    process.move_pages(FAR, 2 * PAGE, A).unwrap();
    are_there(&machine, &process, [1, 2]);
    _ = [A, A + PAGE].map(|at| machine.get(&child, at));
    are_there(&machine, &child, [1, 2]);
}

fn other_rights_and_frames_leave_them<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = marked(&machine);
    process.protect(A, 2 * PAGE, NONE).unwrap();
    assert_eq!(marks_at(&machine, &process, A), MARKS);
    process.protect(A, 2 * PAGE, RW).unwrap();
    are_there(&machine, &process, [1, 2]);
    assert_eq!(process.relocate(A, 2 * PAGE, Zone::Unmovable).unwrap().pages, 2);
    are_there(&machine, &process, [1, 2]);
    let twin = machine.populated(2, 1);
    process.merge(A, &twin, A).unwrap();
    are_there(&machine, &process, [1, 2]);
    machine.put(&process, A, 9);
    are_there(&machine, &process, [9, 2]);
}

/// They are the page's, and go with it.
fn they_go_with_the_page<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = marked(&machine);
    process.discard(A, 2 * PAGE).unwrap();
    machine.put_pages(&process, A, 2, 7);
    assert_eq!(marks_at(&machine, &process, A), [0, 0]);
}

/// Whatever the kernel says in them, an entry is what it was.
#[test]
fn they_mean_nothing() {
    let leaf = Entry::leaf(Pfn::new(0x42), LeafSize::Size4KiB, Rights::READ | Rights::WRITE, 3);
    let token = Entry::token(Token::new(7).unwrap());
    assert!(SOFTWARE_BITS.iter().all(|bit| KERNEL_BITS & 1 << bit == 0), "nobody else's");
    assert_eq!(KERNEL_BITS.count_ones(), 5);
    for entry in [leaf, leaf.special(), token] {
        let marked = entry.with_kernel_bits(u64::MAX);
        let said = |entry: Entry| {
            let kind = (entry.is_present(), entry.is_prot_none(), entry.is_special(), entry.is_borrowed());
            let rights = (entry.is_writable(), entry.is_executable(), entry.is_user(), entry.is_dirty());
            (kind, rights, entry.key(), entry.as_token(), entry.leaf_frame(LeafSize::Size4KiB))
        };
        assert_eq!(said(marked), said(entry));
        assert_eq!((marked.kernel_bits(), marked.with_kernel_bits(0)), (KERNEL_BITS, entry));
    }
}

every_layout!(
    copies_and_children_have_them,
    copies_of_zeroes_have_them,
    a_slot_and_a_move_leave_them,
    other_rights_and_frames_leave_them,
    they_go_with_the_page,
);
