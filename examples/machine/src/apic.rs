//! The local APIC, as far as CPUs interrupt and start each other by it.

use crate::{direct, trap};

const BASE: u64 = 0xfee0_0000;
const ID: u64 = 0x20;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const DELIVERING: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;

fn register(offset: u64) -> *mut u32 {
    direct(BASE + offset).cast()
}

fn write(offset: u64, value: u32) {
    // SAFETY: a register of this CPU's APIC, in the direct map; what the values do is the callers' purpose.
    unsafe { register(offset).write_volatile(value) };
}

fn read(offset: u64) -> u32 {
    // SAFETY: as above; reading these changes nothing.
    unsafe { register(offset).read_volatile() }
}

pub(crate) fn init() {
    write(SPURIOUS, 1 << 8 | 0xff);
}

pub(crate) fn id() -> u32 {
    read(ID) >> 24
}

pub(crate) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

fn command(target: u32, low: u32) {
    write(COMMAND_HIGH, target << 24);
    write(COMMAND_LOW, low | ASSERT);
    while read(COMMAND_LOW) & DELIVERING != 0 {
        core::hint::spin_loop();
    }
}

/// Interrupts a CPU, which calls the handler of [`trap::FLUSH`].
pub fn interrupt(cpu: usize) {
    command(crate::startup::apic_id(cpu), u32::from(trap::FLUSH));
}

/// Starts the CPU with this APIC at physical address `page << 12` (Intel SDM volume 3, "MP Initialization Protocol").
pub(crate) fn start(target: u32, page: u8) {
    const INIT: u32 = 5 << 8;
    const STARTUP: u32 = 6 << 8;
    command(target, INIT);
    pause(10_000);
    for _ in 0..2 {
        command(target, STARTUP | u32::from(page));
        pause(200);
    }
}

/// At least so many microseconds: a write to port 0x80 takes about one.
fn pause(microseconds: u32) {
    for _ in 0..microseconds {
        // SAFETY: nobody listens at this port.
        unsafe { x86_64::instructions::port::Port::<u8>::new(0x80).write(0_u8) };
    }
}
