//! Rights that change: down, up, away and back; limits, holes, policy.

use std::collections::BTreeMap;

use pagepin::fault::FaultError;
use pagepin::frame::{Dirty, Layout, Wide};
use pagepin::pin::{PinError, Read, Write};
use pagepin::space::{ProtectError, SpaceError, protect_pages};
use pagepin::{
    AddressSpace, Backing, LeafSize, MapOptions, MemoryType, PageAddr, Pfn, RangeError, Rights, Vma, VmaFlags,
};

use crate::machine::{A, CPUS, LARGE, Machine, NONE, PAGE, Process, R, RW, RX, range};

fn denied<L: Layout>(machine: &Machine<L>, process: &Process<'_, L>, address: u64) -> [bool; 3] {
    let refused = |result: Result<(), FaultError>| match result {
        Ok(()) => false,
        Err(FaultError::AccessDenied) => true,
        Err(other) => panic!("{other:?}"),
    };
    [
        refused(machine.load(1, process, address, 1).map(drop)),
        // The byte that is there, so that nothing changes.
        refused(machine.store(2, process, address, 10, 1)),
        refused(machine.execute(3, process, address)),
    ]
}

/// From every set of rights to every other: all CPUs obey, the bytes stay, and what may be done can be done.
fn every_change_of_rights_is_obeyed_on_every_cpu<L: Layout>() {
    let sets = [NONE, R, RW, RX, Rights::all()];
    for from in sets {
        for to in sets {
            for shared in [false, true] {
                let machine = Machine::<L>::new(64);
                let process = machine.populated(1, 10);
                let child = shared.then(|| process.fork().unwrap());
                process.protect(A, PAGE, from).unwrap();
                for cpu in 0..CPUS {
                    let _ = machine.load(cpu, &process, A, 1);
                    let _ = machine.store(cpu, &process, A, 10, 1);
                }
                process.protect(A, PAGE, to).unwrap();
                let wanted = [to.is_empty(), !to.contains(Rights::WRITE), !to.contains(Rights::EXECUTE)];
                assert_eq!(denied(&machine, &process, A), wanted, "{from:?} -> {to:?}");
                process.protect(A, PAGE, RW).unwrap();
                assert_eq!(machine.get(&process, A), 10);
                machine.put(&process, A, 11);
                if let Some(child) = &child {
                    assert_eq!(machine.get(child, A), 10);
                }
                machine.audit(&[&process].into_iter().chain(child.as_ref()).collect::<Vec<_>>(), &BTreeMap::new());
            }
        }
    }
}

/// INV-1: protect gives the right to write at once only to an exclusive frame.
fn an_upgrade_does_not_make_shared_pages_writable<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let parent = machine.populated(2, 10);
    machine.put(&parent, A, 10);
    let child = parent.fork().unwrap();
    machine.put(&parent, A + PAGE, 20);
    parent.map(A + 4 * PAGE, PAGE, RW).unwrap();
    assert_eq!(machine.get(&parent, A + 4 * PAGE), 0);
    for process in [&parent, &child] {
        process.protect(A, 2 * PAGE, R).unwrap();
        process.protect(A, 2 * PAGE, RW).unwrap();
    }
    parent.protect(A + 4 * PAGE, PAGE, R).unwrap();
    parent.protect(A + 4 * PAGE, PAGE, RW).unwrap();
    machine.audit(&[&parent, &child], &BTreeMap::new());
    let writable = |process, address| Machine::<L>::is_writable(machine.leaf(process, address).unwrap().bits);
    assert!(!writable(&parent, A) && writable(&parent, A + PAGE), "only its own");
    machine.put(&parent, A + 4 * PAGE, 1);
    machine.put(&child, A, 30);
    assert_eq!((machine.get(&parent, A), machine.get(&child, A)), (10, 30));
}

fn zero_pages_without_rights_come_back<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A), 0);
    process.protect(A, PAGE, NONE).unwrap();
    assert_eq!(denied(&machine, &process, A), [true; 3]);
    let pinned = machine.pin::<Read>(&process, A, 1).err();
    assert_eq!(pinned, Some(PinError::AccessDenied));
    process.protect(A, PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A), 0);
    machine.put(&process, A, 1);
    assert_eq!(machine.get(&process, A), 1);
}

