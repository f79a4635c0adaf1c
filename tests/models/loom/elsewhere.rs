//! Pages that go to slots and come back, and pages of a file: what goes, comes, is cut off or is written back, against who faults or pins.

use std::sync::Arc;

use pagepin::fault::FaultError;
use pagepin::model::Safeguard;
use pagepin::pin::Write;
use pagepin::space::{Copies, Sharing, SpaceOptions, UserSpace};
use pagepin::{Access, Levels, Rights};

use super::acts::{Pins, Space, first_frame, frames};
use super::checker::Bound;
use super::kernel::{Epoch, FILE, Kernel, PAGE, Tables, with_kernel};
use super::runner::Model;

const LEFT_BEHIND: &str = "INV-11: the pin is on a page that the mm has left";
const LOST: &str = "a write was lost";
const CUT_OFF: &str = "a page is mapped that was cut off";
const NO_PLACE: &str = "a page can be written for which there is no place on disk";
const CHANGED: &str = "a page was written to while it was written back";
const PINNED: &str = "a page was pinned while it was written back";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "pin x swap-out",
        bound: Bound::AtMost(3),
        body: || pin_and_swap_out(1, Kernel::pin_fast),
        twins: &[(Safeguard::ShareNeedsNoPins, &[LOST, LEFT_BEHIND])],
    },
    Model {
        name: "pin of two x swap-out of two",
        bound: Bound::AtMost(3),
        body: || pin_and_swap_out(2, Kernel::pin_fast_only),
        twins: &[(Safeguard::ShareNeedsNoPins, &[LOST, LEFT_BEHIND])],
    },
    Model {
        name: "write x swap-out",
        bound: Bound::AtMost(2),
        body: write_and_swap_out,
        twins: &[(Safeguard::RefusalEndsRun, &[LOST])],
    },
    Model {
        name: "swap-in x swap-in x reuse of the slot",
        bound: Bound::AtMost(1),
        body: swap_in_and_out_again,
        twins: &[(Safeguard::BringsWhatItOwns, &[LOST])],
    },
    Model {
        name: "truncation x fault (shared)",
        bound: Bound::AtMost(3),
        body: || truncate_and_fault(Sharing::Shared),
        twins: &[(Safeguard::StillTheObjects, &[CUT_OFF])],
    },
    Model {
        name: "truncation x fault (private)",
        bound: Bound::AtMost(3),
        body: || truncate_and_fault(Sharing::Private),
        twins: &[(Safeguard::StillTheObjects, &[CUT_OFF])],
    },
    Model {
        name: "truncation x move (shared)",
        bound: Bound::AtMost(4),
        body: || truncate_and_move(Sharing::Shared),
        twins: &[(Safeguard::StillTheObjects, &[CUT_OFF])],
    },
    Model {
        name: "truncation x move (private)",
        bound: Bound::AtMost(4),
        body: || truncate_and_move(Sharing::Private),
        twins: &[(Safeguard::StillTheObjects, &[CUT_OFF])],
    },
    Model {
        name: "write-back x first write",
        bound: Bound::AtMost(3),
        body: write_back_and_first_write,
        twins: &[(Safeguard::AsksWhatItOwns, &[NO_PLACE, CHANGED])],
    },
    Model {
        name: "write-back x move x write",
        bound: Bound::AtMost(3),
        body: write_back_and_move,
        twins: &[(Safeguard::AsksWhereItMoves, &[NO_PLACE, CHANGED])],
    },
    Model {
        name: "write-back x write pin",
        bound: Bound::AtMost(3),
        body: write_back_and_pin,
        twins: &[(Safeguard::ShareNeedsNoPins, &[PINNED, CHANGED])],
    },
];

