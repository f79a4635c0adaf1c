//! Every public operation that makes, changes or takes away mappings, but for the pin family.

use std::sync::Arc;

use pagepin::Access;
use pagepin::fault::{Fault, FaultError, FaultOutcome, handle_fault};
use pagepin::frame::Layout;
use pagepin::paging::Tables;
use pagepin::space::{
    self, Advice, EmptyTables, KernelHalf, SpaceOptions, UserSpace, free_tables, protect_pages, zap_pages,
};
use pagepin::{AddressSpace, Backing, LeafSize, MapOptions, MemoryType, PageAddr, Pfn, PinLimit, Rights};

use super::scene::{
    advised, contended, empty, five_levels, forked, four_pages, furnished, gap, kernel_entry, large, orphaned,
    populated, with_empty_child, without_zero_frame,
};
use super::{Done, Operation, OwnVmas, Scene, done, operation};
use crate::machine::{A, FAR, FOREIGN, LARGE, Machine, NONE, PAGE, Process, R, RW, UNTOUCHED, range};

/// What the exception handler of a kernel does.
pub(crate) fn fault<L: Layout>(
    process: &Process<'_, L>,
    address: u64,
    access: Access,
) -> Result<FaultOutcome, FaultError> {
    process.fault(Fault { address, access, key_denied: false, malformed_table: false })
}

fn faulting<L: Layout>(
    name: &str,
    allocations: u64,
    scene: for<'m> fn(&'m Machine<L>) -> Scene<'m, L>,
    address: u64,
    access: Access,
) -> Operation<L> {
    operation(name, allocations, scene, move |_, scene| done(fault(scene.process(), address, access).map(drop)))
}

/// Fork by a kernel with VMAs of its own, into a child that it has made; it gets rid of the child's tables on failure.
pub(crate) fn fork_vmas<'s, 'm, L: Layout>(
    machine: &'m Machine<L>,
    scene: &'s Scene<'m, L>,
    end: u64,
) -> Done<'s, 'm, L> {
    let [parent, child] = &scene.processes[..] else { panic!("a parent and a child") };
    let vma = OwnVmas::new(parent, (A, end), RW, Backing::Anonymous).vma;
    // SAFETY: the VMA is the parent's, there is one thread, and the child is new.
    let result = unsafe { space::fork_vmas(parent.mm(), child.mm(), &[vma]) };
    if result.is_err() {
        assert_eq!(machine.leaves(child).0, [], "tables, but nothing in them");
        // SAFETY: nobody uses the child.
        unsafe { free_tables(child.mm()) };
    }
    done(result.map(drop))
}

fn map_foreign<'s, 'm, L: Layout>(process: &'s Process<'m, L>, rights: Rights) -> Done<'s, 'm, L> {
    // SAFETY: registers of the emulated machine.
    done(unsafe { process.map_foreign(FOREIGN, 4 * PAGE, Pfn::new(0xfee1), MemoryType::UNCACHED, rights) })
}

fn place<'s, 'm, L: Layout>(process: &'s Process<'m, L>, size: LeafSize) -> Done<'s, 'm, L> {
    // SAFETY: there is one thread, and it is in no operation.
    let mut tables = unsafe { Tables::under_mm_lock(process.mm()) };
    // SAFETY: a page of the user half.
    done(unsafe { tables.place(PageAddr::containing(LARGE), size) }.map(drop))
}

/// Foreign memory that is mapped on demand.
fn demand<'s, 'm, L: Layout>(process: &'s Process<'m, L>) -> Done<'s, 'm, L> {
    let vmas = OwnVmas::new(process, (UNTOUCHED, UNTOUCHED + PAGE), RW, Backing::Foreign(MemoryType::UNCACHED));
    let access = Access::Write;
    let fault = Fault { address: UNTOUCHED, access, key_denied: false, malformed_table: false };
    done(handle_fault(&vmas, fault).map(drop))
}

/// See the [module text](self).
pub(crate) fn operations<L: Layout>() -> Vec<Operation<L>> {
    use Access::{Read, Write};
    [spaces(), forks(), without_memory()]
        .into_iter()
        .flatten()
        .chain([
            faulting("write untouched memory", 4, four_pages, FOREIGN, Write),
            faulting("write with five levels", 5, five_levels, A, Write),
            faulting("read untouched memory", 3, four_pages, FOREIGN, Read),
            faulting("read without a zero frame", 4, without_zero_frame, FOREIGN, Read),
            faulting("write where zeroes were read", 1, furnished, FAR + PAGE, Write),
            faulting("write next to others", 1, furnished, FAR + 2 * PAGE, Write),
            faulting("write a shared page", 1, forked, A + 3 * PAGE, Write),
            faulting("write what was shared", 0, orphaned, A, Write),
            faulting("write a large leaf", 1, large, LARGE + 7 * PAGE, Write).with_large_memory(),
            operation("touch foreign memory", 3, empty, |_, scene| demand(scene.process())),
        ])
        .collect()
}

