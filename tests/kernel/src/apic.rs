//! The local APIC through its memory-mapped registers, just what inter-processor
//! interrupts and a wake-up timer need.
//!
//! By hand, because a nap needs the task priority ([`hold_kicks`]): `x2apic` and `x86`
//! have that register, and no public way to write it.

use x86_64::instructions::port::Port;

use crate::{ipi, memory, time};

const BASE: u64 = 0xfee0_0000;
const ID: u64 = 0x20;
const TASK_PRIORITY: u64 = 0x80;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const TIMER: u64 = 0x320;
const TIMER_COUNT: u64 = 0x380;
const TIMER_DIVIDE: u64 = 0x3e0;

const ENABLE: u32 = 1 << 8;
const DELIVERING: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;
const INIT: u32 = 5 << 8;
const STARTUP: u32 = 6 << 8;
const DIVIDE_BY_1: u32 = 0b1011;

fn register(offset: u64) -> *mut u32 {
    memory::direct(BASE + offset).cast()
}

fn read(offset: u64) -> u32 {
    // SAFETY: the direct map covers the 4 GiB below which the register is, and
    // reading the registers used here has no effect.
    unsafe { register(offset).read_volatile() }
}

fn write(offset: u64, value: u32) {
    // SAFETY: as above; what the values used here do is the purpose of the callers.
    unsafe { register(offset).write_volatile(value) };
}

/// Silences the legacy interrupt controllers, which would use exception vectors.
pub fn mask_legacy() {
    // SAFETY: the mask registers of the two controllers; nobody waits for them.
    unsafe {
        Port::<u8>::new(0x21).write(0xff);
        Port::<u8>::new(0xa1).write(0xff);
    }
}

/// Switches on this CPU's local APIC.
pub fn init() {
    write(SPURIOUS, ENABLE | u32::from(ipi::SPURIOUS));
    write(TASK_PRIORITY, 0);
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    write(TIMER, u32::from(ipi::TIMER));
}

pub fn id() -> u32 {
    read(ID) >> 24
}

pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

fn command(target: u32, low: u32) {
    write(COMMAND_HIGH, target << 24);
    write(COMMAND_LOW, low);
    while read(COMMAND_LOW) & DELIVERING != 0 {
        core::hint::spin_loop();
    }
}

pub fn send(target: u32, vector: u8) {
    command(target, ASSERT | u32::from(vector));
}

/// Interrupts this CPU once, after about this time (exactly so at QEMU's 1 GHz); who
/// wakes looks at the real clock.
pub fn arm_timer(nanoseconds: u32) {
    write(TIMER_COUNT, nanoseconds);
}

/// Whether [`ipi::KICK`] stays pending even while interrupts are on.
pub fn hold_kicks(held: bool) {
    write(TASK_PRIORITY, if held { u32::from(ipi::KICK) } else { 0 });
}

/// Resets another CPU and starts it at physical address `page << 12` (Intel SDM
/// volume 3, "MP Initialization Protocol").
pub fn start(target: u32, page: u8) {
    command(target, INIT | ASSERT);
    time::spin_microseconds(10_000);
    for _ in 0..2 {
        command(target, STARTUP | ASSERT | u32::from(page));
        time::spin_microseconds(200);
    }
}
