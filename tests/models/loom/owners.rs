//! Faults and pins x others who own entries: who merges pages, and who gives them other frames.

use std::sync::Arc;

use pagepin::Zone;
use pagepin::model::Safeguard;
use pagepin::pin::Write;
use pagepin::space::{MergeError, Relocated, UserSpace};

use super::acts::{Pins, Space, first_frame, frames};
use super::checker::{Bound, UNORDERED};
use super::kernel::{Epoch, Kernel, PAGE, Tables, with_kernel};
use super::runner::Model;

type Pin = fn(&Kernel<Epoch>, &UserSpace<&'static Kernel<Epoch>>, u64) -> Option<Pins<Write>>;

const MERGED_CHANGED: &str = "a page that was merged changed";
const LEFT_BEHIND: &str = "INV-11: the pin is on a page that the mm has left";
const LOST: &str = "a write was lost";
const UNNOTED: &str = "a page was written, and nothing says so";
/// Of the kernel's memory.
const FREED: &str = "a freed frame was used";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "reuse x merge",
        bound: Bound::AtMost(2),
        body: reuse_and_merge,
        twins: &[(Safeguard::OwnsBeforeJudging, &[MERGED_CHANGED])],
    },
    Model {
        name: "pin x merge into another",
        bound: Bound::AtMost(3),
        body: || pin_and_merge(1, 2, Kernel::pin_fast_only),
        twins: &[(Safeguard::FreezeNeedsNoPins, &[LEFT_BEHIND, UNORDERED])],
    },
    Model {
        name: "pin x merge of another",
        bound: Bound::AtMost(3),
        body: || pin_and_merge(2, 1, Kernel::pin_fast_only),
        twins: &[(Safeguard::ShareNeedsNoPins, &[MERGED_CHANGED, LEFT_BEHIND])],
    },
    Model {
        name: "slow pin x merge into another",
        bound: Bound::AtMost(1),
        body: || pin_and_merge(1, 2, Kernel::pin_slow),
        twins: &[(Safeguard::FreezeNeedsNoPins, &[LEFT_BEHIND, UNORDERED])],
    },
    Model {
        name: "slow pin x merge of another",
        bound: Bound::AtMost(1),
        body: || pin_and_merge(2, 1, Kernel::pin_slow),
        twins: &[(Safeguard::ShareNeedsNoPins, &[MERGED_CHANGED, LEFT_BEHIND])],
    },
    Model {
        name: "write x merge into another",
        bound: Bound::AtMost(2),
        body: || write_and_merge(1, 2),
        twins: &[(Safeguard::FlushBeforePublish, &[LOST, UNORDERED])],
    },
    Model {
        name: "write x merge of another",
        bound: Bound::AtMost(2),
        body: || write_and_merge(2, 1),
        twins: &[(Safeguard::FlushBeforePublish, &[MERGED_CHANGED])],
    },
    Model {
        name: "merge x merge the other way",
        bound: Bound::AtMost(3),
        body: merge_and_merge,
        twins: &[(Safeguard::FreezeNeedsSoleReference, &[FREED])],
    },
    Model {
        name: "reuse x relocation",
        bound: Bound::AtMost(2),
        body: reuse_and_relocate,
        twins: &[(Safeguard::FlushBeforePublish, &[LOST, UNORDERED])],
    },
    Model {
        name: "pin x relocation x reuse of the frame",
        bound: Bound::AtMost(3),
        body: pin_and_relocate,
        twins: &[(Safeguard::FreezeNeedsNoPins, &[LEFT_BEHIND, UNORDERED]), (Safeguard::LeafReread, &[LEFT_BEHIND])],
    },
    Model {
        name: "first write x relocation",
        bound: Bound::AtMost(3),
        body: write_and_relocate,
        twins: &[(Safeguard::FlushBeforePublish, &[LOST, UNORDERED]), (Safeguard::TakenIsFinal, &[UNNOTED])],
    },
    Model {
        name: "reuse x relocation of two",
        bound: Bound::AtMost(2),
        body: reuse_and_relocate_two,
        twins: &[(Safeguard::RefusalEndsRun, &[LOST, UNORDERED])],
    },
];

/// Two pages that hold 1.
fn alike(kernel: &'static Kernel<Epoch>) -> Space<Epoch> {
    let space = kernel.space(1);
    kernel.write(&space, 2, 1);
    space
}

/// The same, and each is its mm's alone and not `EXCLUSIVE`, so that a write claims it.
fn alike_and_sole(kernel: &'static Kernel<Epoch>) -> Space<Epoch> {
    let space = alike(kernel);
    drop(space.fork().expect("memory"));
    space
}

fn merge(space: &Space<Epoch>, page: u64, kept: u64) -> Result<(), MergeError> {
    space.merge(page * PAGE, space, kept * PAGE)
}

/// Nothing comes between that is no private page. Who walks, copies or merges has a count for the moment.
fn expected(merged: Result<(), MergeError>) -> bool {
    matches!(merged, Ok(()) | Err(MergeError::Pinned | MergeError::Shared | MergeError::Same | MergeError::Different))
}

fn relocate(space: &Space<Epoch>, pages: u64) -> Relocated {
    let moved = space.relocate(PAGE, pages * PAGE, Zone::Unmovable).expect("memory");
    assert_eq!(moved.pages + moved.pinned_pages + moved.shared_pages, pages);
    moved
}

