//! Faults x faults of one mm: they run side by side, and the entry decides who comes first.

use std::sync::Arc;

use pagepin::frame::{FrameKind, Ownership, Released};
use pagepin::model::Safeguard;
use pagepin::pin::Read;
use pagepin::{FrameRequest, FrameSource, LeafSize, Pfn};

use super::acts::{Space, first_frame};
use super::checker::Bound;
use super::kernel::{Epoch, Kernel, Tables, with_kernel};
use super::runner::Model;

const LOST: &str = "a write was lost";
const LEAK: &str = "a frame was not given back";
const LEFT_BEHIND: &str = "INV-11: the pin is on a page that the mm has left";
const FOREIGN: &str = "EXCLUSIVE was set on a frame that another has";
const REFUSED: &str = "the page can be faulted in";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "first touch x first touch",
        bound: Bound::AtMost(4),
        body: two_first_touches,
        twins: &[(Safeguard::FillsTheEmpty, &[LOST, LEAK, "references without a holder"])],
    },
    Model {
        name: "new table x new table",
        bound: Bound::AtMost(3),
        body: two_new_tables,
        twins: &[(Safeguard::FillsTheEmpty, &[LOST, LEAK, "references without a holder"])],
    },
    Model {
        name: "write x write x the last put",
        bound: Bound::AtMost(1),
        body: two_writes_and_last_put,
        twins: &[(Safeguard::OwnedIsWaitedFor, &[REFUSED])],
    },
    Model {
        name: "write x read pin x the last put",
        bound: Bound::AtMost(1),
        body: write_pin_and_last_put,
        twins: &[(Safeguard::CopyLooksAgain, &[LEFT_BEHIND])],
    },
    Model {
        name: "claim x copy x reuse of the frame",
        bound: Bound::AtMost(1),
        body: || claim_copy_and_recycle(FrameKind::Anonymous),
        twins: &[(Safeguard::OwnsBeforeJudging, &[FOREIGN])],
    },
    Model {
        name: "claim x copy x reuse by a file",
        bound: Bound::AtMost(1),
        body: || claim_copy_and_recycle(FrameKind::File),
        twins: &[(Safeguard::RefusalLooksAgain, &[REFUSED])],
    },
];

fn write_on(kernel: &'static Kernel<Epoch>, cpu: usize, space: &Space<Epoch>, page: u64, value: u64) -> impl FnOnce() {
    let thread = kernel.on_cpu(cpu, {
        let space = Arc::clone(space);
        move || kernel.write(&space, page, value)
    });
    move || thread.join().expect("no panic")
}

/// Both write to a page that nobody has touched: both to one frame.
fn two_first_touches() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = kernel.space(1);
        let join = write_on(kernel, 1, &space, 2, 5);
        kernel.write(&space, 2, 6);
        assert_ne!(kernel.read(&space, 2), 0, "{LOST}");
        join();
        let last = kernel.read(&space, 2);
        assert!(last == 5 || last == 6, "{LOST}: {last}");
        kernel.audit(&[&space], &[]);
    });
}

/// Both find no table: one of them links its own, and both pages are in it.
fn two_new_tables() {
    with_kernel::<Epoch>(12, Tables::Go, |kernel| {
        let space = kernel.empty_space();
        let join = write_on(kernel, 1, &space, 1, 5);
        kernel.write(&space, 2, 6);
        join();
        assert_eq!((kernel.read(&space, 1), kernel.read(&space, 2)), (5, 6), "{LOST}");
        kernel.audit(&[&space], &[]);
    });
}

/// Two threads write to a page to which somebody else has a reference, as a child had, and gives it up: one copies or claims the
/// page, the other finds it done, and the old frame goes once.
fn two_writes_and_last_put() {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let (space, frame) = shared_page(kernel);
        let join = write_on(kernel, 1, &space, 1, 5);
        put(kernel, frame);
        kernel.write(&space, 1, 6);
        join();
        let last = kernel.read(&space, 1);
        assert!(last == 5 || last == 6, "{LOST}: {last}");
        kernel.audit(&[&space], &[]);
    });
}

/// One thread is about to copy a shared page when the other reference goes, and another thread claims the page for a pin: then
/// there is nothing to copy any more.
fn write_pin_and_last_put() {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let (space, frame) = shared_page(kernel);
        let join = write_on(kernel, 1, &space, 1, 5);
        put(kernel, frame);
        let pins = kernel.pin_fast::<Read>(&space, 1);
        join();
        let pinned = pins.as_ref().map(first_frame).expect("the slow path pins");
        assert_eq!(kernel.mapped(&space, 1), Some(pinned), "{LEFT_BEHIND}");
        assert_eq!(kernel.memory.load(pinned, 0), 5, "INV-11: the pin does not show what was written");
        kernel.audit(&[&space], &[pinned]);
        kernel.unpin(pins);
    });
}

/// A space whose first page is not exclusive, and its frame, to which there is a reference more.
fn shared_page(kernel: &'static Kernel<Epoch>) -> (Space<Epoch>, Pfn) {
    let space = kernel.space(1);
    drop(space.fork().expect("memory"));
    let frame = kernel.mapped(&space, 1).expect("a page");
    kernel.memory.word(frame).try_get().expect("in use");
    (space, frame)
}

/// One thread finds the page its mm's alone and is about to say so; another has seen a reference more and copies it; and the
/// frame goes to somebody who does not own it alone, or not as memory of a process.
fn claim_copy_and_recycle(kind: FrameKind) {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let (space, frame) = shared_page(kernel);
        let join = write_on(kernel, 1, &space, 1, 5);
        let copier = kernel.on_cpu(2, {
            let space = Arc::clone(&space);
            move || {
                kernel.write(&space, 1, 6);
                let other =
                    kernel.memory.allocate(FrameRequest::unmovable(LeafSize::Size4KiB.order())).expect("memory");
                let word = kernel.memory.word(other);
                word.hand_out(kind, 0, Ownership::Shared).expect("a free frame");
                other
            }
        });
        put(kernel, frame);
        join();
        let other = copier.join().expect("no panic");
        assert!(!kernel.memory.snapshot(other).exclusive, "{FOREIGN}");
        put(kernel, other);
        kernel.audit(&[&space], &[]);
    });
}

fn put(kernel: &Kernel<Epoch>, frame: Pfn) {
    if let Released::Last { order, .. } = kernel.memory.word(frame).put().expect("a reference") {
        // SAFETY: that was the last reference, and the frame came from the source.
        unsafe { kernel.memory.free(frame, order) };
    }
}