/// S4: with this policy a pinned page keeps its rights, the error names it, and nothing at all was changed.
fn refusing_policy_names_the_pinned_page<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 4 * PAGE, refusing()).unwrap();
    machine.put_pages(&process, A, 4, 10);
    let pins = machine.pin::<Read>(&process, A + 2 * PAGE, 1).unwrap();
    let before = machine.image(&[&process]);
    let error = SpaceError::Pinned(PageAddr::containing(A + 2 * PAGE));
    let named = Err(error);
    assert_eq!(process.protect(A, 4 * PAGE, R), named);
    assert_eq!(process.protect(A, 4 * PAGE, NONE), named);
    before.assert_same(&machine.image(&[&process]), "refused");
    machine.put(&process, A, 99);
    assert_eq!(process.protect(A, 4 * PAGE, RW), Ok(()), "nothing is taken away");
    assert_eq!(process.protect(A, 2 * PAGE, R), Ok(()), "not pinned");
    drop(pins);
    assert_eq!(process.protect(A, 4 * PAGE, NONE), Ok(()));
    assert_eq!(error.to_string(), format!("the page at {:#x} is pinned", A + 2 * PAGE));
}

fn refusing() -> MapOptions {
    MapOptions::new(RW).flags(VmaFlags::REFUSE_PROTECT_PINNED)
}

/// The right is the VMA's: a read pin leaves the entry read-only, and still the page may not lose it.
fn refusing_policy_goes_by_the_vma_not_the_entry<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    let pinned = Err(SpaceError::Pinned(PageAddr::containing(A)));
    process.map(A, PAGE, refusing()).unwrap();
    let pins = machine.pin::<Read>(&process, A, 1).unwrap();
    assert!(!Machine::<L>::is_writable(machine.leaf(&process, A).unwrap().bits));
    assert_eq!(process.protect(A, PAGE, R), pinned, "the right to write");
    drop(pins);
    assert_eq!(process.protect(A, PAGE, R), Ok(()));
    let pins = machine.pin::<Read>(&process, A, 1).unwrap();
    assert_eq!(process.protect(A, PAGE, NONE), pinned, "all rights");
    assert_eq!(process.protect(A, PAGE, R), Ok(()), "nothing is lost");
    assert_eq!(process.protect(A, PAGE, RX), Ok(()), "nothing is lost");
    drop(pins);
    assert_eq!(process.protect(A, PAGE, NONE), Ok(()));
}

/// Foreign memory may be pinned by whoever owns it; that is no pin of a page of this mm.
fn refusing_policy_does_not_ask_foreign_memory<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let (owner, user) = (machine.populated(1, 1), machine.process());
    let pins = machine.pin::<Write>(&owner, A, 1).unwrap();
    // SAFETY: memory of the test.
    unsafe { user.map_foreign(A, PAGE, pins.runs()[0].first(), MemoryType::WRITE_BACK, RW).unwrap() };
    assert_eq!(user.protect(A, PAGE, R), Ok(()));
    user.unmap(A, PAGE).unwrap();
    drop(pins);
}

/// A walker of another mm that found the frame by its former entry holds it until it has read that entry again.
fn a_stale_walkers_momentary_pin_does_not_stop_protect<L: Layout>() {
    for rights in [R, NONE] {
        let machine = Machine::<L>::new(64);
        let process = machine.process();
        process.map(A, 2 * PAGE, refusing()).unwrap();
        machine.put_pages(&process, A, 2, 1);
        let (flushes, frame) = (machine.flushes(), machine.frame_at(&process, A + PAGE).0);
        machine.word(frame).try_pin_exclusive().unwrap();
        let walker_leaves = || {
            // Where walks have interrupts off, it is the flush that waits for them.
            assert!(machine.flushes() > flushes);
            _ = machine.word(frame).unpin(Dirty::No).unwrap();
        };
        let result = machine.during_grace_period(walker_leaves, || process.protect(A, 2 * PAGE, rights));
        assert_eq!(result, Ok(()));
        assert!(machine.store(0, &process, A + PAGE, 1, 1).is_err());
    }
}

