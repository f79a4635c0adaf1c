//! Every operation with every allocation failing: a precise error, nothing lost, nothing half done.

use pagepin::Access;
use pagepin::Backing;
use pagepin::fault::{FaultError, FaultOutcome};
use pagepin::frame::Layout;
use pagepin::space::ForkError;

use crate::machine::{A, FAR, Machine, NONE, PAGE, Process, RW};
use crate::undo::{Obstacle, Operation, OwnVmas, contended, fault, furnished, operations, pins};

/// INV-14 for one operation: memory runs out at each of its allocations, and each of them fails alone.
fn starve<L: Layout>(operation: &Operation<L>) {
    let ideal = operation.ideal(0);
    for obstacle in [|after| Obstacle::OutOfMemory { after }, |after| Obstacle::OneFailure { after }] {
        let mut failures = 0;
        while let Some(refused) = operation.fails_without_a_trace(&obstacle(failures), &ideal) {
            assert_eq!(refused.why, "NoMemory", "{}", operation.name);
            failures += 1;
        }
        assert_eq!(failures, operation.allocations, "{}", operation.name);
    }
}

/// New address spaces, maps, forks, faults, and what needs no memory at all: unmap, discard, protect, exit.
fn every_allocation_of_every_operation_fails_once<L: Layout>() {
    operations::<L>().iter().for_each(starve);
}

/// All forms, for reading and writing, of pages in every state. A pin that stops short leaves what a shorter one would.
fn every_allocation_of_every_pin_fails_once<L: Layout>() {
    pins::<L>().iter().for_each(starve);
}

/// INV-14 (and tgoskits #2096): fork with every number of allocations granted before memory runs out. The parent's rights
/// are what they were in hardware too: no fault is needed to write.
fn a_fork_that_fails_leaves_everything_as_it_was<L: Layout>() {
    for scene in [furnished, contended] {
        let machine = Machine::<L>::new(128);
        let scene = scene(&machine);
        let parent = scene.process();
        machine.put(parent, A, 20);
        let before = scene.image(&machine, None);
        let mut failures = 0;
        loop {
            machine.memory().allow(Some(failures));
            let result = parent.fork();
            machine.memory().allow(None);
            let Err(error) = result else { break };
            assert_eq!(error, ForkError::NoMemory);
            before.assert_same(&scene.image(&machine, None), format!("after {failures} allocations"));
            let write = machine.attempt(3, parent, A, Access::Write);
            assert!(write.is_ok(), "after {failures} allocations: {write:?}");
            failures += 1;
        }
        assert_eq!(failures, 9, "a root, six tables, two copies");
    }
}

/// INV-6: what is undone was never counted for the zero frame; a release too many would be noted as a bug.
fn a_fork_that_fails_past_zeroes_leaves_the_zero_frame_alone<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.process();
    parent.map(A, PAGE, RW).unwrap();
    assert_eq!(machine.get(&parent, A), 0, "the zero frame");
    parent.map(FAR, PAGE, RW).unwrap();
    machine.put(&parent, FAR, 1);
    let before = machine.image(&[&parent]);
    let needed = (0..).find(|allowed| {
        machine.memory().allow(Some(*allowed));
        let result = parent.fork();
        machine.memory().allow(None);
        if result.is_err() {
            before.assert_same(&machine.image(&[&parent]), format!("after {allowed} allocations"));
        }
        result.is_ok()
    });
    assert_eq!(needed, Some(7), "a root, and three tables for each page");
}

/// The one thing that a failed fault may leave behind: a page that its VMA gave rights to again is present again. What
/// user code may do with it is what the VMA said before.
fn a_copy_that_fails_may_leave_a_page_present_that_had_no_rights<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(2, 10);
    let child = parent.fork().unwrap();
    parent.protect(A, PAGE, NONE).unwrap();
    let vmas = OwnVmas::new(&parent, (A, A + PAGE), RW, Backing::Anonymous);
    let write = || {
        let (address, access) = (A, Access::Write);
        let fault = pagepin::fault::Fault { address, access, key_denied: false, malformed_table: false };
        pagepin::fault::handle_fault(&vmas, fault)
    };
    let prot_none = machine.leaf(&parent, A).unwrap();
    machine.memory().allow(Some(0));
    assert_eq!(write(), Err(FaultError::NoMemory));
    let present = machine.leaf(&parent, A).unwrap();
    assert_eq!((prot_none.frame(), present.is_present()), (present.frame(), true));
    assert!(!Machine::<L>::is_writable(present.bits), "INV-1");
    let before = machine.image(&[&parent, &child]);
    assert_eq!(write(), Err(FaultError::NoMemory));
    before.assert_same(&machine.image(&[&parent, &child]), "once more");
    machine.memory().allow(None);
    assert_eq!(write(), Ok(FaultOutcome::Copied));
    assert_eq!(machine.get(&child, A), 10);
}

/// The last owner of a page needs no memory to write it, however scarce it is.
fn a_page_that_nobody_else_has_is_written_without_memory<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(1, 10);
    let child = parent.fork().unwrap();
    machine.memory().allow(Some(0));
    let write = |process: &Process<'_, L>| fault(process, A, Access::Write);
    assert_eq!([write(&parent), write(&child)], [Err(FaultError::NoMemory); 2], "no copy");
    drop(child);
    assert_eq!(write(&parent), Ok(FaultOutcome::Reused));
    machine.memory().allow(None);
}

every_layout!(
    a_fork_that_fails_past_zeroes_leaves_the_zero_frame_alone,
    a_fork_that_fails_leaves_everything_as_it_was,
    a_copy_that_fails_may_leave_a_page_present_that_had_no_rights,
    a_page_that_nobody_else_has_is_written_without_memory;
    long: every_allocation_of_every_operation_fails_once,
    every_allocation_of_every_pin_fails_once,
);