type Pin = fn(&Kernel<Epoch>, &UserSpace<&'static Kernel<Epoch>>, u64) -> Option<Pins<Write>>;

/// A device writes through a pin, and then the mm to each page: the pages did not go, or came back before they were pinned.
fn pin_and_swap_out(pages: u64, pin: Pin) {
    with_kernel::<Epoch>(10, Tables::Stay, |kernel| {
        let space = kernel.space(1);
        if pages == 2 {
            kernel.write(&space, 2, 2);
        }
        let pinner = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.store_by(pin(kernel, &space, pages))
        });
        space.swap_out(PAGE, pages * PAGE).expect("a slot for each page");
        kernel.write_out();
        let pins = pinner.join().expect("no panic");
        let pinned = frames(&pins);
        kernel.audit(&[&space], &pinned);
        assert_eq!(kernel.read(&space, 1), if pins.is_some() { 5 } else { 1 }, "{LOST}");
        for (page, frame) in (1..).zip(&pinned) {
            kernel.write(&space, page, 10 + page);
            assert_eq!(kernel.memory.load(*frame, 0), 10 + page, "{LEFT_BEHIND}");
        }
        kernel.unpin(pins);
    });
}

/// A thread copies a page that a child has, too, in order to write to it, and owns its entry for a while.
fn write_and_swap_out() {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let space = kernel.space(1);
        let child = space.fork().expect("memory");
        let writer = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.write(&space, 1, 6)
        });
        space.swap_out(PAGE, PAGE).expect("a slot");
        writer.join().expect("no panic");
        assert_eq!((kernel.holds(&space, 1, 0), kernel.holds(&child, 1, 0)), (6, 1), "{LOST}");
        kernel.audit(&[&space, &child], &[]);
    });
}

/// While a thread brings a page, another has brought it, written it, and sent it away again, to the same slot.
fn swap_in_and_out_again() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = kernel.space(5);
        assert_eq!(space.swap_out(PAGE, PAGE).expect("a slot").pages, 1);
        let other = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || {
                kernel.write(&space, 1, 6);
                space.swap_out(PAGE, PAGE).expect("a slot");
            }
        });
        let seen = kernel.read(&space, 1);
        assert!(seen == 5 || seen == 6, "{LOST}: {seen}");
        other.join().expect("no panic");
        assert_eq!(kernel.read(&space, 1), 6, "{LOST}");
        kernel.audit(&[&space], &[]);
    });
}

/// A space that shows the file, which holds 5, at page 1. Page 2 is memory, so that there are tables.
fn showing(kernel: &'static Kernel<Epoch>, sharing: Sharing) -> Space<Epoch> {
    let space = UserSpace::new(kernel, SpaceOptions::without_kernel_half(Levels::Four)).expect("memory for a root");
    let rights = Rights::READ | Rights::WRITE;
    space.map(2 * PAGE, PAGE, rights).expect("an empty space");
    kernel.write(&space, 2, 2);
    kernel.write_file(5);
    space.map_object(PAGE, PAGE, FILE, 0, sharing, rights).expect("an empty page");
    Arc::new(space)
}

/// The file is cut off, and forgotten here, while a thread reads its page, or copies it to write: the page is there to the end of neither.
fn truncate_and_fault(sharing: Sharing) {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = showing(kernel, sharing);
        let other = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || {
                let access = if sharing == Sharing::Shared { Access::Read } else { Access::Write };
                match kernel.access(&space, 1, access, |frame| kernel.memory.load(frame, 0)) {
                    Ok(seen) => assert_eq!(seen, 5),
                    Err(error) => assert_eq!(error, FaultError::PastEnd),
                }
            }
        });
        kernel.cut_file();
        space.forget_object(FILE, 0..u32::MAX, Copies::Forget).expect("tables in order");
        other.join().expect("no panic");
        assert_eq!(kernel.mapped(&space, 1), None, "{CUT_OFF}");
        kernel.audit(&[&space], &[]);
    });
}

/// The file, which holds 5, is shown twice, in two tables. A pass over both can have been at page 1, where nothing is, when it comes to the second.
fn showing_twice(kernel: &'static Kernel<Epoch>, sharing: Sharing) -> Space<Epoch> {
    let space = UserSpace::new(kernel, SpaceOptions::without_kernel_half(Levels::Four)).expect("memory for a root");
    let rights = Rights::READ | Rights::WRITE;
    // So that the second table stays.
    space.map(514 * PAGE, PAGE, rights).expect("an empty page");
    kernel.write(&space, 514, 2);
    kernel.write_file(5);
    for page in [2, 513] {
        space.map_object(page * PAGE, PAGE, FILE, 0, sharing, rights).expect("an empty page");
        assert_eq!(kernel.read(&space, page), 5);
    }
    Arc::new(space)
}