/// The frame becomes another page's as well, and comes back under the same value: a claim that was decided before the entry was
/// owned would be about a page that is not there any more.
fn reuse_and_merge() {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let space = alike_and_sole(kernel);
        let writer = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.write(&space, 1, 5)
        });
        let merged = merge(&space, 2, 1);
        writer.join().expect("no panic");
        assert!(expected(merged), "{merged:?}");
        assert_eq!(kernel.read(&space, 2), 1, "{MERGED_CHANGED}");
        assert_eq!(kernel.read(&space, 1), 5, "{LOST}");
        kernel.audit(&[&space], &[]);
    });
}

/// A device writes to page 1 through a pin, while that goes, or stays for another.
fn pin_and_merge(page: u64, kept: u64, pin: Pin) {
    with_kernel::<Epoch>(8, Tables::Stay, move |kernel| {
        let space = alike(kernel);
        let pinner = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.store_by(pin(kernel, &space, 1))
        });
        let merged = merge(&space, page, kept);
        let pins = pinner.join().expect("no panic");
        let pinned = pins.as_ref().map(first_frame);
        assert!(pinned.is_none() || kernel.mapped(&space, 1) == pinned, "{LEFT_BEHIND}");
        assert_eq!(kernel.read(&space, 2), 1, "{MERGED_CHANGED}");
        assert_eq!(kernel.read(&space, 1), if pinned.is_some() { 5 } else { 1 }, "{LOST}");
        assert!(expected(merged), "{merged:?}");
        kernel.audit(&[&space], pinned.as_slice());
        kernel.unpin(pins);
    });
}

/// User code writes to page 1 twice, while that goes, or stays for another.
fn write_and_merge(page: u64, kept: u64) {
    with_kernel::<Epoch>(8, Tables::Stay, move |kernel| {
        let space = alike(kernel);
        let writer = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || [1, 6].map(|value| kernel.write(&space, 1, value))
        });
        let merged = merge(&space, page, kept);
        writer.join().expect("no panic");
        assert!(expected(merged), "{merged:?}");
        // By the tables: not by what this CPU may have kept.
        assert_eq!(kernel.holds(&space, 2, 0), 1, "{MERGED_CHANGED}");
        assert_eq!(kernel.holds(&space, 1, 0), 6, "{LOST}");
        kernel.audit(&[&space], &[]);
    });
}

/// Each of two pages goes into the other: neither waits, and neither frame is given up by both.
fn merge_and_merge() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = alike(kernel);
        let other = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || merge(&space, 1, 2)
        });
        let merged = [merge(&space, 2, 1), other.join().expect("no panic")];
        assert!(merged.iter().copied().all(expected), "{merged:?}");
        assert_ne!(merged, [Ok(()); 2]);
        kernel.audit(&[&space], &[]);
        kernel.write(&space, 1, 5);
        assert_eq!((kernel.read(&space, 1), kernel.read(&space, 2)), (5, 1), "{MERGED_CHANGED}");
        kernel.audit(&[&space], &[]);
    });
}

/// The page gets another frame while its mm claims it and writes.
fn reuse_and_relocate() {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let space = alike_and_sole(kernel);
        let writer = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || [5, 6].map(|value| kernel.write(&space, 1, value))
        });
        relocate(&space, 1);
        writer.join().expect("no panic");
        assert_eq!(kernel.read(&space, 1), 6, "{LOST}");
        kernel.audit(&[&space], &[]);
    });
}

/// A walker with an entry in hand whose frame meanwhile becomes that of another page.
fn pin_and_relocate() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = kernel.space(1);
        let pinner = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.store_by(kernel.pin_fast_only(&space, 1))
        });
        let moved = relocate(&space, 1);
        kernel.write(&space, 2, 2);
        let pins = pinner.join().expect("no panic");
        let pinned = frames(&pins);
        assert!(moved.pages + moved.pinned_pages == 1, "{moved:?}");
        assert!(pinned.iter().all(|frame| kernel.mapped(&space, 1) == Some(*frame)), "{LEFT_BEHIND}");
        assert_eq!(kernel.read(&space, 1), if pins.is_some() { 5 } else { 1 }, "{LOST}");
        assert_eq!(kernel.read(&space, 2), 2, "{LOST}");
        kernel.audit(&[&space], &pinned);
        kernel.unpin(pins);
    });
}

/// User code writes to a page for the first time, so that hardware notes it, and again by its translation.
fn write_and_relocate() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = kernel.clean_space();
        let writer = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || [5, 6].map(|value| kernel.write(&space, 1, value))
        });
        assert_eq!(relocate(&space, 1).pages, 1);
        writer.join().expect("no panic");
        assert_eq!(kernel.read(&space, 1), 6, "{LOST}");
        assert!(kernel.is_noted(&space, 1), "{UNNOTED}");
        kernel.audit(&[&space], &[]);
    });
}

/// A write claims the second of two pages that get other frames, and owns its entry for a moment.
fn reuse_and_relocate_two() {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let space = alike_and_sole(kernel);
        let writer = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.write(&space, 2, 6)
        });
        relocate(&space, 2);
        writer.join().expect("no panic");
        assert_eq!((kernel.read(&space, 1), kernel.read(&space, 2)), (1, 6), "{LOST}");
        kernel.audit(&[&space], &[]);
    });
}
