//! Pins of several pages that all need a copy: entries owned side by side, one flush, frames born pinned.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use pagepin::Pfn;
use pagepin::model::Safeguard;
use pagepin::pin::{PinAccess, Read, Write};

use super::acts::{Pins, Space};
use super::checker::Bound;
use super::kernel::{Epoch, Kernel, Tables, with_kernel};
use super::runner::Model;

const LEFT_BEHIND: &str = "INV-11: the pin is on a page that the mm has left";
const LOST: &str = "a write was lost";
const STALE: &str = "INV-8: a write is not seen through an old translation";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "pin of two x pin of two",
        bound: Bound::AtMost(1),
        body: two_pin_both,
        twins: &[(Safeguard::RefusalEndsRun, &[LEFT_BEHIND])],
    },
    Model {
        name: "pin of two x write to the second",
        bound: Bound::AtMost(1),
        body: pin_both_and_write_second,
        twins: &[(Safeguard::RefusalEndsRun, &[LEFT_BEHIND, LOST])],
    },
    Model {
        name: "pin of two x user access",
        bound: Bound::AtMost(1),
        body: pin_both_and_look,
        twins: &[(Safeguard::FlushBeforePublish, &[STALE])],
    },
];

/// A space whose pages 1 and 2 hold 1 and 2, and a child that has them, too.
fn shared_pages(kernel: &'static Kernel<Epoch>) -> (Space<Epoch>, Space<Epoch>) {
    let space = kernel.space(1);
    kernel.write(&space, 2, 2);
    let child = Arc::new(space.fork().expect("memory"));
    (space, child)
}

/// The frames of two pages that are both pinned.
fn frames<A: PinAccess>(pins: Option<&Pins<A>>) -> [Pfn; 2] {
    let runs = pins.expect("the slow path pins").runs();
    let frames: Vec<_> = runs.iter().flat_map(|run| (0..run.pages()).map(|index| run.first().offset(index))).collect();
    frames.try_into().expect("both pages")
}

fn check(kernel: &'static Kernel<Epoch>, space: &Space<Epoch>, pinned: [Pfn; 2]) {
    let mapped = [1, 2].map(|page| kernel.mapped(space, page).expect("a page"));
    assert_eq!(mapped, pinned, "{LEFT_BEHIND}");
}

/// Two threads pin the same two pages: for each page one of them copies, and both have that copy.
fn two_pin_both() {
    with_kernel::<Epoch>(16, Tables::Stay, |kernel| {
        let (space, child) = shared_pages(kernel);
        let other = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.pin_slow::<Read>(&space, 2)
        });
        let pins = kernel.pin_slow::<Read>(&space, 2);
        let others = other.join().expect("no panic");
        let (pinned, pinned_by_other) = (frames(pins.as_ref()), frames(others.as_ref()));
        check(kernel, &space, pinned);
        check(kernel, &space, pinned_by_other);
        assert_eq!(pinned.map(|frame| kernel.memory.load(frame, 0)), [1, 2], "{LOST}");
        kernel.audit(&[&space, &child], &[pinned, pinned_by_other].concat());
        kernel.unpin(pins);
        kernel.unpin(others);
    });
}

/// While a thread pins both pages, another writes to the second: what it wrote is in the page that is pinned.
fn pin_both_and_write_second() {
    with_kernel::<Epoch>(16, Tables::Stay, |kernel| {
        let (space, child) = shared_pages(kernel);
        let writer = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.write(&space, 2, 5)
        });
        let pins = kernel.pin_slow::<Read>(&space, 2);
        writer.join().expect("no panic");
        let pinned = frames(pins.as_ref());
        check(kernel, &space, pinned);
        assert_eq!(pinned.map(|frame| kernel.memory.load(frame, 0)), [1, 5], "{LOST}");
        assert_eq!(kernel.read(&child, 2), 2, "the child's page changed");
        kernel.audit(&[&space, &child], &pinned);
        kernel.unpin(pins);
    });
}

/// What a device writes to pinned pages is seen by another CPU that had the old translations.
fn pin_both_and_look() {
    with_kernel::<Epoch>(16, Tables::Stay, |kernel| {
        let (space, child) = shared_pages(kernel);
        let written = Arc::new(AtomicBool::new(false));
        let reader = kernel.on_cpu(1, {
            let (space, written) = (Arc::clone(&space), Arc::clone(&written));
            move || {
                kernel.read(&space, 2);
                let old = !written.load(Ordering::Acquire);
                let seen = kernel.read(&space, 2);
                assert!(old || seen == 9, "{STALE}");
            }
        });
        let pins = kernel.pin_slow::<Write>(&space, 2);
        let pinned = frames(pins.as_ref());
        kernel.memory.store(pinned[1], 0, 9);
        written.store(true, Ordering::Release);
        reader.join().expect("no panic");
        check(kernel, &space, pinned);
        kernel.audit(&[&space, &child], &pinned);
        kernel.unpin(pins);
    });
}
