//! Processors whose instruction fetches do not see stores: the machine's are such, and panic when a frame is executed that
//! nobody has announced. Each way in which a leaf becomes executable.

use pagepin::fault::{Fault, FaultOutcome};
use pagepin::frame::Layout;
use pagepin::pin::{Read, Write};
use pagepin::{Access, LeafSize, MemoryType, Pfn, Rights};

use crate::machine::{A, LARGE, Machine, NONE, PAGE, Process, R, RW, RX};

const RWX: Rights = Rights::all();
const PROT_NONE: u64 = 1 << pagepin::SOFTWARE_BITS[1];

#[track_caller]
fn runs<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, address: u64) {
    assert_eq!(machine.execute(1, process, address), Ok(()));
}

fn a_page_that_a_fault_fills<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 2 * PAGE, RWX).unwrap();
    runs(&machine, &process, A);
    let fault = Fault { address: A + PAGE, access: Access::Write, key_denied: false, malformed_table: false };
    assert_eq!(process.fault(fault), Ok(FaultOutcome::MappedFresh));
    runs(&machine, &process, A + PAGE);
}

fn a_copy_of_code<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.process();
    parent.map(A, PAGE, RWX).unwrap();
    machine.put(&parent, A, 7);
    let child = parent.fork().unwrap();
    let fault = Fault { address: A, access: Access::Write, key_denied: false, malformed_table: false };
    assert_eq!(child.fault(fault), Ok(FaultOutcome::Copied));
    runs(&machine, &child, A);
    runs(&machine, &parent, A);
}

/// What is pinned is copied for the child by fork itself.
fn a_childs_early_copy<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.process();
    parent.map(A, 2 * PAGE, RWX).unwrap();
    machine.put_pages(&parent, A, 2, 7);
    let pins = machine.pin::<Read>(&parent, A, 1).unwrap();
    let child = parent.fork().unwrap();
    assert_ne!(machine.frame_at(&child, A).0, machine.frame_at(&parent, A).0);
    runs(&machine, &child, A);
    runs(&machine, &child, A + PAGE);
    drop(pins);
}

/// A loader writes, by its own stores or a device's, and then asks for the right.
fn what_was_written_before_the_right_came<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 7);
    let pins = machine.pin::<Write>(&process, A + PAGE, 1).unwrap();
    machine.dma_write(pins.runs()[0].first().address(), &[8]);
    drop(pins);
    process.protect(A, 2 * PAGE, RX).unwrap();
    runs(&machine, &process, A);
    runs(&machine, &process, A + PAGE);
    process.protect(A, PAGE, RW).unwrap();
    machine.put(&process, A, 9);
    process.protect(A, PAGE, RX).unwrap();
    runs(&machine, &process, A);
}

/// A page without rights is executable again as soon as it is present: by protect, or by a fault where the VMA has its
/// rights already.
fn rights_that_come_back<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, PAGE, RWX).unwrap();
    machine.put(&process, A, 7);
    let pins = machine.pin::<Write>(&process, A, 1).unwrap();
    let device = pins.runs()[0].first().address();
    process.protect(A, PAGE, NONE).unwrap();
    machine.dma_write(device, &[8]);
    process.protect(A, PAGE, RX).unwrap();
    runs(&machine, &process, A);

    let leaf = machine.leaf(&process, A).unwrap();
    machine.poke(leaf.at, leaf.bits & !1 | PROT_NONE);
    pagepin::Shootdown::flush(&machine, process.root(), pagepin::FlushRange::Everything);
    machine.dma_write(device, &[9]);
    runs(&machine, &process, A);
}

fn foreign_memory<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    // SAFETY: registers of the emulated machine.
    unsafe { process.map_foreign(A, 2 * PAGE, Pfn::new(0xfee0), MemoryType::UNCACHED, RX).unwrap() };
    runs(&machine, &process, A);
    runs(&machine, &process, A + PAGE);
}

/// All of a large leaf: put in, given the right, and copied.
fn large_leaves<L: Layout>() {
    let machine = Machine::<L>::new(2048);
    let size = LeafSize::Size2MiB;
    let parent = machine.process();
    parent.map(LARGE, size.bytes(), RWX).unwrap();
    machine.install(&parent, LARGE, size, machine.block(size), 7);
    let last = LARGE + size.bytes() - PAGE;
    runs(&machine, &parent, last);
    parent.protect(LARGE, size.bytes(), RW).unwrap();
    machine.put(&parent, last, 7);
    parent.protect(LARGE, size.bytes(), RWX).unwrap();
    runs(&machine, &parent, last);

    let child = parent.fork().unwrap();
    let fault = Fault { address: LARGE, access: Access::Write, key_denied: false, malformed_table: false };
    assert_eq!(child.fault(fault), Ok(FaultOutcome::Copied));
    runs(&machine, &child, last);
}

/// The kernel's work is not cheap: it is asked for once, and not where nobody may execute.
fn nothing_else_is_announced<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    let announced = |work: &dyn Fn()| {
        let before = machine.executables();
        work();
        machine.executables() - before
    };
    process.map(A, 4 * PAGE, RW).unwrap();
    assert_eq!(announced(&|| machine.put_pages(&process, A, 4, 7)), 0);
    assert_eq!(announced(&|| process.protect(A, 4 * PAGE, R).unwrap()), 0);
    assert_eq!(announced(&|| process.protect(A, 4 * PAGE, RX).unwrap()), 4);
    assert_eq!(announced(&|| process.protect(A, 4 * PAGE, RWX).unwrap()), 0, "executable already");
    let child = process.fork().unwrap();
    assert_eq!(announced(&|| machine.put(&child, A, 8)), 1, "the copy");
    drop(child);
    assert_eq!(announced(&|| machine.put(&process, A + PAGE, 8)), 0, "the same frame, writable again");
    assert_eq!(announced(&|| process.protect(A, 4 * PAGE, NONE).unwrap()), 0);
}

every_layout!(
    a_page_that_a_fault_fills,
    a_copy_of_code,
    a_childs_early_copy,
    what_was_written_before_the_right_came,
    rights_that_come_back,
    foreign_memory,
    large_leaves,
    nothing_else_is_announced,
);
