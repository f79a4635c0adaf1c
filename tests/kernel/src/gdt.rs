//! Segments and the task state segment, one set per CPU.

use alloc::{boxed::Box, vec};

use x86_64::{
    PrivilegeLevel, VirtAddr,
    instructions::{
        segmentation::{CS, DS, ES, SS, Segment},
        tables::load_tss,
    },
    structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector},
};

use crate::percpu;

pub const KERNEL_CODE: SegmentSelector = SegmentSelector::new(1, PrivilegeLevel::Ring0);
pub const KERNEL_DATA: SegmentSelector = SegmentSelector::new(2, PrivilegeLevel::Ring0);
pub const USER_DATA: SegmentSelector = SegmentSelector::new(3, PrivilegeLevel::Ring3);
pub const USER_CODE: SegmentSelector = SegmentSelector::new(4, PrivilegeLevel::Ring3);
const TSS: SegmentSelector = SegmentSelector::new(5, PrivilegeLevel::Ring0);

/// Slot of the interrupt stack table for traps that cannot trust the stack they hit.
pub const FATAL_STACK: u8 = 0;
const FATAL_STACK_BYTES: usize = 16 * 1024;

/// Loads this CPU's segments. Needs its per-CPU block.
pub fn init() {
    let stack = Box::leak(vec![0u8; FATAL_STACK_BYTES].into_boxed_slice());
    let top = VirtAddr::from_ptr(stack.as_ptr_range().end).align_down(16u64);
    let tss = percpu::this().tss.get();
    // SAFETY: the block lives for ever; the CPU reads the segment only once it is
    // loaded, below, and this is the only code that writes to this field.
    let tss = unsafe {
        (*tss).interrupt_stack_table[FATAL_STACK as usize] = top;
        &*tss
    };
    let table = Box::leak(Box::new(GlobalDescriptorTable::new()));
    table.append(Descriptor::kernel_code_segment());
    table.append(Descriptor::kernel_data_segment());
    table.append(Descriptor::user_data_segment());
    table.append(Descriptor::user_code_segment());
    table.append(Descriptor::tss_segment(tss));
    table.load();
    // SAFETY: the selectors are those of the table just loaded. Loading DS and ES
    // does not touch the base of GS.
    unsafe {
        CS::set_reg(KERNEL_CODE);
        SS::set_reg(KERNEL_DATA);
        DS::set_reg(KERNEL_DATA);
        ES::set_reg(KERNEL_DATA);
        load_tss(TSS);
    }
}