/// The usual policy: user code loses the right, the device does not.
fn usual_policy_leaves_the_device_its_page<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(1, 10);
    let pins = machine.pin::<Write>(&process, A, 1).unwrap();
    for rights in [R, NONE] {
        process.protect(A, PAGE, rights).unwrap();
        assert!(machine.store(0, &process, A, 1, 1).is_err());
        assert_eq!(machine.pin::<Write>(&process, A, 1).err(), Some(PinError::AccessDenied));
        machine.dma_write(pins.runs()[0].first().address(), &[rights.bits() + 40]);
    }
    let child = process.fork().unwrap();
    process.protect(A, PAGE, RW).unwrap();
    assert_eq!(machine.get(&process, A), 40);
    child.protect(A, PAGE, RW).unwrap();
    assert_eq!(machine.get(&child, A), 40);
    machine.dma_write(pins.runs()[0].first().address(), &[50]);
    assert_eq!((machine.get(&process, A), machine.get(&child, A)), (50, 40));
    drop(pins);
}

fn limits_holes_and_bad_ranges_are_refused<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, PAGE, MapOptions::new(R).max_rights(RX).key(3)).unwrap();
    process.map(A + PAGE, PAGE, RW).unwrap();
    process.map(A + 3 * PAGE, PAGE, RW).unwrap();
    assert_eq!(process.protect(A, 2 * PAGE, RW), Err(SpaceError::AccessDenied), "more than the first may be given");
    assert_eq!(process.protect(A, PAGE, RX), Ok(()));
    assert_eq!(process.protect(A + PAGE, 3 * PAGE, R), Err(SpaceError::NoVma), "a hole");
    assert_eq!(process.protect(A - PAGE, 2 * PAGE, R), Err(SpaceError::NoVma), "a hole in front");
    assert_eq!(process.protect(A + 3 * PAGE, 2 * PAGE, R), Err(SpaceError::NoVma), "a hole behind");
    assert_eq!(process.protect(A + 1, PAGE, R), Err(SpaceError::Range(RangeError::Unaligned)));
    assert_eq!(process.protect(A, 0, R), Err(SpaceError::Range(RangeError::Empty)));
    assert_eq!(process.map(A + 8 * PAGE, PAGE, MapOptions::new(RW).max_rights(R)), Err(SpaceError::AccessDenied));
    machine.put(&process, A + PAGE, 1);
    machine.put(&process, A + 3 * PAGE, 1);
}

/// The key of a VMA stays with its pages through every change.
fn protection_keys_stay<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    process.map(A, 2 * PAGE, MapOptions::new(RW).key(9)).unwrap();
    machine.put(&process, A, 1);
    for rights in [R, NONE, RX, RW] {
        process.protect(A, PAGE, rights).unwrap();
        assert_eq!(machine.leaf(&process, A).unwrap().bits >> 59 & 15, 9, "{rights:?}");
    }
    let child = process.fork().unwrap();
    machine.put(&child, A, 2);
    assert_eq!(machine.leaf(&child, A).unwrap().bits >> 59 & 15, 9);
    // Denied by PKRU on CPU 1 only.
    machine.cpus().set_pkru(1, 1 << 18);
    assert_eq!(machine.load(1, &process, A, 1), Err(FaultError::ProtectionKey));
    assert_eq!(machine.load(0, &process, A, 1), Ok(1));
}

fn large_leaves_change_as_a_whole<L: Layout>() {
    let (size, address) = (LeafSize::Size2MiB, 1 << 30);
    let machine = Machine::<L>::new(2048);
    let process = machine.process();
    process.map(address, 2 * size.bytes(), RW).unwrap();
    let block = machine.block(size);
    machine.install(&process, address, size, block, 7);
    machine.put(&process, address + 7 * PAGE, 1);
    machine.put(&process, address + 7 * PAGE, 2);
    process.protect(address, 2 * size.bytes(), R).unwrap();
    assert!(machine.store(0, &process, address + 500 * PAGE, 1, 1).is_err());
    process.protect(address, size.bytes(), NONE).unwrap();
    assert!(machine.load(0, &process, address + 500 * PAGE, 1).is_err());
    process.protect(address, size.bytes(), RW).unwrap();
    assert_eq!(machine.get(&process, address + 7 * PAGE), 2);
    assert_eq!(machine.frame_at(&process, address).0, block);
}

