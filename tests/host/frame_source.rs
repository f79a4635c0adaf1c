//! What is asked of the frame source, and how frames come back to it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pagepin::fault::handle_fault;
use pagepin::frame::Layout;
use pagepin::paging::Tables;
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{
    Access, AddressSpace, Env, FrameRequest, FrameSource, LeafSize, PageAddr, Pfn, Platform, Zone, fault::Fault,
};

use crate::machine::{A, Machine, PAGE, RW};

/// The machine's source, with a record of the calls.
struct Recorded<'m, L: Layout> {
    machine: &'m Machine<L>,
    asked: RefCell<Vec<FrameRequest>>,
    runs: RefCell<Vec<(Pfn, u64)>>,
}

// SAFETY: one thread.
unsafe impl<L: Layout> Sync for Recorded<'_, L> {}

// SAFETY: forwards to the machine.
unsafe impl<L: Layout> FrameSource for Recorded<'_, L> {
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        self.asked.borrow_mut().push(request);
        self.machine.allocate(request)
    }

    unsafe fn free(&self, frame: Pfn, order: u8) {
        // SAFETY: forwarded from the caller.
        unsafe { self.machine.free(frame, order) };
    }

    unsafe fn free_run(&self, first: Pfn, count: u64) {
        self.runs.borrow_mut().push((first, count));
        // SAFETY: forwarded from the caller.
        unsafe { self.machine.free_run(first, count) };
    }
}

fn tables_are_unmovable_and_neighbours_are_freed_together<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let source = Recorded { machine: &machine, asked: RefCell::default(), runs: RefCell::default() };
    // SAFETY: one machine is every part.
    let kernel = unsafe { Platform::new(&machine, &machine, source, &machine, &machine) };
    let process = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(pagepin::Levels::Four)).unwrap();
    process.map(A, 5 * PAGE, RW).unwrap();
    for page in 0..5 {
        let address = A + page * PAGE;
        handle_fault(&process, Fault { address, access: Access::Write, key_denied: false, malformed_table: false })
            .unwrap();
    }
    let (pages, tables): (Vec<_>, Vec<_>) =
        kernel.source().asked.take().into_iter().partition(|request| request.zone == Zone::Movable);
    assert_eq!((pages.len(), tables.len()), (5, 4), "pages, and a table at each level");
    // One page stays with somebody else.
    let frames: Vec<_> = (0..5).map(|page| frame_at(&process, A + page * PAGE)).collect();
    assert_ne!(frames[1], frames[0].offset(1), "the tables lie in between");
    assert_eq!(frames[4], frames[1].offset(3));
    let kept = frames[3];
    machine.word(kept).try_get().unwrap();
    process.unmap(A, 5 * PAGE).unwrap();
    assert_eq!(kernel.source().runs.take(), [(frames[1], 2)], "neither the first nor the last has a neighbour");
    assert!(!machine.word(kept).snapshot().is_free());
    assert!(machine.word(kept).put().is_ok());
    // SAFETY: that was the last reference.
    unsafe { kernel.source().free(kept, 0) };
}

fn frame_at<K: Env>(process: &UserSpace<K>, address: u64) -> Pfn {
    // SAFETY: there is one thread, and it is in no operation.
    let tables = unsafe { Tables::under_mm_lock(process.mm()) };
    tables.find(PageAddr::containing(address)).unwrap().entry.leaf_frame(LeafSize::Size4KiB)
}

/// R-21 of the contract: the emulated machine takes a block back piece by piece, and looks at each piece.
fn a_block_comes_back_in_aligned_pieces<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let block = machine.allocate(FrameRequest::movable(4)).unwrap();
    for (offset, order) in [(8, 3), (2, 1), (1, 0), (4, 2), (0, 0)] {
        // SAFETY: each is a part of the block, and nobody uses it.
        unsafe { machine.free(block.offset(offset), order) };
    }
    assert_eq!(machine.allocate(FrameRequest::movable(4)), Some(block), "all of it is free again");
    let refused = |offset, order| {
        let free = || {
            // SAFETY: wrong on purpose.
            unsafe { machine.free(block.offset(offset), order) };
        };
        catch_unwind(AssertUnwindSafe(free)).expect_err("the machine did not notice");
    };
    // SAFETY: as above.
    unsafe { machine.free(block.offset(4), 2) };
    refused(1, 1);
    refused(4, 2);
    refused(5, 0);
    refused(0, 3);
    refused(0, 4);
    // SAFETY: as above.
    unsafe {
        machine.free(block, 2);
        machine.free(block.offset(8), 3);
    }
}

every_layout!(tables_are_unmovable_and_neighbours_are_freed_together, a_block_comes_back_in_aligned_pieces);
