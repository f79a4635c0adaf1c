//! Unmap and exit x the pins and references of other CPUs, while every frame and table that goes is soon another mm's.

use std::sync::Arc;

use pagepin::model::Safeguard;

use super::bytes::{FOREIGN, FREED, NOISY};
use super::checker::{Bound, CPUS, Tables};
use super::kernel::{Epoch, InterruptsOff, Side, with_kernel};
use super::mm::{Mm, below};
use super::pins::{Form, Held};
use super::runner::Model;

/// How it shows that somebody held on to a frame that had become another's.
const RECYCLED: &[&str] = &[FOREIGN, FREED, "references without a holder", "below zero", "freed twice"];

pub(crate) const SCENARIOS: &[Model] = &[
    Model {
        name: "unmap, exit x pins (epochs)",
        bound: Bound(8_000),
        body: recycle::<Epoch>,
        twins: &[(Safeguard::FlushBeforeRelease, RECYCLED), (Safeguard::WaitForWalkers, RECYCLED)],
    },
    Model {
        name: "unmap, exit x pins (interrupts off)",
        bound: Bound(8_000),
        body: recycle::<InterruptsOff>,
        twins: &[(Safeguard::FlushBeforeRelease, RECYCLED)],
    },
    Model {
        name: "pins x discard x reallocation",
        bound: Bound(12_000),
        body: reallocate,
        twins: &[(Safeguard::LeafReread, RECYCLED), (Safeguard::FreeRefuses, RECYCLED)],
    },
];

/// Tables stay, and pages go from one mm to the other all the time: a walker is often left with an entry in hand whose
/// frame is free, or the other's.
fn reallocate() {
    with_kernel::<Epoch>(30, Tables, |kernel| {
        let (mm, other) = (Mm::new(kernel, 1), Mm::new(kernel, 2));
        let walkers = [1, 2].map(|cpu| {
            let mm = Arc::clone(&mm);
            kernel.on_cpu(cpu, move || {
                for page in NOISY.cycle().take(6) {
                    mm.pin(Form::FastOnly, true, page, 1).into_iter().for_each(Held::release);
                    mm.get(page);
                }
            })
        });
        let exchange = {
            let (mm, other) = (Arc::clone(&mm), Arc::clone(&other));
            move || {
                for page in NOISY.cycle().take(4) {
                    other.discard_noisy();
                    mm.write(page);
                    mm.discard_noisy();
                    if below(2) == 0 {
                        other.write(page);
                    }
                }
            }
        };
        let exchanger = kernel.on_cpu(CPUS - 1, exchange.clone());
        exchange();
        exchanger.join().expect("no panic");
        let _ = walkers.map(|walker| walker.join().expect("no panic"));
        kernel.audit(&[&mm.space, &other.space], &[]);
        drop(exchange);
    });
}

fn recycle<R: Side>() {
    with_kernel::<R>(50, Tables, |kernel| {
        let [first, last] = [*NOISY.start(), *NOISY.end()];
        let (mm, other) = (Mm::new(kernel, 1), Mm::new(kernel, 2));
        mm.write(first);
        mm.write(last);
        let short_lived = mm.fork().expect("memory");
        // Its own again, and the frame the child's alone.
        mm.write(first);

        let pinner = kernel.on_cpu(1, {
            let mm = Arc::clone(&mm);
            move || {
                let mut pins = Vec::new();
                for form in [Form::FastOnly, Form::Fast, Form::FastOnly] {
                    mm.get(first);
                    pins.push(mm.pin(form, form == Form::Fast, first, 2));
                    mm.get(last);
                    pins.iter().flatten().for_each(Held::read);
                }
                pins
            }
        });
        let remote = kernel.on_cpu(2, {
            let (mm, short_lived) = (Arc::clone(&mm), short_lived);
            move || {
                let pins = vec![mm.pin(Form::Remote, true, last, 1), short_lived.pin(Form::FastOnly, false, first, 2)];
                short_lived.write(last);
                short_lived.get(first);
                // The end of that mm, whose pins stay.
                drop(short_lived);
                pins.iter().flatten().for_each(Held::write);
                mm.read(first);
                pins
            }
        });
        let neighbour = kernel.on_cpu(CPUS - 1, {
            let (mm, other) = (Arc::clone(&mm), Arc::clone(&other));
            move || {
                other.write(first);
                mm.read(last);
                other.discard_noisy();
                mm.write(first);
                mm.discard_noisy();
                other.write(last);
                other.read(first);
            }
        });
        mm.discard_noisy();
        other.write(first);
        mm.unmap_noisy();
        mm.map_noisy();
        mm.write(last);
        mm.discard_noisy();
        other.write(last);

        neighbour.join().expect("no panic");
        let held: Vec<_> =
            [pinner, remote].into_iter().flat_map(|cpu| cpu.join().expect("no panic")).flatten().collect();
        let pinned: Vec<_> = held.iter().flat_map(Held::frames).collect();
        kernel.audit(&[&mm.space, &other.space], &pinned);
        held.into_iter().for_each(Held::release);
    });
}