fn spaces<L: Layout>() -> Vec<Operation<L>> {
    vec![
        operation("new", 1, empty, |machine, scene| {
            // SAFETY: it has as many levels, outlives the new one, and maps nothing in the kernel's half.
            let kernel_half = unsafe { KernelHalf::new(scene.process().root(), pagepin::Levels::Four) };
            done(UserSpace::with_budget(machine, SpaceOptions::new(kernel_half), Arc::new(PinLimit::new(u64::MAX))))
        }),
        operation("map_foreign", 4, empty, |_, scene| map_foreign(scene.process(), RW)),
        operation("map_foreign without rights", 4, empty, |_, scene| map_foreign(scene.process(), NONE)),
        operation("map_foreign in a gap", 0, gap, |_, scene| map_foreign(scene.process(), RW)),
        operation("map_foreign over a hole in the tables", 1, gap, |_, scene| {
            let start = FOREIGN + 5 * PAGE;
            let length = LeafSize::Size2MiB.bytes();
            // SAFETY: registers of the emulated machine.
            done(unsafe { scene.process().map_foreign(start, length, Pfn::new(0xfee6), MemoryType::UNCACHED, RW) })
        }),
        operation("Tables::place a page", 3, empty, |_, scene| place(scene.process(), LeafSize::Size4KiB)),
        operation("Tables::place a large leaf", 2, empty, |_, scene| place(scene.process(), LeafSize::Size2MiB)),
    ]
}

fn forks<L: Layout>() -> Vec<Operation<L>> {
    let end = A + 6 * PAGE;
    vec![
        operation("fork", 9, furnished, |_, scene| done(scene.process().fork())),
        operation("fork of advised pages", 5, advised, |_, scene| done(scene.process().fork())),
        operation("fork once more", 9, contended, |_, scene| done(scene.process().fork())),
        operation("fork past a kernel's entry", 5, kernel_entry, |_, scene| done(scene.process().fork())),
        operation("fork of large leaves", 4, large, |_, scene| done(scene.process().fork())).with_large_memory(),
        operation("fork_vmas", 4, with_empty_child, move |machine, scene| fork_vmas(machine, scene, end)),
    ]
}

/// What takes memory away or changes rights needs none.
fn without_memory<L: Layout>() -> Vec<Operation<L>> {
    vec![
        operation("map", 0, furnished, |_, scene| done(scene.process().map(UNTOUCHED, 9 * PAGE, RW))),
        operation("map with options", 0, furnished, |_, scene| {
            done(scene.process().map(UNTOUCHED, 9 * PAGE, MapOptions::new(R).max_rights(RW).key(3)))
        }),
        operation("unmap all", 0, contended, |_, scene| done(scene.process().unmap(A, FAR + (1 << 20) - A).map(drop))),
        operation("advise", 0, furnished, |_, scene| done(scene.process().advise(A + PAGE, PAGE, Advice::WipeOnFork))),
        operation("unmap a page", 0, furnished, |_, scene| done(scene.process().unmap(A + PAGE, PAGE).map(drop))),
        operation("discard", 0, furnished, |_, scene| done(scene.process().discard(A, FAR + (1 << 20) - A).map(drop))),
        operation("protect, less", 0, furnished, |_, scene| done(scene.process().protect(A, 5 * PAGE, R))),
        operation("protect, nothing", 0, contended, |_, scene| done(scene.process().protect(A, 5 * PAGE, NONE))),
        operation("protect, more", 0, contended, |_, scene| done(scene.process().protect(A, 5 * PAGE, RW))),
        operation("protect_pages", 0, populated, |_, scene| {
            let process = scene.process();
            let vma = OwnVmas::new(process, (A, A + 6 * PAGE), RW, Backing::Anonymous).vma;
            let pages = range(process, A, 6 * PAGE);
            // SAFETY: the VMA is the process's, and there is one thread.
            done(unsafe { protect_pages(process.mm(), pages, &[vma], R) })
        }),
        operation("zap_pages", 0, populated, |_, scene| {
            let pages = range(scene.process(), A, 6 * PAGE);
            // SAFETY: checked by the process, and there is one thread.
            done(unsafe { zap_pages(scene.process().mm(), pages, EmptyTables::Free) }.map(drop))
        }),
        operation("free_tables", 0, contended, |_, scene| {
            // SAFETY: there is one thread.
            unsafe { free_tables(scene.process().mm()) };
            done::<L, _, ()>(Ok(()))
        }),
    ]
}
