//! Stacks: below each is a page that is not mapped, and how deep each was used can be seen.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::mapper::{Mapper, OffsetPageTable, Translate};
use x86_64::structures::paging::{Page, Size4KiB};

use crate::{cpu, direct};

const PAGE: usize = 4096;
/// Of the CPUs that are started here. The boot loader makes the boot CPU's.
const BYTES: usize = 128 * 1024;
/// What is where no call has been.
const UNUSED: u64 = 0x5a5a_5a5a_5a5a_5a5a;

#[repr(C, align(4096))]
struct Stack {
    guard: [u8; PAGE],
    bytes: [u64; BYTES / 8],
}

static mut STACKS: [Stack; cpu::MAX] = [const { Stack { guard: [0; PAGE], bytes: [0; BYTES / 8] } }; cpu::MAX];

/// First and last address of each CPU's.
static RANGES: [[AtomicU64; 2]; cpu::MAX] = [const { [AtomicU64::new(0), AtomicU64::new(0)] }; cpu::MAX];

fn range(cpu: usize) -> [u64; 2] {
    [0, 1].map(|end| RANGES[cpu][end].load(Ordering::Acquire))
}

/// Marks what is unused, and remembers where it is.
fn adopt(cpu: usize, bottom: u64, used: u64, top: u64) {
    for word in (bottom..used).step_by(8) {
        // SAFETY: a stack of which nobody uses this part.
        unsafe { (word as *mut u64).write_volatile(UNUSED) };
    }
    [bottom, top].into_iter().zip(&RANGES[cpu]).for_each(|(address, end)| end.store(address, Ordering::Release));
}

fn tables() -> OffsetPageTable<'static> {
    let root = Cr3::read().0.start_address().as_u64();
    // SAFETY: the loaded root, in the direct map of all memory; nobody else changes the kernel's tables.
    unsafe { OffsetPageTable::new(&mut *direct(root).cast(), VirtAddr::from_ptr(direct(0))) }
}

/// Once, at boot, on the boot loader's stack, below which nothing is mapped.
pub(crate) fn init() {
    let here: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) here, options(nomem, nostack, preserves_flags)) };
    let (tables, page) = (tables(), PAGE as u64);
    let is_mapped = |address: u64| tables.translate_addr(VirtAddr::new(address)).is_some();
    let mut bottom = here & !(page - 1);
    while is_mapped(bottom - page) {
        bottom -= page;
    }
    let mut top = here & !(page - 1);
    while is_mapped(top) {
        top += page;
    }
    // This function calls others.
    adopt(0, bottom, (here - page).max(bottom), top);
}

/// The end of a stack for that CPU.
pub(crate) fn make(cpu: usize) -> u64 {
    // SAFETY: each is asked for once.
    let stack = unsafe { &raw mut STACKS[cpu] };
    let guard = Page::<Size4KiB>::containing_address(VirtAddr::from_ptr(stack));
    tables().unmap(guard).expect("the kernel is mapped by pages of 4 KiB").1.flush();
    let bottom = stack as u64 + PAGE as u64;
    adopt(cpu, bottom, bottom + BYTES as u64, bottom + BYTES as u64);
    bottom + BYTES as u64
}

/// How many bytes of its stack that CPU has used at most.
pub fn used(cpu: usize) -> u64 {
    let [bottom, top] = range(cpu);
    // SAFETY: within that stack.
    let is_unused = |word: &u64| unsafe { (*word as *const u64).read_volatile() } == UNUSED;
    top - (bottom..top).step_by(8).find(|word| !is_unused(word)).unwrap_or(top)
}

/// Whose stack ends above this address.
pub(crate) fn overrun_by(address: u64) -> Option<usize> {
    (0..cpu::MAX).find(|&cpu| range(cpu)[0].wrapping_sub(address).wrapping_sub(1) < PAGE as u64)
}
