//! The interrupt descriptor table, shared by all CPUs. Gates are written by hand:
//! the typed ones of `x86_64` expect handlers with an unstable calling convention,
//! and ours are the assembly stubs of `trap.rs`.

use spin::Once;
use x86_64::{
    VirtAddr,
    instructions::tables::lidt,
    structures::{DescriptorTablePointer, gdt::SegmentSelector},
};

use crate::{gdt, trap};

const VECTORS: usize = 256;
const PRESENT: u64 = 1 << 47;
const INTERRUPT_GATE: u64 = 0xe << 40;
const FROM_RING3: u64 = 3 << 45;
const SOFT_CALL: u8 = 0x80;
/// Non-maskable interrupt, double fault, machine check.
const FATAL: [u8; 3] = [2, 8, 18];

/// Intel SDM volume 3, "64-Bit IDT Gate Descriptors".
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Gate(u64, u64);

const EMPTY: Gate = Gate(0, 0);

impl Gate {
    fn new(stub: u64, attributes: u64) -> Self {
        let SegmentSelector(code) = gdt::KERNEL_CODE;
        let low = (stub & 0xffff)
            | u64::from(code) << 16
            | (stub & 0xffff_0000) << 32
            | INTERRUPT_GATE
            | PRESENT
            | attributes;
        Self(low, stub >> 32)
    }
}

static TABLE: Once<[Gate; VECTORS]> = Once::new();

fn build() -> [Gate; VECTORS] {
    let mut table = [EMPTY; VECTORS];
    for vector in 0..32 {
        let stack = if FATAL.contains(&vector) { u64::from(gdt::FATAL_STACK) + 1 } else { 0 };
        table[usize::from(vector)] = Gate::new(trap::exception_stub(vector), stack << 32);
    }
    for (vector, stub) in trap::vector_stubs() {
        let level = if vector == SOFT_CALL { FROM_RING3 } else { 0 };
        table[usize::from(vector)] = Gate::new(stub, level);
    }
    table
}

/// Loads the table on this CPU.
pub fn init() {
    let table = TABLE.call_once(build);
    let pointer = DescriptorTablePointer { limit: (size_of_val(table) - 1) as u16, base: VirtAddr::from_ptr(table) };
    // SAFETY: the table is complete, static, and its stubs expect these vectors.
    unsafe { lidt(&pointer) };
}
