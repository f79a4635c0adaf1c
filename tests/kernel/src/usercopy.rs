//! Copies between the kernel and the current address space.
//!
//! A page fault inside the copying instruction first goes to the memory system; when
//! that cannot resolve it, execution continues at the fix-up and the copy reports
//! how many bytes are missing. Faults take locks of the memory system, so that no
//! such lock may be held by who copies.

use core::arch::global_asm;

use pagepin_abi::{USER_END, USER_START};

/// Part of the range is not accessible; says how many bytes are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing(pub usize);

unsafe extern "C" {
    /// Copies `len` bytes, returns how many it could not.
    unsafe fn usercopy_bytes(to: *mut u8, from: *const u8, len: usize) -> usize;
    static usercopy_faulting: u8;
    static usercopy_fixup: u8;
}

global_asm!(
    r#"
.section .text.usercopy, "ax"
.global usercopy_bytes, usercopy_faulting, usercopy_fixup
usercopy_bytes:
    mov rcx, rdx
usercopy_faulting:
    rep movsb
usercopy_fixup:
    mov rax, rcx
    ret
.text
"#
);

/// Whether `rip` is the instruction that may fault.
pub fn contains(rip: u64) -> bool {
    rip == (&raw const usercopy_faulting) as u64
}

pub fn fixup() -> u64 {
    (&raw const usercopy_fixup) as u64
}

/// Whether the range is one that user memory can be in.
pub fn is_user_range(address: u64, len: u64) -> bool {
    address >= USER_START && address.checked_add(len).is_some_and(|end| end <= USER_END)
}

/// Fills `to` from user memory.
pub fn read(to: &mut [u8], from: u64) -> Result<(), Missing> {
    if !is_user_range(from, to.len() as u64) {
        return Err(Missing(to.len()));
    }
    // SAFETY: the destination is a live slice, the source is in the user half, where
    // no kernel object is, and a fault there ends the copy.
    match unsafe { usercopy_bytes(to.as_mut_ptr(), from as *const u8, to.len()) } {
        0 => Ok(()),
        missing => Err(Missing(missing)),
    }
}

/// Writes `from` to user memory.
pub fn write(to: u64, from: &[u8]) -> Result<(), Missing> {
    if !is_user_range(to, from.len() as u64) {
        return Err(Missing(from.len()));
    }
    // SAFETY: the source is a live slice, the destination is in the user half, where
    // no kernel object is, and a fault there ends the copy.
    match unsafe { usercopy_bytes(to as *mut u8, from.as_ptr(), from.len()) } {
        0 => Ok(()),
        missing => Err(Missing(missing)),
    }
}
