//! Walker x an operation that takes a table with live leaves out of the tree. Nothing in the crate does; a kernel that
//! collapses tables into large leaves through [`Tables`] would, and the walker's second look at the entry above is for it.

use std::sync::Arc;

use pagepin::frame::Released;
use pagepin::model::Safeguard;
use pagepin::paging::{Slot, Tables};
use pagepin::pin::Write;
use pagepin::{AddressSpace, Env, FrameSource, LeafSize, PageAddr, Pfn, ReadSide};

use super::acts::{Space, first_frame};
use super::checker::Bound;
use super::kernel::{self, Epoch, Kernel, PAGE, with_kernel};
use super::runner::Model;

const RECYCLED: &str = "a pin is on a frame of another mm";

pub(crate) const MODELS: &[Model] = &[Model {
    name: "walker x table taken out of the tree",
    bound: Bound::AtMost(3),
    body: walk_and_collapse,
    twins: &[(Safeguard::AboveReread, &[RECYCLED])],
}];

fn walk_and_collapse() {
    with_kernel::<Epoch>(12, kernel::Tables::Go, |kernel| {
        let mine = kernel.space(1);
        let other = kernel.space(1);
        other.discard(PAGE, PAGE).expect("a page");
        let pinner = kernel.on_cpu(1, {
            let mine = Arc::clone(&mine);
            move || kernel.pin_fast_only::<Write>(&mine, 1)
        });
        let table = take_out(kernel, &mine);
        kernel.write(&other, 1, 2);
        let pins = pinner.join().expect("no panic");
        assert!(
            pins.as_ref().map(first_frame).is_none_or(|frame| kernel.mapped(&other, 1) != Some(frame)),
            "{RECYCLED}"
        );
        kernel.unpin(pins);
        kernel.read_side().synchronize();
        put(kernel, table);
    });
}

/// Breaks the entry above the lowest table and gives up the page that the table's leaf, untouched, still names. The
/// caller gets the table.
fn take_out(kernel: &Kernel<Epoch>, space: &Space<Epoch>) -> Pfn {
    let page = kernel.mapped(space, 1).expect("a page");
    // SAFETY: no other thread of the model takes the mm lock.
    let mut tables = unsafe { Tables::under_mm_lock(space.mm()) };
    let (at, entry) = kernel.memory.above(space.root(), 1).expect("a table");
    let slot = Slot { at, entry, level: LeafSize::Size2MiB.level(), page: PageAddr::containing(PAGE) };
    // SAFETY: the entry above was found under this lock, and is flushed at once. It is no leaf, but only a release would
    // take it for one.
    let _ = unsafe { tables.break_leaf(slot) }.expect("nobody changes it").flush().leave_empty();
    // As the library's unmap: the wait is for tables only, pages go at once.
    put(kernel, page);
    entry.table_frame()
}

fn put(kernel: &Kernel<Epoch>, frame: Pfn) {
    if let Released::Last { order, .. } = kernel.memory.word(frame).put().expect("the entry's reference") {
        // SAFETY: that was the last reference, and the frame came from the source.
        unsafe { kernel.memory.free(frame, order) };
    }
}
