//! What each CPU has to itself: a block that GS leads to, segments, and the interrupt table that all share.

use alloc::{boxed::Box, vec};
use core::arch::asm;
use core::mem::offset_of;

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::model_specific::{GsBase, KernelGsBase};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use crate::{apic, trap};

/// At most so many CPUs.
pub const MAX: usize = 8;

pub(crate) const KERNEL_CODE: u16 = 1 << 3;
const KERNEL_DATA: u16 = 2 << 3;
pub(crate) const USER_DATA: u16 = 3 << 3 | 3;
pub(crate) const USER_CODE: u16 = 4 << 3 | 3;

/// Read and written by the assembly of `trap.rs`.
#[repr(C, align(16))]
struct Block {
    /// Stack pointer of who is in `trap::enter`, while ring 3 runs.
    kernel_rsp: u64,
    index: u64,
    tss: TaskStateSegment,
}

pub(crate) const KERNEL_RSP: usize = offset_of!(Block, kernel_rsp);
/// Where the processor puts the registers of ring 3: at the end of the context.
pub(crate) const RSP0: usize = offset_of!(Block, tss) + offset_of!(TaskStateSegment, privilege_stack_table);

/// The number of the calling CPU.
#[inline(always)]
pub fn current() -> usize {
    let index: u64;
    // SAFETY: GS holds the address of this CPU's block, whose number does not change.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) index, const offset_of!(Block, index), options(nostack, readonly, preserves_flags));
    }
    index as usize
}

/// Sets up the calling CPU.
pub(crate) fn init(index: usize) {
    let mut tss = TaskStateSegment::new();
    // For traps that cannot trust the stack that they find.
    let stack = vec![0_u128; 1024].leak();
    tss.interrupt_stack_table[0] = VirtAddr::from_ptr(stack.as_ptr_range().end);
    let block = Box::leak(Box::new(Block { kernel_rsp: 0, index: index as u64, tss }));
    GsBase::write(VirtAddr::from_ptr(block));
    KernelGsBase::write(VirtAddr::zero());
    let gdt = Box::leak(Box::new(GlobalDescriptorTable::new()));
    gdt.append(Descriptor::kernel_code_segment());
    gdt.append(Descriptor::kernel_data_segment());
    gdt.append(Descriptor::user_data_segment());
    gdt.append(Descriptor::user_code_segment());
    // SAFETY: the block lives for ever, and the segment in it is written by this CPU's traps alone.
    let tss = gdt.append(unsafe { Descriptor::tss_segment_unchecked(&raw const block.tss) });
    gdt.load();
    // SAFETY: the selectors are those of the table just loaded; loading DS and ES leaves the base of GS alone.
    unsafe {
        CS::set_reg(x86_64::structures::gdt::SegmentSelector(KERNEL_CODE));
        for set in [SS::set_reg, DS::set_reg, ES::set_reg] {
            set(x86_64::structures::gdt::SegmentSelector(KERNEL_DATA));
        }
        load_tss(tss);
    }
    static IDT: Once<&[[u64; 2]]> = Once::new();
    let idt = *IDT.call_once(interrupt_table);
    // SAFETY: the table is complete and lives for ever. No floating point here; no tags, no global pages.
    unsafe {
        lidt(&DescriptorTablePointer { limit: size_of_val(idt) as u16 - 1, base: VirtAddr::from_ptr(idt) });
        Cr0::update(|cr0| cr0.insert(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::WRITE_PROTECT));
        Cr4::update(|cr4| cr4.remove(Cr4Flags::PAGE_GLOBAL | Cr4Flags::PCID | Cr4Flags::OSFXSR));
    }
    apic::init();
}

/// Intel SDM volume 3, "64-Bit IDT Gate Descriptors".
fn interrupt_table() -> &'static [[u64; 2]] {
    let table = vec![[0; 2]; 256].leak();
    for (vector, stub) in trap::stubs() {
        let present_gate = 0x8e_u64 << 40;
        let from_ring_3 = if vector == trap::SYSTEM_CALL { 3 << 45 } else { 0 };
        let own_stack = u64::from(matches!(vector, 2 | 8 | 18)) << 32;
        let address = (stub & 0xffff) | (stub & 0xffff_0000) << 32;
        table[usize::from(vector)] =
            [address | u64::from(KERNEL_CODE) << 16 | present_gate | from_ring_3 | own_stack, stub >> 32];
    }
    table
}
