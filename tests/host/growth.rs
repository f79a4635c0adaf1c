//! VMAs that grow down: to where a thread pushes, with exact errors, and nothing changed by them.

use pagepin::fault::{Fault, FaultError, handle_fault};
use pagepin::frame::Layout;
use pagepin::pin::{PinError, Write};
use pagepin::space::{Advice, Growth};
use pagepin::{Access, AddressSpace, GrowError, MapOptions, PageAddr, Rights, VmaFlags};

use crate::machine::{A, FAR, Machine, NONE, PAGE, Process, R, RW};

/// Where the stack ends.
const TOP: u64 = FAR + 64 * PAGE;
const GROWTH: Growth = Growth { guard_pages: 4, most_pages: 16 };

fn stack_of(rights: Rights) -> MapOptions {
    MapOptions::new(rights).flags(VmaFlags::GROWS_DOWN)
}

/// A stack of one page.
fn stack<L: Layout>(machine: &Machine<L>) -> Process<'_, L> {
    let process = machine.process();
    process.set_growth(GROWTH);
    process.map(TOP - PAGE, PAGE, stack_of(RW)).unwrap();
    process
}

fn touch<L: Layout>(process: &Process<'_, L>, address: u64, access: Access) -> Result<(), FaultError> {
    let fault = Fault { address, access, key_denied: false, malformed_table: false };
    process.fault(fault).map(|_| ())
}

fn start<L: Layout>(process: &Process<'_, L>) -> u64 {
    process.vma_at(TOP - 1).unwrap().unwrap().start().address()
}

/// Asked in both ways, a fault below says why it is one, and changes nothing.
#[track_caller]
fn is_refused<L: Layout>(
    machine: &Machine<L>,
    process: &Process<'_, L>,
    address: u64,
    access: Access,
    error: FaultError,
) {
    let before = machine.image(&[process]);
    assert_eq!(touch(process, address, access), Err(error));
    let fault = Fault { address, access, key_denied: false, malformed_table: false };
    assert_eq!(handle_fault(process, fault).map(|_| ()), Err(error));
    before.assert_same(&machine.image(&[process]), format_args!("{error:?}"));
}

/// To the page that was touched, as often as it takes; what is between are zeroes, and a child's stack grows by itself.
fn it_grows_to_where_a_thread_pushes<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = stack(&machine);
    machine.put(&process, TOP - 1, 1);
    machine.put(&process, TOP - 2 * PAGE + 8, 2);
    assert_eq!(start(&process), TOP - 2 * PAGE);
    machine.put(&process, TOP - 5 * PAGE, 3);
    assert_eq!(start(&process), TOP - 5 * PAGE);
    assert_eq!(process.vmas().count(), 1);
    assert_eq!(machine.get(&process, TOP - 3 * PAGE), 0);
    let child = process.fork().unwrap();
    machine.put(&child, TOP - 7 * PAGE, 4);
    assert_eq!((start(&child), start(&process)), (TOP - 7 * PAGE, TOP - 5 * PAGE));
    assert_eq!(machine.get(&child, TOP - 5 * PAGE), 3);
    assert_eq!(child.growth(), GROWTH);
    let fault = Fault { address: TOP - 6 * PAGE, access: Access::Write, key_denied: false, malformed_table: false };
    handle_fault(&process, fault).unwrap();
    assert_eq!(start(&process), TOP - 6 * PAGE);
    machine.audit(&[&process, &child], &Default::default());
}

/// As many pages as the kernel says, and not one more; it may say more later.
fn it_ends_at_the_limit<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = stack(&machine);
    is_refused(&machine, &process, TOP - 16 * PAGE - 1, Access::Write, FaultError::GrowthLimit);
    machine.put(&process, TOP - 16 * PAGE, 1);
    is_refused(&machine, &process, TOP - 17 * PAGE, Access::Write, FaultError::GrowthLimit);
    process.set_growth(Growth { most_pages: 17, ..GROWTH });
    machine.put(&process, TOP - 17 * PAGE, 1);
    process.set_growth(Growth { most_pages: 2, ..GROWTH });
    assert_eq!(machine.get(&process, TOP - 17 * PAGE), 1, "what has grown stays");
}

/// Something below keeps it away, whatever its rights.
fn a_guard_gap_stays_below_it<L: Layout>() {
    for rights in [RW, NONE] {
        let machine = Machine::<L>::new(64);
        let process = stack(&machine);
        process.map(TOP - 12 * PAGE, PAGE, rights).unwrap();
        is_refused(&machine, &process, TOP - 8 * PAGE, Access::Write, FaultError::GuardGap);
        machine.put(&process, TOP - 7 * PAGE, 1);
        is_refused(&machine, &process, TOP - 7 * PAGE - 1, Access::Write, FaultError::GuardGap);
        process.unmap(TOP - 12 * PAGE, PAGE).unwrap();
        machine.put(&process, TOP - 8 * PAGE, 1);
    }
    // No gap is too small a gap.
    let machine = Machine::<L>::new(64);
    let process = stack(&machine);
    process.set_growth(Growth { guard_pages: 0, ..GROWTH });
    process.map(TOP - 4 * PAGE, PAGE, stack_of(RW)).unwrap();
    is_refused(&machine, &process, TOP - 3 * PAGE, Access::Write, FaultError::GuardGap);
    machine.put(&process, TOP - 2 * PAGE, 1);
    // Nor is there one below the first page.
    let process = machine.process();
    process.map(8 * PAGE, PAGE, stack_of(RW)).unwrap();
    is_refused(&machine, &process, 7 * PAGE, Access::Write, FaultError::GuardGap);
}

