//! Walker x table free (INV-13), with each kind of read side.

use std::sync::Arc;

use pagepin::model::Safeguard;
use pagepin::pin::{Read, Write};

use super::acts::first_frame;
use super::checker::{Bound, UNORDERED};
use super::kernel::{Epoch, InterruptsOff, PAGE, Side, Tables, with_kernel};
use super::runner::Model;

const RECYCLED: &str = "a pin is on a frame of another mm";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "walker x table free (epochs)",
        bound: Bound::AtMost(3),
        body: walk_and_unmap::<Epoch>,
        twins: &[
            (Safeguard::WaitForWalkers, &[UNORDERED]),
            (Safeguard::EnterFence, &[UNORDERED]),
            (Safeguard::SynchronizeFence, &[UNORDERED]),
        ],
    },
    Model {
        name: "walk after walk x table free",
        bound: Bound::AtMost(2),
        body: walk_twice_and_unmap,
        twins: &[(Safeguard::EnterOrdering, &[UNORDERED])],
    },
    Model {
        name: "walker x table free (interrupts off)",
        bound: Bound::AtMost(3),
        body: walk_and_unmap::<InterruptsOff>,
        twins: &[(Safeguard::FlushBeforeRelease, &[UNORDERED])],
    },
    Model {
        name: "walker x detached tables x reallocation",
        bound: Bound::AtMost(3),
        body: walk_detach_and_recycle,
        twins: &[(Safeguard::WaitForWalkers, &[UNORDERED, RECYCLED])],
    },
    Model {
        name: "unmap of tables x user access",
        bound: Bound::AtMost(3),
        body: access_and_detach,
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

/// Who waits may see a second walk begin, and not that the first has ended. There is nothing in the table but empty entries, so
/// that no frame's word orders the two threads.
fn walk_twice_and_unmap() {
    with_kernel::<Epoch>(5, Tables::Go, |kernel| {
        let space = kernel.space(1);
        space.discard(PAGE, PAGE).expect("a page");
        let walker = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || (0..2).for_each(|_| assert_eq!(kernel.get_fast_only_and_load(&space), None))
        });
        space.unmap(PAGE, 2 * PAGE).expect("pages");
        walker.join().expect("no panic");
    });
}

/// All tables below the root go at once, by one entry three levels above the leaf: a walker looks again at the leaf and at the
/// entry above its table, and never at that one. The frames, tables too, go to another mm.
fn walk_detach_and_recycle() {
    with_kernel::<Epoch>(12, Tables::Go, |kernel| {
        let mine = kernel.space(1);
        let other = kernel.empty_space();
        let pinner = kernel.on_cpu(1, {
            let mine = Arc::clone(&mine);
            move || kernel.pin_fast_only::<Write>(&mine, 1)
        });
        mine.unmap(PAGE, 2 * PAGE).expect("pages");
        kernel.write(&other, 1, 2);
        let pins = pinner.join().expect("no panic");
        let pinned = pins.as_ref().map(first_frame);
        assert!(pinned.is_none() || kernel.mapped(&other, 1) != pinned, "{RECYCLED}");
        kernel.audit(&[&mine, &other], pinned.as_slice());
        kernel.unpin(pins);
    });
}

/// INV-12: no CPU reads a frame that was freed, by a translation or a table it still has.
fn access_and_detach() {
    with_kernel::<Epoch>(6, Tables::Go, |kernel| {
        let space = kernel.space(1);
        let user = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || {
                let seen = [(); 2].map(|()| kernel.try_read(&space, 1));
                assert!(matches!(seen, [Some(1) | None, None] | [Some(1), Some(1)]), "an old page came back");
            }
        });
        space.unmap(PAGE, 2 * PAGE).expect("pages");
        user.join().expect("no panic");
    });
}
