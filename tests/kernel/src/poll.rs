//! How this kernel spins. Interrupts are off whenever kernel code runs, so a CPU
//! that waits for another one must answer TLB shootdowns by itself, or two CPUs
//! could wait for each other for ever. Every lock here is a
//! `SpinMutex<_, Poll>`, every other waiting loop calls [`Poll::relax`].
//!
//! Who spins for long naps: an emulated CPU is a thread of the host, and when there
//! are more of them than host CPUs, spinning keeps the one waited for from running.
//! A nap takes interrupts, but only those whose handler takes no lock.

use spin::RelaxStrategy;
use x86_64::instructions::interrupts;

use crate::{apic, percpu, shootdown};

/// Turns of a loop before a nap: less than a nap costs.
const PATIENCE: u32 = 200;
/// Long enough for the other one to get somewhere, short if it got there at once.
const NAP_NS: u32 = 50_000;

pub struct Poll;

impl RelaxStrategy for Poll {
    fn relax() {
        if percpu::is_ready() {
            shootdown::answer();
            let spins = &percpu::this().spins;
            spins.set(spins.get().wrapping_add(1));
            if spins.get().is_multiple_of(PATIENCE) && percpu::is_online() {
                nap();
            }
        }
        core::hint::spin_loop();
    }
}

/// Halts until a shootdown request comes or a short time has passed. Kicks stay
/// pending, for they ask for more than a handler can do here.
fn nap() {
    apic::hold_kicks(true);
    apic::arm_timer(NAP_NS);
    interrupts::enable_and_hlt();
    interrupts::disable();
    apic::hold_kicks(false);
}

/// Spins until `done` says so.
pub fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        Poll::relax();
    }
}
