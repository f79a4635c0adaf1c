//! Pages whose contents were given up, against who writes to them again at that moment: by user code, or through a pin.

use std::sync::Arc;

use pagepin::model::Safeguard;

use super::acts::Space;
use super::checker::{Bound, UNORDERED};
use super::kernel::{Epoch, Kernel, PAGE, Tables, with_kernel};
use super::runner::Model;

const LOST: &str = "a write was lost";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "write x reclaim of a page given up",
        bound: Bound::AtMost(3),
        body: write_and_reclaim,
        twins: &[(Safeguard::TakenIsFinal, &[LOST]), (Safeguard::FlushBeforePublish, &[LOST, UNORDERED])],
    },
    Model {
        name: "pin and unpin x reclaim of a page given up",
        bound: Bound::AtMost(3),
        body: pin_and_reclaim,
        twins: &[(Safeguard::FreezeNeedsNoPins, &[LOST, UNORDERED]), (Safeguard::FreedAsksItsFrame, &[LOST])],
    },
];

/// A page that holds 1 and was given up; CPU 1 has written it.
fn given_up(kernel: &'static Kernel<Epoch>) -> Space<Epoch> {
    let space = kernel.empty_space();
    kernel
        .on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.write(&space, 1, 1)
        })
        .join()
        .expect("no panic");
    assert_eq!(space.free_lazily(PAGE, PAGE).expect("tables in order").pages, 1);
    space
}

/// User code writes by the translation that it had, or has, or by a fault.
fn write_and_reclaim() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = given_up(kernel);
        let writer = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || kernel.write(&space, 1, 6)
        });
        space.reclaim_freed(PAGE, PAGE).expect("tables in order");
        writer.join().expect("no panic");
        assert_eq!(kernel.read(&space, 1), 6, "{LOST}");
        kernel.audit(&[&space], &[]);
    });
}

/// A device writes through a pin, which has ended by the time that the page is looked at, or has not.
fn pin_and_reclaim() {
    with_kernel::<Epoch>(8, Tables::Stay, |kernel| {
        let space = given_up(kernel);
        let pinner = kernel.on_cpu(1, {
            let space = Arc::clone(&space);
            move || {
                let pins = kernel.store_by(kernel.pin_fast_only(&space, 1));
                let pinned = pins.is_some();
                kernel.unpin(pins);
                pinned
            }
        });
        let taken = space.reclaim_freed(PAGE, PAGE).expect("tables in order");
        let pinned = pinner.join().expect("no panic");
        assert!(pinned || taken.pages + taken.pinned_pages + taken.shared_pages == 1);
        let seen = kernel.read(&space, 1);
        assert!(if pinned { seen == 5 } else { seen == 0 || seen == 1 }, "{LOST}");
        kernel.audit(&[&space], &[]);
    });
}
