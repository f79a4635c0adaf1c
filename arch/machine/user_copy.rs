//! The only instructions that touch user memory through its own addresses, and where to go on when they fault.
//!
//! `rep movsb` and `rep stosb` stop at the byte that faulted, with the count of those that are missing, so no table of
//! fix-ups is needed: the page-fault handler asks [`fixup`] about the instruction and returns to what that says. They are
//! also the fastest way to move more than a few bytes where the processor has "enhanced rep movsb".
//!
//! - With `CR4.SMAP` set, access is opened (`STAC`) for that one instruction.
//! - A processor may run ahead of the check of an address (Spectre, variant 1). So the user's address is made 0 here, without a branch,
//!   unless it lies below the end of the user half.

use core::arch::global_asm;

/// Why a copy stopped, as its fix-ups tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It did not: nothing is missing.
    Done,
    /// The page was not there, or not to be accessed so.
    Fault,
    /// A protection key denied it.
    Key,
    /// A reserved bit was set in an entry.
    Malformed,
}

/// In `rax` and `rdx`.
#[repr(C)]
struct Outcome {
    missing: usize,
    stopped: u64,
}

// SAFETY: the routines and labels are those below, which follow the C ABI.
unsafe extern "C" {
    /// # Safety
    /// As [`copy_from_user`].
    unsafe fn pagepin_copy_from_user(to: *mut u8, from: u64, length: usize, end: u64) -> Outcome;
    /// # Safety
    /// As [`copy_from_user`].
    unsafe fn pagepin_copy_to_user(to: u64, from: *const u8, length: usize, end: u64) -> Outcome;
    /// # Safety
    /// As [`copy_from_user`].
    unsafe fn pagepin_clear_user(to: u64, zero: u64, length: usize, end: u64) -> Outcome;
    static pagepin_user_copy: u8;
    static pagepin_user_clear: u8;
    static pagepin_user_fault: u8;
    static pagepin_user_key: u8;
    static pagepin_user_malformed: u8;
}

global_asm!(
    r#"
.pushsection .text.pagepin_user, "ax", @progbits
.balign 16
.global pagepin_copy_from_user, pagepin_copy_to_user, pagepin_clear_user
.global pagepin_user_copy, pagepin_user_clear, pagepin_user_fault, pagepin_user_key, pagepin_user_malformed

# rdi: to, rsi: from, rdx: length, rcx: end of the user half. Out: rax: bytes missing, rdx: why.
pagepin_copy_from_user:
    cmp rsi, rcx
    sbb rax, rax                        # all ones below the end
    and rsi, rax
    jmp 2f
pagepin_copy_to_user:
    cmp rdi, rcx
    sbb rax, rax
    and rdi, rax
2:  mov rcx, rdx
    xor edx, edx
    mov r8, cr4
    and r8d, {smap}
    jz pagepin_user_copy
    stac
pagepin_user_copy:
    rep movsb
    jmp 4f

pagepin_clear_user:
    cmp rdi, rcx
    sbb rax, rax
    and rdi, rax
    mov rcx, rdx
    xor edx, edx
    mov r8, cr4
    and r8d, {smap}
    mov eax, 0                          # keeps the flags
    jz pagepin_user_clear
    stac
pagepin_user_clear:
    rep stosb

4:  test r8d, r8d
    jz 5f
    clac
5:  mov rax, rcx
    ret

pagepin_user_fault:
    mov edx, 1
    jmp 4b
pagepin_user_key:
    mov edx, 2
    jmp 4b
pagepin_user_malformed:
    mov edx, 3
    jmp 4b
.popsection
"#,
    smap = const 1 << 21,
);

/// Where a page fault in ring 0 at instruction `rip` goes on, if that is a user copy. `key` and `malformed`: what the
/// processor says about it.
pub(crate) fn fixup(rip: u64, key: bool, malformed: bool) -> Option<u64> {
    let at = |label: *const u8| label as u64;
    if rip != at(&raw const pagepin_user_copy) && rip != at(&raw const pagepin_user_clear) {
        return None;
    }
    Some(if malformed {
        at(&raw const pagepin_user_malformed)
    } else if key {
        at(&raw const pagepin_user_key)
    } else {
        at(&raw const pagepin_user_fault)
    })
}

impl Outcome {
    fn into_parts(self) -> (usize, Stopped) {
        let stopped = match self.stopped {
            0 => Stopped::Done,
            2 => Stopped::Key,
            3 => Stopped::Malformed,
            _ => Stopped::Fault,
        };
        (self.missing, stopped)
    }
}

/// Reads user memory; returns how many bytes are missing, and why.
///
/// # Safety
/// In ring 0. Nothing of the kernel lies in the user half, below `end`, of the tables that are loaded.
pub(crate) unsafe fn copy_from_user(to: &mut [u8], from: u64, end: u64) -> (usize, Stopped) {
    // SAFETY: the slice is the caller's; what is read is user memory, or faults, by the caller.
    unsafe { pagepin_copy_from_user(to.as_mut_ptr(), from, to.len(), end) }.into_parts()
}

/// Writes user memory; returns how many bytes are missing, and why.
///
/// # Safety
/// As [`copy_from_user`].
pub(crate) unsafe fn copy_to_user(to: u64, from: &[u8], end: u64) -> (usize, Stopped) {
    // SAFETY: the slice is the caller's; what is written is user memory, or faults, by the caller.
    unsafe { pagepin_copy_to_user(to, from.as_ptr(), from.len(), end) }.into_parts()
}

/// Clears user memory; returns how many bytes are missing, and why.
///
/// # Safety
/// As [`copy_from_user`].
pub(crate) unsafe fn clear_user(to: u64, length: usize, end: u64) -> (usize, Stopped) {
    // SAFETY: what is written is user memory, or faults, by the caller.
    unsafe { pagepin_clear_user(to, 0, length, end) }.into_parts()
}
