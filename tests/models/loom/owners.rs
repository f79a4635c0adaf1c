//! Faults x others who own entries: one that merges pages, and one that moves them. Nothing in the crate does; what stands in for
//! them keeps the rules for owners.

use std::sync::Arc;

use pagepin::frame::{FrameKind, Ownership, Released};
use pagepin::model::Safeguard;
use pagepin::paging::{Broken, Tables};
use pagepin::{AddressSpace, Entry, FrameRequest, FrameSource, LeafSize, PageAddr, Pfn, PhysMap, Rights};

use super::acts::Space;
use super::checker::{Bound, UNORDERED};
use super::kernel::{self, Epoch, Kernel, PAGE, with_kernel};
use super::runner::Model;

const MERGED_CHANGED: &str = "a page that was merged changed";
const LOST: &str = "a write was lost";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "reuse x merge",
        bound: Bound::AtMost(2),
        body: reuse_and_merge,
        twins: &[(Safeguard::OwnsBeforeJudging, &[MERGED_CHANGED])],
    },
    Model {
        name: "reuse x relocation",
        bound: Bound::AtMost(2),
        body: reuse_and_relocate,
        twins: &[(Safeguard::FlushBeforePublish, &[LOST, UNORDERED])],
    },
];

/// Owns the first page's entry, if it is a leaf that `fits`, for `act`, which publishes it.
fn own(
    space: &Space<Epoch>,
    fits: impl Fn(Entry) -> bool,
    mut act: impl FnMut(Broken<'_, '_, &'static Kernel<Epoch>>, Pfn),
) {
    let look = &mut |_: &dyn pagepin::Vmas| {
        // SAFETY: inside the section.
        let mut tables = unsafe { Tables::under_mm_lock(space.mm()) };
        let slot = tables.find(PageAddr::containing(PAGE)).expect("tables in order");
        if slot.entry.is_present() && fits(slot.entry) {
            // SAFETY: found under this lock, and a leaf; `act` publishes.
            if let Some(broken) = unsafe { tables.break_leaf(slot) } {
                act(broken, slot.entry.leaf_frame(LeafSize::Size4KiB));
            }
        }
    };
    space.with_vmas(look).expect("in no section");
}

/// One page that is its mm's alone and not `EXCLUSIVE`, so that a write claims it.
fn space_with_sole_page(kernel: &'static Kernel<Epoch>) -> Space<Epoch> {
    let space = kernel.space(1);
    drop(space.fork().expect("memory"));
    space
}

/// The frame becomes that of others as well, and comes back under the same value: a claim that was decided before the entry was
/// owned would be about a page that is not there any more.
fn reuse_and_merge() {
    with_kernel::<Epoch>(12, kernel::Tables::Stay, |kernel| {
        let space = space_with_sole_page(kernel);
        let writer = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.write(&space, 1, 5)
        });
        let mut merged = None;
        own(
            &space,
            |entry| !entry.is_writable(),
            |broken, frame| {
                let word = kernel.memory.word(frame);
                if word.try_share().is_ok() {
                    word.try_get().expect("in use");
                    merged = Some(frame);
                }
                broken.restore();
            },
        );
        writer.join().expect("no panic");
        if let Some(frame) = merged {
            assert_eq!(kernel.memory.load(frame, 0), 1, "{MERGED_CHANGED}");
            put(kernel, frame);
        }
        assert_eq!(kernel.read(&space, 1), 5, "{LOST}");
        kernel.audit(&[&space], &[]);
    });
}

/// The page moves to another frame while its mm claims it and writes.
fn reuse_and_relocate() {
    with_kernel::<Epoch>(12, kernel::Tables::Stay, |kernel| {
        let space = space_with_sole_page(kernel);
        let writer = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || [5, 6].map(|value| kernel.write(&space, 1, value))
        });
        let to = kernel.memory.allocate(FrameRequest::movable(0)).expect("memory");
        kernel.memory.word(to).hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive).expect("a free frame");
        let mut moved = false;
        own(
            &space,
            |_| true,
            |broken, from| {
                let word = kernel.memory.word(from);
                if word.try_freeze(1).is_err() {
                    return broken.restore();
                }
                let settled = broken.flush();
                // SAFETY: the target is ours, and the source frozen.
                unsafe { kernel.memory.copy_frames(from, to, 0) };
                word.unfreeze(1).expect("frozen above");
                let entry = Entry::leaf(to, LeafSize::Size4KiB, Rights::READ | Rights::WRITE, 0);
                // SAFETY: the entry gets the reference to the new frame, which is exclusive.
                let old = unsafe { settled.publish(entry) };
                old.release(&kernel);
                moved = true;
            },
        );
        if !moved {
            put(kernel, to);
        }
        writer.join().expect("no panic");
        assert_eq!(kernel.read(&space, 1), 6, "{LOST}");
        kernel.audit(&[&space], &[]);
    });
}

fn put(kernel: &Kernel<Epoch>, frame: Pfn) {
    if let Released::Last { order } = kernel.memory.word(frame).put().expect("a reference") {
        // SAFETY: that was the last reference, and the frame came from the source.
        unsafe { kernel.memory.free(frame, order) };
    }
}