/// Foreign memory: rights only go down from what it was mapped with, and without any nothing reaches it.
fn foreign_memory_obeys_its_rights<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.process();
    let registers = Pfn::new(0xfee0);
    // SAFETY: registers of the emulated machine.
    unsafe {
        process.map_foreign(A, PAGE, registers, MemoryType::UNCACHED, RW).unwrap();
        process.map_foreign(A + 2 * PAGE, PAGE, registers.offset(1), MemoryType::UNCACHED, NONE).unwrap();
        process.map_foreign(A + 4 * PAGE, PAGE, registers.offset(2), MemoryType::UNCACHED, R).unwrap();
    }
    machine.put(&process, A, 10);
    process.protect(A, PAGE, R).unwrap();
    assert_eq!(denied(&machine, &process, A), [false, true, true]);
    process.protect(A, PAGE, NONE).unwrap();
    assert_eq!(denied(&machine, &process, A), [true; 3]);
    process.protect(A, PAGE, RW).unwrap();
    assert_eq!(denied(&machine, &process, A), [false, false, true]);
    assert_eq!(machine.get(&process, A), 10);
    assert_eq!(denied(&machine, &process, A + 2 * PAGE), [true; 3], "mapped without rights");
    assert_eq!(process.protect(A + 2 * PAGE, PAGE, R), Err(SpaceError::AccessDenied));
    assert_eq!(process.protect(A + 4 * PAGE, PAGE, RW), Err(SpaceError::AccessDenied));
    assert_eq!(machine.load(0, &process, A, 4).map(|value| value as u8), Ok(10));
}

every_layout!(
    every_change_of_rights_is_obeyed_on_every_cpu,
    an_upgrade_does_not_make_shared_pages_writable,
    zero_pages_without_rights_come_back,
    refusing_policy_names_the_pinned_page,
    refusing_policy_goes_by_the_vma_not_the_entry,
    refusing_policy_does_not_ask_foreign_memory,
    a_stale_walkers_momentary_pin_does_not_stop_protect,
    usual_policy_leaves_the_device_its_page,
    limits_holes_and_bad_ranges_are_refused,
    protection_keys_stay,
    large_leaves_change_as_a_whole,
    foreign_memory_obeys_its_rights,
);

/// For kernels with VMAs of their own: the same refusals, nothing changed.
#[test]
fn protect_pages_refuses_pinned_pages_and_cuts_leaves() {
    let machine = Machine::<Wide>::new(2048);
    let process = machine.process();
    let options = MapOptions::new(RW).flags(VmaFlags::REFUSE_PROTECT_PINNED);
    process.map(A, 2 * PAGE, options).unwrap();
    machine.put_pages(&process, A, 2, 1);
    let protect = |start: u64, length: u64| {
        let range = range(&process, start, length);
        let vma = Vma::new(range, Backing::Anonymous, options).unwrap();
        // SAFETY: the process has such a VMA; one thread.
        unsafe { protect_pages(process.mm(), range, [&vma], R) }
    };
    let pin = machine.pin::<Read>(&process, A + PAGE, 1).unwrap();
    assert_eq!(protect(A, 2 * PAGE), Err(ProtectError::Pinned(PageAddr::containing(A + PAGE))));
    assert_eq!(machine.store(0, &process, A, 5, 1), Ok(()));
    drop(pin);
    let size = LeafSize::Size2MiB;
    process.map(LARGE, size.bytes(), options).unwrap();
    machine.install(&process, LARGE, size, machine.block(size), 7);
    protect(LARGE, PAGE).unwrap();
    assert!(!machine.leaf(&process, LARGE).unwrap().is_writable(), "what its VMA says is its owner's");
    assert_eq!(machine.store(0, &process, LARGE + 7 * PAGE, 5, 1), Ok(()));
}
