//! Time from the cycle counter, calibrated once against the interval timer.

use core::{
    arch::x86_64::_rdtsc,
    sync::atomic::{AtomicU64, Ordering},
};

use x86_64::instructions::port::Port;

/// Input of the interval timer.
const PIT_HZ: u64 = 1_193_182;
const CALIBRATION_MS: u64 = 10;

static TICKS_PER_MS: AtomicU64 = AtomicU64::new(0);
static BOOT: AtomicU64 = AtomicU64::new(0);

pub fn ticks() -> u64 {
    // SAFETY: every x86_64 has the instruction.
    unsafe { _rdtsc() }
}

/// Measures the counter's rate over one run of the timer's channel 2.
pub fn init() {
    let count = PIT_HZ * CALIBRATION_MS / 1000;
    let mut gate = Port::<u8>::new(0x61);
    // SAFETY: channel 2 drives nothing but the speaker, which is off (bit 1 clear).
    let elapsed = unsafe {
        let value = gate.read() & !0b10 | 0b01;
        gate.write(value & !0b01);
        Port::<u8>::new(0x43).write(0b1011_0000);
        Port::<u8>::new(0x42).write(count as u8);
        Port::<u8>::new(0x42).write((count >> 8) as u8);
        gate.write(value);
        let start = ticks();
        while gate.read() & 0b10_0000 == 0 {
            core::hint::spin_loop();
        }
        ticks() - start
    };
    TICKS_PER_MS.store((elapsed / CALIBRATION_MS).max(1), Ordering::Relaxed);
    BOOT.store(ticks(), Ordering::Relaxed);
}

pub fn ticks_per_millisecond() -> u64 {
    TICKS_PER_MS.load(Ordering::Relaxed)
}

/// Microseconds since [`init`].
pub fn now() -> u64 {
    let elapsed = u128::from(ticks().saturating_sub(BOOT.load(Ordering::Relaxed)));
    (elapsed * 1000 / u128::from(ticks_per_millisecond().max(1))) as u64
}

pub fn spin_microseconds(duration: u64) {
    let end = now() + duration;
    crate::poll::until(|| now() >= end);
}
