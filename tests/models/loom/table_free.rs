//! Walker x table free (INV-13), with each kind of read side.

use std::sync::Arc;

use pagepin::model::Safeguard;
use pagepin::pin::Read;

use super::acts::first_frame;
use super::checker::{Bound, UNORDERED};
use super::kernel::{Epoch, InterruptsOff, PAGE, Side, Tables, with_kernel};
use super::runner::Model;

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "walker x table free (epochs)",
        bound: Bound::AtMost(3),
        body: walk_and_unmap::<Epoch>,
        twins: &[
            (Safeguard::WaitForWalkers, &[UNORDERED]),
            (Safeguard::EnterOrdering, &[UNORDERED]),
            (Safeguard::EnterFence, &[UNORDERED]),
            (Safeguard::SynchronizeFence, &[UNORDERED]),
        ],
    },
    Model {
        name: "walker x table free (interrupts off)",
        bound: Bound::AtMost(3),
        body: walk_and_unmap::<InterruptsOff>,
        twins: &[(Safeguard::FlushBeforeRelease, &[UNORDERED])],
    },
    Model {
        name: "walker x new tables",
        bound: Bound::AtMost(3),
        body: walk_and_fault,
        twins: &[(Safeguard::EntryAcquire, &[UNORDERED]), (Safeguard::EntryRelease, &[UNORDERED])],
    },
];

/// A walker that finds a table finds it cleared, and what was put into it.
fn walk_and_fault() {
    with_kernel::<Epoch>(6, Tables::Go, |kernel| {
        let space = kernel.empty_space();
        let walker = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || {
                if let Some(seen) = kernel.get_fast_only_and_load(&space) {
                    assert_eq!(seen, 0, "a page that nobody has written");
                }
            }
        });
        kernel.read(&space, 1);
        walker.join().expect("no panic");
    });
}

fn walk_and_unmap<R: Side>() {
    with_kernel::<R>(5, Tables::Go, |kernel| {
        let space = kernel.space(1);
        let walker = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || {
                if let Some(pins) = kernel.pin_fast_only::<Read>(&space, 1) {
                    assert_eq!(kernel.memory.load(first_frame(&pins), 0), 1, "a pinned frame changed hands");
                    kernel.unpin(Some(pins));
                }
            }
        });
        space.unmap(PAGE, 2 * PAGE).expect("pages");
        walker.join().expect("no panic");
        assert!(kernel.mapped(&space, 1).is_none());
    });
}
