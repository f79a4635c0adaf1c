//! Faults x pins, forks and other CPUs' TLBs: everybody sees their own bytes, and the latest.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use pagepin::model::Safeguard;
use pagepin::pin::Read;

use super::acts::first_frame;
use super::checker::Bound;
use super::kernel::{Epoch, Tables, with_kernel};
use super::runner::Model;

const LEFT_BEHIND: &str = "INV-11: the pin is on a page that the mm has left";
const CHILD_CHANGED: &str = "the child's page changed";
const LOST: &str = "INV-8: a write is not seen through an old translation";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "read pin x COW fault",
        bound: Bound::AtMost(1),
        body: read_pin_and_write,
        twins: &[
            (Safeguard::PinNeedsExclusive, &[LEFT_BEHIND]),
            (Safeguard::ClaimNeedsSoleReference, &[CHILD_CHANGED]),
        ],
    },
    Model {
        name: "fork x fork x write",
        bound: Bound::AtMost(3),
        body: fork_fork_write,
        twins: &[(Safeguard::FlushAfterFork, &[CHILD_CHANGED]), (Safeguard::ClaimNeedsSoleReference, &[CHILD_CHANGED])],
    },
    Model {
        name: "write by parent x write by child",
        bound: Bound::AtMost(2),
        body: both_write,
        twins: &[(Safeguard::ClaimNeedsSoleReference, &["INV-2"])],
    },
    Model {
        name: "break, flush, publish x walker",
        bound: Bound::AtMost(1),
        body: replace_and_walk,
        twins: &[(Safeguard::FlushBeforePublish, &[LOST]), (Safeguard::PinNeedsExclusive, &[LEFT_BEHIND])],
    },
];

/// A read pin is unshared before a write of its own mm can move the page away.
fn read_pin_and_write() {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let parent = kernel.space(1);
        let child = parent.fork().expect("memory");
        let pinner = kernel.on_cpu(1, {
            let parent = Arc::clone(&parent);
            move || kernel.pin_fast::<Read>(&parent, 1)
        });
        kernel.write(&parent, 1, 2);
        let pins = pinner.join().expect("no panic");
        let pinned = pins.as_ref().map(first_frame).expect("the slow path pins");
        assert_eq!(kernel.mapped(&parent, 1), Some(pinned), "{LEFT_BEHIND}");
        assert_eq!(kernel.memory.load(pinned, 0), 2, "INV-11: the pin does not show what was written");
        assert_eq!(kernel.read(&child, 1), 1, "{CHILD_CHANGED}");
        kernel.audit(&[&parent, &child], &[pinned]);
        kernel.unpin(pins);
    });
}

/// Each child has the page of one moment, whatever a thread of the parent writes meanwhile.
fn fork_fork_write() {
    with_kernel::<Epoch>(16, Tables::Stay, |kernel| {
        let parent = kernel.space(1);
        let fork_and_look = {
            let parent = Arc::clone(&parent);
            move || {
                let child = parent.fork().expect("memory");
                let seen = kernel.read(&child, 1);
                (child, seen)
            }
        };
        let writer = kernel.on_cpu(1, {
            let parent = Arc::clone(&parent);
            move || [2, 3].map(|value| kernel.write(&parent, 1, value))
        });
        let forker = kernel.on_cpu(2, fork_and_look.clone());
        let (second, seen_by_second) = fork_and_look();
        let (first, seen_by_first) = forker.join().expect("no panic");
        writer.join().expect("no panic");
        drop(fork_and_look);
        assert_eq!(kernel.read(&parent, 1), 3, "a write of the parent was lost");
        kernel.write(&parent, 1, 4);
        assert_eq!(kernel.read(&first, 1), seen_by_first, "{CHILD_CHANGED}");
        assert_eq!(kernel.read(&second, 1), seen_by_second, "{CHILD_CHANGED}");
        kernel.audit(&[&parent, &first, &second], &[]);
    });
}

/// Two mms that share a frame fault on it at once: one copies, and the other may then claim what is left.
fn both_write() {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let parent = kernel.space(1);
        let child = Arc::new(parent.fork().expect("memory"));
        let writer = kernel.on_cpu(1, {
            let child = Arc::clone(&child);
            move || kernel.write(&child, 1, 2)
        });
        kernel.write(&parent, 1, 3);
        writer.join().expect("no panic");
        kernel.audit(&[&parent, &child], &[]);
        assert_eq!((kernel.read(&parent, 1), kernel.read(&child, 1)), (3, 2), "a write reached the other space");
    });
}

/// While one CPU replaces a shared page by its copy, another uses the old translation and a third pins.
fn replace_and_walk() {
    with_kernel::<Epoch>(11, Tables::Stay, |kernel| {
        let space = kernel.space(1);
        let child = space.fork().expect("memory");
        let written = Arc::new(AtomicBool::new(false));
        let writer = kernel.on_cpu(1, {
            let (space, written) = (Arc::clone(&space), Arc::clone(&written));
            move || {
                kernel.write(&space, 1, 2);
                written.store(true, Ordering::Release);
            }
        });
        let reader = kernel.on_cpu(2, {
            let space = Arc::clone(&space);
            move || {
                kernel.read(&space, 1);
                let old = !written.load(Ordering::Acquire);
                let seen = kernel.read(&space, 1);
                assert!(old || seen == 2, "{LOST}");
            }
        });
        let pins = kernel.pin_fast_only::<Read>(&space, 1);
        let _ = [writer, reader].map(|thread| thread.join().expect("no panic"));
        let pinned = pins.as_ref().map(first_frame);
        assert!(pinned.is_none() || kernel.mapped(&space, 1) == pinned, "{LEFT_BEHIND}");
        kernel.audit(&[&space, &child], pinned.as_slice());
        kernel.unpin(pins);
    });
}