/// Addresses whose pages are going, by an unmap that has let the lock go, are nobody's to grow into.
fn it_does_not_grow_into_what_is_leaving<L: Layout>() {
    const TABLE: u64 = 512 * PAGE;
    let machine = Machine::<L>::new(1024);
    let process = stack(&machine);
    let (length, gap) = (100 * TABLE, 8 * PAGE);
    let first = TOP - gap - length;
    // So that it does not go by one entry.
    process.map(first - PAGE, length + PAGE, RW).unwrap();
    machine.put(&process, first - PAGE, 1);
    (0..100).for_each(|table| machine.put(&process, first + table * TABLE, 1));
    let push = || touch(&process, TOP - 5 * PAGE, Access::Write);
    let meanwhile = || assert_eq!(push(), Err(FaultError::GuardGap));
    assert_eq!(machine.during_grace_period(meanwhile, || process.unmap(first, length)).unwrap().pages, 100);
    push().unwrap();
}

/// Not for an access that it would refuse, nor when no VMA above grows; nor for a pin.
fn only_an_access_that_it_permits_grows_it<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = stack(&machine);
    is_refused(&machine, &process, TOP - 2 * PAGE, Access::Execute, FaultError::AccessDenied);
    process.protect(TOP - PAGE, PAGE, R).unwrap();
    is_refused(&machine, &process, TOP - 2 * PAGE, Access::Write, FaultError::AccessDenied);
    is_refused(&machine, &process, TOP, Access::Read, FaultError::NoVma);
    touch(&process, TOP - 2 * PAGE, Access::Read).unwrap();
    process.map(A, PAGE, RW).unwrap();
    is_refused(&machine, &process, A - 1, Access::Write, FaultError::NoVma);
    assert_eq!(process.grow(PageAddr::containing(A - PAGE), Access::Read), Err(GrowError::NoVma));
    assert_eq!(process.grow(PageAddr::containing(A), Access::Read), Ok(()), "there is one");
    assert_eq!(machine.pin::<Write>(&process, TOP - 3 * PAGE, PAGE).unwrap_err(), PinError::NoVma, "pins grow nothing");
    let nowhere = u64::MAX - 7;
    let error = touch(&process, nowhere, Access::Read).unwrap_err();
    assert!(matches!(error, FaultError::Address(_)), "{error:?}");
    // A hardware fault of another kind is not an access outside.
    let fault = Fault { address: TOP - 4 * PAGE, access: Access::Read, key_denied: true, malformed_table: false };
    assert_eq!(process.fault(fault), Err(FaultError::ProtectionKey));
    let fault = Fault { key_denied: false, malformed_table: true, ..fault };
    assert_eq!(process.fault(fault), Err(FaultError::MalformedTable));
}

/// Its parts are VMAs as others, of which the lowest grows.
fn the_lowest_part_grows<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = stack(&machine);
    machine.put(&process, TOP - 4 * PAGE, 1);
    process.advise(TOP - 4 * PAGE, PAGE, Advice::DontFork).unwrap();
    machine.put(&process, TOP - 5 * PAGE, 1);
    let lowest = process.vma_at(TOP - 5 * PAGE).unwrap().unwrap();
    assert_eq!((lowest.pages(), lowest.flags()), (2, VmaFlags::GROWS_DOWN | VmaFlags::DONT_FORK));
    process.unmap(TOP - 5 * PAGE, 3 * PAGE).unwrap();
    machine.put(&process, TOP - 3 * PAGE, 2);
    assert_eq!((start(&process), machine.get(&process, TOP - 3 * PAGE)), (TOP - 3 * PAGE, 2));
}

/// With the list of VMAs full, and no memory, it grows all the same.
fn it_needs_no_memory<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = stack(&machine);
    (0..200).for_each(|index| process.map(A + 2 * index * PAGE, PAGE, RW).unwrap());
    machine.memory().allow(Some(0));
    assert_eq!(touch(&process, TOP - 2 * PAGE, Access::Write), Err(FaultError::NoMemory), "for the page");
    assert_eq!(start(&process), TOP - 2 * PAGE);
    machine.memory().allow(None);
    touch(&process, TOP - 2 * PAGE, Access::Write).unwrap();
}

every_layout!(
    it_grows_to_where_a_thread_pushes,
    it_ends_at_the_limit,
    a_guard_gap_stays_below_it,
    it_does_not_grow_into_what_is_leaving,
    only_an_access_that_it_permits_grows_it,
    the_lowest_part_grows,
    it_needs_no_memory,
);