/// The page moves past the pass that forgets it.
fn truncate_and_move(sharing: Sharing) {
    with_kernel::<Epoch>(10, Tables::Stay, move |kernel| {
        let space = showing_twice(kernel, sharing);
        let mover = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || space.move_pages(513 * PAGE, PAGE, PAGE).expect("a free page")
        });
        kernel.cut_file();
        space.forget_object(FILE, 0..u32::MAX, Copies::Forget).expect("tables in order");
        mover.join().expect("no panic");
        assert!([1, 2, 513].iter().all(|page| kernel.mapped(&space, *page).is_none()), "{CUT_OFF}");
        kernel.audit(&[&space], &[]);
    });
}

/// The page, which may be written, moves past the pass that write-protects it, and is written.
fn write_back_and_move() {
    with_kernel::<Epoch>(10, Tables::Stay, |kernel| {
        let space = showing_twice(kernel, Sharing::Shared);
        kernel.write(&space, 513, 6);
        let mover = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || {
                space.move_pages(513 * PAGE, PAGE, PAGE).expect("a free page");
                kernel.access(&space, 1, Access::Write, |frame| kernel.memory.store(frame, 0, 7)).is_ok()
            }
        });
        assert!(write_back(kernel, &space), "nobody pins");
        let written = mover.join().expect("no panic");
        check_file(kernel, &space);
        assert_eq!(kernel.read(&space, 1), if written { 7 } else { 6 }, "{LOST}");
        kernel.audit(&[&space], &[]);
        kernel.cut_file();
    });
}

fn write_back(kernel: &Kernel<Epoch>, space: &Space<Epoch>) -> bool {
    let protect = || space.write_protect_object(FILE, 0..1).expect("tables in order");
    kernel.write_back(protect).is_ok()
}

/// What is in memory and not on disk is noted, in the entry or the frame, and has a place to go to.
fn check_file(kernel: &'static Kernel<Epoch>, space: &Space<Epoch>) {
    let (disk, has_place) = kernel.on_disk();
    let entry = kernel.memory.walk(space.root(), 1).expect("a table");
    if entry.is_present() {
        assert!(!entry.is_writable() || has_place, "{NO_PLACE}");
        let frame = kernel.mapped(space, 1).expect("a page");
        let noted = entry.is_dirty() || kernel.memory.snapshot(frame).dirty;
        assert!(kernel.memory.load(frame, 0) == disk || noted, "{LOST}");
    }
}

/// While the page is written back, a thread writes to it for the first time.
fn write_back_and_first_write() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = showing(kernel, Sharing::Shared);
        kernel.read(&space, 1);
        let other = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || match kernel.access(&space, 1, Access::Write, |frame| kernel.memory.store(frame, 0, 6)) {
                Ok(()) => true,
                Err(error) => {
                    assert!(matches!(error, FaultError::NotReady(_)), "{error:?}");
                    false
                }
            }
        });
        assert!(write_back(kernel, &space), "nobody pins");
        let written = other.join().expect("no panic");
        check_file(kernel, &space);
        assert_eq!(kernel.read(&space, 1), if written { 6 } else { 5 }, "{LOST}");
        kernel.audit(&[&space], &[]);
        kernel.cut_file();
    });
}

/// While the page is written back, a device gets it to write to: one of the two has to wait.
fn write_back_and_pin() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = showing(kernel, Sharing::Shared);
        kernel.write(&space, 1, 6);
        let other = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || {
                let pins = kernel.pin_fast_only::<Write>(&space, 1);
                if let Some(pins) = &pins {
                    kernel.memory.store(first_frame(pins), 0, 7);
                }
                pins
            }
        });
        let written_back = write_back(kernel, &space);
        let pins = other.join().expect("no panic");
        assert!(written_back || pins.is_some(), "nobody got it");
        assert_eq!(kernel.read(&space, 1), if pins.is_some() { 7 } else { 6 }, "{LOST}");
        kernel.audit(&[&space], &frames(&pins));
        kernel.unpin(pins);
        check_file(kernel, &space);
        kernel.cut_file();
    });
}
