//! Traps taken in kernel mode: page faults of user copies, interrupts while idle,
//! steps that are counted, and everything else, which is a bug.

use pagepin::PageFault;
use x86_64::registers::control::Cr2;

use crate::{
    apic, ipi, mm, single_step,
    trap::{DEBUG, PAGE_FAULT},
};

/// As `trap_kernel` in `trap.rs` builds it.
#[repr(C)]
#[derive(Debug)]
pub struct KernelFrame {
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

pub extern "C" fn kernel_trap(frame: &mut KernelFrame) {
    let vector = frame.vector as u8;
    if vector == PAGE_FAULT
        && let PageFault::ResumeAt(rip) = mm::kernel_fault(Cr2::read_raw(), frame.error, frame.rip)
    {
        frame.rip = rip;
        return;
    }
    if vector == DEBUG && single_step::look(frame.rip) {
        return;
    }
    if ipi::is_interrupt(vector) {
        ipi::acknowledge(vector);
        return;
    }
    panic!(
        "trap {vector} in the kernel: rip {:#x} cr2 {:#x} code {:#x} rsp {:#x} cpu {} (apic)\n{frame:#x?}",
        frame.rip,
        Cr2::read_raw(),
        frame.error,
        frame.rsp,
        apic::id(),
    );
}
