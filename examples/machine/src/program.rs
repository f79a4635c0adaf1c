//! The program that the kernels run in ring 3: it touches fresh memory, lets the device read and write its own, and forks while
//! the device is at work.

use core::arch::global_asm;

/// Where it is to be.
pub const START: u64 = 0x40_0000;
/// The end of its stack.
pub const STACK_END: u64 = 0x7000_0000;

/// Where it maps memory.
const HEAP: u64 = 0x1000_0000;
/// How often it forks, at most, until the device is still at work: on a busy machine its 100 ms may be over by then.
const TRIES: u32 = 50;

/// Numbers of its system calls.
pub mod call {
    /// (status)
    pub const EXIT: u64 = 0;
    /// (address, length) of text
    pub const PRINT: u64 = 1;
    /// (address, length)
    pub const MAP: u64 = 2;
    /// Gives the child's number, and 0 to the child.
    pub const FORK: u64 = 3;
    /// (number) Gives the status with which that child ended.
    pub const WAIT: u64 = 4;
    /// (address, length, 0: the device reads, 1: it writes)
    pub const TRANSFER: u64 = 5;
    /// Returns when the device is done.
    pub const FINISH: u64 = 6;
}

global_asm!(
    r#"
.section .rodata.program, "a"
.balign 16
.global machine_program, machine_program_end

.macro program_call number
    mov eax, \number
    int 0x80
.endm
# Ends the program with the line's number unless the byte is as expected.
.macro program_expect address, byte, line
    mov r15d, \line
    mov rbx, \address
    cmp byte ptr [rbx], \byte
    jne fail
.endm
machine_program:
    mov edi, {heap}
    mov esi, 0x10000
    program_call {map}
    program_expect {heap} + 0x5000, 0, 1                  # demand zero
    mov edi, {heap}                               # the device reads what the program wrote
    mov ecx, 1024
    mov al, 'D'
    rep stosb
    mov edi, {heap}
    mov esi, 1024
    xor edx, edx
    program_call {transfer}
    program_call {finish}
    mov r14d, {tries}
before_the_fork:
    mov edi, {heap} + 0x1000                      # and writes it to another page
    mov ecx, 2048
    mov al, 'p'
    rep stosb
    mov edi, {heap} + 0x1000
    mov esi, 1024
    mov edx, 1
    program_call {transfer}
    mov r15d, 2
    test rax, rax
    jnz fail
    program_call {fork}                                 # while it is at work
    test rax, rax
    jz child
    mov r12, rax
    mov byte ptr [{heap} + 0x1700], 'w'           # beside it, in the same page
    program_call {finish}
    program_expect {heap} + 0x1000, 'D', 3                # what the device wrote is here,
    program_expect {heap} + 0x13ff, 'D', 4
    program_expect {heap} + 0x1400, 'p', 5
    program_expect {heap} + 0x1700, 'w', 6                # and what the program wrote as well
    mov rdi, r12
    program_call {wait}
    mov r15d, 7
    cmp rax, 77
    je forked_in_time
    cmp rax, 78                                   # the device was done before the fork: once more
    jne fail
    dec r14d
    jnz before_the_fork
    jmp fail
forked_in_time:
    program_expect {heap}, 'D', 8                         # the child's write went to its own copy
    mov rdi, -4096                              # an address of the kernel's gives an error
    mov esi, 16
    program_call {print}
    mov r15d, 9
    test rax, rax
    jns fail
    lea rdi, [rip + text]
    lea rsi, [rip + text_end]
    sub rsi, rdi
    program_call {print}
    xor edi, edi
    program_call {exit}

child:
    mov edi, 78
    cmp byte ptr [{heap} + 0x1000], 'D'
    je too_late
    program_expect {heap} + 0x1000, 'p', 11               # the device has nothing to do with it
    mov byte ptr [{heap}], 'c'
    program_expect {heap} + 1, 'D', 12
    program_call {finish}                               # it has no transfer, so this returns at once
    program_expect {heap} + 0x1000, 'p', 13
    mov edi, 77
too_late:
    program_call {exit}

fail:
    mov edi, r15d
    program_call {exit}
text:
    .ascii "ring 3: forked while the device was writing, and lost nothing"
text_end:
machine_program_end:
.text
"#,
    heap = const HEAP,
    tries = const TRIES,
    exit = const call::EXIT,
    print = const call::PRINT,
    map = const call::MAP,
    fork = const call::FORK,
    wait = const call::WAIT,
    transfer = const call::TRANSFER,
    finish = const call::FINISH,
);

// SAFETY: the labels are those above.
unsafe extern "C" {
    static machine_program: u8;
    static machine_program_end: u8;
}

/// Its bytes.
pub fn bytes() -> &'static [u8] {
    let (start, end) = (&raw const machine_program, &raw const machine_program_end);
    // SAFETY: what lies between the labels is read-only, and part of this program for ever.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}
