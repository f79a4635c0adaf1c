//! Into ring 3 and back.
//!
//! [`enter`] behaves like a call: it loads a [`UserContext`], and returns with the
//! [`Trap`] that ended the program's turn, the context holding its registers.
//! `RSP0` points at the end of the context, so that the CPU and the pushes below
//! fill it from the end without any copying. A page fault costs 29 instructions in
//! and 28 out, not counting what `enter` does around them.
//!
//! Traps in kernel mode stay on the current stack and go to `kernel_trap.rs`.

use core::{
    arch::global_asm,
    mem::{offset_of, size_of},
};

use x86_64::registers::control::Cr2;

use crate::{gdt, percpu};

pub const DEBUG: u8 = 1;
pub const PAGE_FAULT: u8 = 14;
pub const GENERAL_PROTECTION: u8 = 13;
const SOFT_CALL: u64 = 0x80;
/// Not a vector: the `syscall` instruction.
const SYSCALL: u64 = 0x100;
const EXCEPTIONS: u64 = 32;

/// Registers of a thread while it is not in ring 3. Filled by the stubs below in
/// exactly this order.
#[repr(C, align(16))]
#[derive(Clone, Default)]
pub struct UserContext {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    vector: u64,
    error: u64,
    pub rip: u64,
    cs: u64,
    rflags: u64,
    pub rsp: u64,
    /// Public so that a test can break it.
    pub ss: u64,
}

// The CPU aligns the stack it switches to to 16 bytes.
const _: () = assert!(size_of::<UserContext>().is_multiple_of(16));

/// Interrupts on, and the bit that is always one.
const USER_FLAGS: u64 = 0x202;

impl UserContext {
    pub fn new(rip: u64, rsp: u64) -> Self {
        Self {
            rip,
            rsp,
            cs: u64::from(gdt::USER_CODE.0),
            ss: u64::from(gdt::USER_DATA.0),
            rflags: USER_FLAGS,
            ..Self::default()
        }
    }
}

/// Why a thread left ring 3.
#[derive(Clone, Copy, Debug)]
pub enum Trap {
    Syscall,
    PageFault { address: u64, code: u64 },
    Exception { vector: u8 },
    Interrupt { vector: u8 },
}

/// Runs the thread until it traps.
#[inline]
pub fn enter(context: &mut UserContext) -> Trap {
    // SAFETY: the routine keeps the callee-saved registers and writes to nothing but
    // `context` and the per-CPU block. Selectors and flags of the context are those of
    // ring 3, as only `new` and the CPU set them.
    unsafe { user_enter(context) };
    match context.vector {
        14 => Trap::PageFault { address: Cr2::read_raw(), code: context.error },
        SOFT_CALL | SYSCALL => Trap::Syscall,
        vector if vector < EXCEPTIONS => Trap::Exception { vector: vector as u8 },
        vector => Trap::Interrupt { vector: vector as u8 },
    }
}

pub fn syscall_entry() -> *const u8 {
    (&raw const user_syscall_entry).cast()
}

/// Entry points of the exceptions, by vector.
pub fn exception_stub(vector: u8) -> u64 {
    // SAFETY: the table below has one entry for each exception, and is never written.
    unsafe { trap_stubs[usize::from(vector)] }
}

/// Entry points of the other vectors in use.
pub fn vector_stubs() -> [(u8, u64); 5] {
    [
        (0x80, (&raw const trap_stub_0x80) as u64),
        (0xf0, (&raw const trap_stub_0xf0) as u64),
        (0xe0, (&raw const trap_stub_0xe0) as u64),
        (0xf2, (&raw const trap_stub_0xf2) as u64),
        (0xff, (&raw const trap_stub_0xff) as u64),
    ]
}

unsafe extern "C" {
    unsafe fn user_enter(context: *mut UserContext);
    static user_syscall_entry: u8;
    static trap_stubs: [u64; 32];
    static trap_stub_0x80: u8;
    static trap_stub_0xf0: u8;
    static trap_stub_0xe0: u8;
    static trap_stub_0xf2: u8;
    static trap_stub_0xff: u8;
}

