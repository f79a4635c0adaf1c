//! Forks of forks x copy on write x pins: a device writes to a page of the first parent through all of it.

use std::sync::Arc;

use pagepin::model::Safeguard;

use super::bytes::{STALE, WRONG};
use super::checker::{Bound, CPUS, Tables};
use super::kernel::{Epoch, with_kernel};
use super::mm::Mm;
use super::pins::{Form, Held};
use super::runner::Model;

pub(crate) const SCENARIOS: &[Model] = &[Model {
    name: "forks of forks x writes x a device",
    bound: Bound(8_000),
    body: family,
    twins: &[
        (Safeguard::PinNeedsExclusive, &[WRONG, "INV-3"]),
        (Safeguard::ShareNeedsNoPins, &[WRONG, "INV-"]),
        (Safeguard::ClaimNeedsSoleReference, &[WRONG, "INV-2"]),
        (Safeguard::FlushAfterFork, STALE),
        (Safeguard::FlushBeforePublish, STALE),
    ],
}];

/// The page that the device has from the beginning, and one that it pins while the others fork.
const DEVICE: u64 = 1;
const LATER: u64 = 2;

fn family() {
    with_kernel::<Epoch>(60, Tables, |kernel| {
        let first = Mm::new(kernel, 1);
        first.write(DEVICE);
        first.write(LATER);
        let device = first.pin(Form::Fast, true, DEVICE, 1).expect("memory");

        let grandparent = kernel.on_cpu(1, {
            let first = Arc::clone(&first);
            move || {
                let child = first.fork().expect("memory");
                let grandchild = child.fork().expect("memory");
                for mm in [&child, &grandchild, &child, &first] {
                    mm.touch(LATER);
                    mm.read(DEVICE);
                    mm.read(LATER);
                }
                vec![child, grandchild]
            }
        });
        let program = kernel.on_cpu(2, {
            let first = Arc::clone(&first);
            move || {
                for page in [LATER, DEVICE, LATER, LATER, DEVICE, LATER] {
                    first.touch(page);
                }
            }
        });
        let driver = kernel.on_cpu(CPUS - 1, {
            let first = Arc::clone(&first);
            move || {
                device.write();
                let later = first.pin(Form::Fast, false, LATER, 1).expect("memory");
                later.read();
                device.write();
                first.read(DEVICE);
                later.read();
                device.read();
                vec![device, later]
            }
        });
        let second = first.fork().expect("memory");
        second.read(LATER);
        second.write(DEVICE);
        second.read(DEVICE);

        program.join().expect("no panic");
        let held = driver.join().expect("no panic");
        let mut mms = grandparent.join().expect("no panic");
        mms.extend([second, first]);
        let pinned: Vec<_> = held.iter().flat_map(Held::frames).collect();
        kernel.audit(&mms.iter().map(|mm| &mm.space).collect::<Vec<_>>(), &pinned);
        held.iter().for_each(Held::write);
        mms.iter().for_each(|mm| mm.check());
        drop(mms);
        // The pages stay the device's when every mm has gone.
        held.iter().for_each(Held::write);
        held.into_iter().for_each(Held::release);
    });
}
