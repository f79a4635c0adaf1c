//! Pages that go to other addresses x walkers, and CPUs that have the old ones in their TLBs.

use std::sync::Arc;

use pagepin::model::Safeguard;

use super::acts::{Space, frames};
use super::checker::{Bound, UNORDERED};
use super::kernel::{Epoch, PAGE, Tables, with_kernel};
use super::runner::Model;

const RECYCLED: &str = "a pin is on a frame of another mm";
const LEFT_BEHIND: &str = "INV-11: the pin is on a page that the mm has left";
const LOST: &str = "a write was lost";
const OLD_ADDRESS: &str = "a page was written by an address that it has left";
const UNNOTED: &str = "a page was written, and nothing says so";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "pin x move",
        bound: Bound::AtMost(2),
        body: pin_and_move,
        twins: &[(Safeguard::WaitForWalkers, &[UNORDERED])],
    },
    Model {
        name: "pin x move x reallocation",
        bound: Bound::AtMost(3),
        body: pin_move_and_recycle,
        twins: &[(Safeguard::LeafReread, &[RECYCLED]), (Safeguard::WordOrdering, &[RECYCLED, UNORDERED])],
    },
    Model {
        name: "first write x move",
        bound: Bound::AtMost(3),
        body: write_and_move,
        twins: &[(Safeguard::FlushAfterMove, &[OLD_ADDRESS]), (Safeguard::TakenIsFinal, &[UNNOTED])],
    },
];

/// Page 1 is mapped alone.
fn alone(space: Space<Epoch>) -> Space<Epoch> {
    space.unmap(2 * PAGE, PAGE).expect("nothing is there");
    space
}

/// A device writes through a pin that was taken at the old address: to the page, wherever it is. The table that it leaves is freed.
fn pin_and_move() {
    with_kernel::<Epoch>(8, Tables::Go, |kernel| {
        let to = 513;
        let space = alone(kernel.space(1));
        let pinner = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.store_by(kernel.pin_fast_only(&space, 1))
        });
        space.move_pages(PAGE, PAGE, to * PAGE).expect("a free page");
        let pins = pinner.join().expect("no panic");
        let pinned = frames(&pins);
        assert!(pinned.iter().all(|frame| kernel.mapped(&space, to) == Some(*frame)), "{LEFT_BEHIND}");
        assert_eq!(kernel.read(&space, to), if pins.is_some() { 5 } else { 1 }, "{LOST}");
        kernel.audit(&[&space], &pinned);
        kernel.unpin(pins);
    });
}

/// A walker with an entry in hand whose page has moved, and then gone.
fn pin_move_and_recycle() {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let space = alone(kernel.space(1));
        // With tables, but no page.
        let other = kernel.space(1);
        other.discard(PAGE, PAGE).expect("a page");
        let pinner = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.store_by(kernel.pin_fast_only(&space, 1))
        });
        space.move_pages(PAGE, PAGE, 2 * PAGE).expect("a free page");
        space.discard(2 * PAGE, PAGE).expect("the page");
        kernel.write(&other, 1, 2);
        let pins = pinner.join().expect("no panic");
        let pinned = frames(&pins);
        assert!(pinned.iter().all(|frame| kernel.mapped(&other, 1) != Some(*frame)), "{RECYCLED}");
        kernel.audit(&[&space, &other], &pinned);
        kernel.unpin(pins);
    });
}

/// User code writes to a page for the first time, so that hardware notes it, and again by its translation, as long as the page is there.
fn write_and_move() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = alone(kernel.clean_space());
        let writer = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || [5, 6].map(|value| kernel.try_write(&space, 1, value).map(|()| value))
        });
        space.move_pages(PAGE, PAGE, 2 * PAGE).expect("a free page");
        let there = kernel.mapped(&space, 2).expect("the page");
        let at_once = kernel.memory.load(there, 0);
        let written = writer.join().expect("no panic");
        assert!(written[0].is_some() || written[1].is_none(), "{OLD_ADDRESS}");
        let last = kernel.memory.load(there, 0);
        assert_eq!(last, written.into_iter().flatten().last().unwrap_or(0), "{LOST}");
        assert_eq!(at_once, last, "{OLD_ADDRESS}");
        assert!(last == 0 || kernel.is_noted(&space, 2), "{UNNOTED}");
        kernel.audit(&[&space], &[]);
    });
}