global_asm!(
    r#"
.section .text.trap, "ax"
.balign 16
.global user_enter
user_enter:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov gs:[{kernel_rsp}], rsp
    lea rax, [rdi + {context_bytes}]
    mov gs:[{rsp0}], rax
    mov rsp, rdi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rax
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    add rsp, 16
    swapgs
user_iretq:
    iretq

.balign 16
.global user_syscall_entry
user_syscall_entry:
    swapgs
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{rsp0}]
    push {user_ss}
    push qword ptr gs:[{user_rsp}]
    push r11
    push {user_cs}
    push rcx
    push 0
    push {syscall}
    jmp trap_save_user

# Stack: vector, error code, rip, cs, rflags, rsp, ss.
.balign 16
trap_common:
    test byte ptr [rsp + 24], 3
    jz trap_kernel
    swapgs
trap_save_user:
    cld
    push rdi
    push rsi
    push rdx
    push rcx
    push rax
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
trap_return:
    mov rsp, gs:[{kernel_rsp}]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

trap_kernel:
    push rax
    lea rax, [rip + user_iretq]
    cmp rax, [rsp + 24]
    pop rax
    je trap_bad_return
trap_kernel_save:
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    cld
    mov rdi, rsp
    call {kernel_trap}
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

# `iretq` refused what the program left in its context, after `swapgs`. To the
# kernel that is an exception of the program. The frame of this trap is inside the
# context (rsp was), and has overwritten some of its general registers.
trap_bad_return:
    swapgs
    mov rax, gs:[{rsp0}]
    mov qword ptr [rax + {vector} - {context_bytes}], {general_protection}
    cld
    jmp trap_return

.macro trap_stub vector, has_error, fatal
trap_stub_\vector:
    .if \has_error == 0
    push 0
    .endif
    push \vector
    .if \fatal
    jmp trap_kernel_save
    .else
    jmp trap_common
    .endif
.endm

    trap_stub 0, 0, 0
    trap_stub 1, 0, 0
    trap_stub 2, 0, 1
    trap_stub 3, 0, 0
    trap_stub 4, 0, 0
    trap_stub 5, 0, 0
    trap_stub 6, 0, 0
    trap_stub 7, 0, 0
    trap_stub 8, 1, 1
    trap_stub 9, 0, 0
    trap_stub 10, 1, 0
    trap_stub 11, 1, 0
    trap_stub 12, 1, 0
    trap_stub 13, 1, 0
    trap_stub 14, 1, 0
    trap_stub 15, 0, 0
    trap_stub 16, 0, 0
    trap_stub 17, 1, 0
    trap_stub 18, 0, 1
    trap_stub 19, 0, 0
    trap_stub 20, 0, 0
    trap_stub 21, 1, 0
    trap_stub 22, 0, 0
    trap_stub 23, 0, 0
    trap_stub 24, 0, 0
    trap_stub 25, 0, 0
    trap_stub 26, 0, 0
    trap_stub 27, 0, 0
    trap_stub 28, 0, 0
    trap_stub 29, 1, 0
    trap_stub 30, 1, 0
    trap_stub 31, 0, 0
.global trap_stub_0x80, trap_stub_0xe0, trap_stub_0xf0, trap_stub_0xf2, trap_stub_0xff
    trap_stub 0x80, 0, 0
    trap_stub 0xf0, 0, 0
    trap_stub 0xe0, 0, 0
    trap_stub 0xf2, 0, 0
    trap_stub 0xff, 0, 0

.section .rodata.trap, "a"
.balign 8
.global trap_stubs
trap_stubs:
    .irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    .quad trap_stub_\vector
    .endr
.text
"#,
    kernel_rsp = const percpu::KERNEL_RSP,
    user_rsp = const percpu::USER_RSP,
    rsp0 = const percpu::RSP0,
    context_bytes = const size_of::<UserContext>(),
    vector = const offset_of!(UserContext, vector),
    user_ss = const gdt::USER_DATA.0,
    user_cs = const gdt::USER_CODE.0,
    syscall = const SYSCALL,
    general_protection = const GENERAL_PROTECTION,
    kernel_trap = sym crate::kernel_trap::kernel_trap,
);
