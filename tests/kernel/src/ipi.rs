//! Interrupts this kernel takes: three kinds, all of which only make the CPU look at
//! something.

use core::sync::atomic::Ordering;

use crate::{apic, percpu, shootdown};

/// Look for a shootdown request.
pub const FLUSH: u8 = 0xf0;
/// Look at the run queue, the broadcast slot, and whether the process still lives.
///
/// Of a lower priority than the others, so that a CPU can hold it back.
pub const KICK: u8 = 0xe0;
/// Look at the clock.
pub const TIMER: u8 = 0xf2;
pub const SPURIOUS: u8 = 0xff;

pub fn is_interrupt(vector: u8) -> bool {
    vector >= KICK
}

/// What every interrupt needs, in whatever mode it was taken.
pub fn acknowledge(vector: u8) {
    if vector != SPURIOUS {
        apic::end_of_interrupt();
    }
    shootdown::answer();
}

pub fn send(cpu: usize, vector: u8) {
    apic::send(percpu::shared(cpu).apic_id.load(Ordering::Relaxed), vector);
}

/// Brings every other CPU back into its scheduler loop.
pub fn kick_others() {
    let this = percpu::index();
    for (cpu, _) in percpu::online().filter(|&(cpu, _)| cpu != this) {
        send(cpu, KICK);
    }
}
