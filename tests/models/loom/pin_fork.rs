//! Pin x fork: who comes first decides who copies.

use std::sync::Arc;

use pagepin::model::Safeguard;
use pagepin::pin::Write;

use super::acts::first_frame;
use super::checker::Bound;
use super::kernel::{Epoch, Tables, with_kernel};
use super::runner::Model;

const SHARED: &str = "INV-3: a pinned frame is shared with the child";

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "pin (fast only) x fork",
        bound: Bound::All,
        body: || pin_and_fork(false),
        twins: &[(Safeguard::PinNeedsExclusive, &[SHARED]), (Safeguard::ShareNeedsNoPins, &[SHARED])],
    },
    Model {
        name: "pin (fast, then slow) x fork",
        bound: Bound::All,
        body: || pin_and_fork(true),
        twins: &[(Safeguard::PinNeedsExclusive, &[SHARED]), (Safeguard::ShareNeedsNoPins, &[SHARED])],
    },
];

fn pin_and_fork(with_slow_path: bool) {
    with_kernel::<Epoch>(12, Tables::Stay, |kernel| {
        let parent = kernel.space(1);
        let pinner = kernel.on_cpu(1, {
            let parent = Arc::clone(&parent);
            move || {
                let pins = if with_slow_path {
                    kernel.pin_fast::<Write>(&parent, 1)
                } else {
                    kernel.pin_fast_only::<Write>(&parent, 1)
                }?;
                // The device.
                kernel.memory.store(first_frame(&pins), 0, 7);
                Some(pins)
            }
        });
        let child = parent.fork().expect("memory");
        let pins = pinner.join().expect("no panic");
        assert!(pins.is_some() || !with_slow_path, "the slow path waits, and then pins");
        let pinned = pins.as_ref().map(first_frame);
        if let Some(pinned) = pinned {
            assert_ne!(kernel.mapped(&child, 1), Some(pinned), "{SHARED}");
            assert_eq!(kernel.mapped(&parent, 1), Some(pinned), "INV-3: the parent lost its pinned frame");
            assert!(kernel.memory.snapshot(pinned).exclusive, "INV-3: a pinned frame is not exclusive");
            assert_eq!(kernel.read(&parent, 1), 7, "INV-11: the parent does not see what the device wrote");
        }
        kernel.audit(&[&parent, &child], pinned.as_slice());
        let seen = kernel.read(&child, 1);
        assert!(seen == 1 || (seen == 7 && pinned.is_some()), "the child sees a page that never was");
        kernel.unpin(pins);
    });
}
