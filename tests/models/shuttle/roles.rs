//! Four CPUs in one mm, each with a part of its own to play.

use std::sync::Arc;

use super::checker::CPUS;
use super::kernel::{Epoch, Kernel};
use super::mm::{Mm, below};
use super::pins::{FORMS, Form, Held};

/// What a CPU does in the mm, and the pins it keeps.
pub(crate) type Role = fn(&Mm<Epoch>, &mut Vec<Held<Epoch>>);

/// Operations of each CPU.
const OPERATIONS: usize = 8;

/// Each CPU plays its role, side by side. The pins that they still hold.
pub(crate) fn play(kernel: &'static Kernel<Epoch>, mm: &Arc<Mm<Epoch>>, roles: [Role; CPUS]) -> Vec<Held<Epoch>> {
    let run = |role: Role, mm: Arc<Mm<Epoch>>| {
        move || {
            let mut held = Vec::new();
            (0..OPERATIONS).for_each(|_| role(&mm, &mut held));
            held
        }
    };
    let others: Vec<_> = (1..CPUS).map(|cpu| kernel.on_cpu(cpu, run(roles[cpu], Arc::clone(mm)))).collect();
    let mut held = run(roles[0], Arc::clone(mm))();
    held.extend(others.into_iter().flat_map(|cpu| cpu.join().expect("no panic")));
    held
}

/// Everything is as it must be, with these pins and without them.
pub(crate) fn finish(kernel: &Kernel<Epoch>, mm: &Mm<Epoch>, held: Vec<Held<Epoch>>) {
    let pinned: Vec<_> = held.iter().flat_map(Held::frames).collect();
    kernel.audit(&[&mm.space], &pinned);
    mm.check();
    held.into_iter().for_each(Held::release);
    mm.check();
}

/// Pins so many pages from `place` on, with a device that works; the older of two goes.
pub(crate) fn pin(mm: &Mm<Epoch>, held: &mut Vec<Held<Epoch>>, place: impl FnOnce() -> (u64, u64)) {
    let form: Form = FORMS[below(FORMS.len() as u64) as usize];
    let writes = below(3) != 0;
    let (page, pages) = place();
    let Some(pinned) = mm.pin(form, writes, page, pages) else { return };
    pinned.read();
    pinned.write();
    pinned.read();
    held.push(pinned);
    if held.len() > 2 {
        let oldest = held.remove(0);
        oldest.write();
        oldest.release();
    }
}
