//! Into ring 3 and back.
//!
//! [`enter`] behaves like a call: it loads a [`Context`], and returns with the [`Trap`] that ended the program's turn. Traps in the
//! kernel stay on its stack, and go to what [`set_handlers`] was given.

use core::arch::global_asm;
use core::mem::{offset_of, size_of};

use spin::Once;
use x86_64::registers::control::Cr2;

use crate::{apic, cpu, stack};

/// Vector of `int 0x80`.
pub(crate) const SYSTEM_CALL: u8 = 0x80;
/// Vector by which CPUs interrupt each other.
pub const FLUSH: u8 = 0xf0;
const SPURIOUS: u8 = 0xff;
const DOUBLE_FAULT: u64 = 8;
const PAGE_FAULT: u64 = 14;

/// Registers of a program while it does not run. Filled by the stubs below in this order.
#[repr(C, align(16))]
#[derive(Clone, Default)]
pub struct Context {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbp: u64,
    rbx: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    /// Number and result of a system call.
    pub rax: u64,
    rcx: u64,
    /// Third argument.
    pub rdx: u64,
    /// Second argument.
    pub rsi: u64,
    /// First argument.
    pub rdi: u64,
    vector: u64,
    code: u64,
    /// Where it goes on.
    pub rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const _: () = assert!(size_of::<Context>().is_multiple_of(16));

impl Context {
    /// Of a program that begins at `rip`.
    pub fn new(rip: u64, rsp: u64) -> Self {
        let (cs, ss) = (u64::from(cpu::USER_CODE), u64::from(cpu::USER_DATA));
        // Interrupts on, and the bit that is always one.
        Self { rip, rsp, cs, ss, rflags: 0x202, ..Self::default() }
    }

    /// The system call is made once more when the program goes on.
    pub fn again(&mut self) {
        self.rip -= 2;
    }
}

/// Why a program left ring 3.
pub enum Trap {
    /// `int 0x80`.
    SystemCall,
    /// With `CR2` and the error code.
    PageFault { address: u64, code: u64 },
    /// Another exception, by its vector.
    Exception(u64),
    /// It has been handled.
    Interrupt,
}

/// Runs the program until it traps.
pub fn enter(context: &mut Context) -> Trap {
    // SAFETY: the routine keeps the registers that the ABI says, and writes to the context and this CPU's block alone.
    unsafe { machine_enter(context) };
    match context.vector {
        PAGE_FAULT => Trap::PageFault { address: Cr2::read_raw(), code: context.code },
        vector if vector == u64::from(SYSTEM_CALL) => Trap::SystemCall,
        vector if vector < 32 => Trap::Exception(vector),
        vector => {
            interrupt(vector);
            Trap::Interrupt
        }
    }
}

/// What the kernel does about traps.
pub struct Handlers {
    /// About a page fault in ring 0, from `CR2`, the error code and the instruction: where to go on.
    pub page_fault: fn(u64, u64, u64) -> u64,
    /// About [`FLUSH`].
    pub flush: fn(),
}

static HANDLERS: Once<Handlers> = Once::new();

/// Before the first trap.
pub fn set_handlers(handlers: Handlers) {
    HANDLERS.call_once(|| handlers);
}

fn interrupt(vector: u64) {
    if vector == u64::from(FLUSH) {
        apic::end_of_interrupt();
        if let Some(handlers) = HANDLERS.get() {
            (handlers.flush)();
        }
    }
}

/// As `trap_kernel` below builds it.
#[repr(C)]
#[derive(Debug)]
struct KernelFrame {
    saved: [u64; 9],
    vector: u64,
    code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

extern "C" fn kernel_trap(frame: &mut KernelFrame) {
    match (frame.vector, HANDLERS.get()) {
        (PAGE_FAULT, Some(handlers)) => frame.rip = (handlers.page_fault)(Cr2::read_raw(), frame.code, frame.rip),
        (32.., _) => interrupt(frame.vector),
        (DOUBLE_FAULT, _) if let Some(cpu) = stack::overrun_by(Cr2::read_raw()) => {
            panic!("the stack of CPU {cpu} is too small: {frame:x?}")
        }
        _ => panic!("trap in the kernel, CR2 {:#x}: {frame:x?}", Cr2::read_raw()),
    }
}

/// The vectors in use and their entry points.
pub(crate) fn stubs() -> impl Iterator<Item = (u8, u64)> {
    // SAFETY: the table below has an entry for each, and is never written.
    let exceptions = (0..32).map(|vector| (vector, unsafe { machine_stubs[usize::from(vector)] }));
    let stub = |vector, label: *const u8| (vector, label as u64);
    exceptions.chain([
        stub(SYSTEM_CALL, &raw const machine_stub_0x80),
        stub(FLUSH, &raw const machine_stub_0xf0),
        stub(SPURIOUS, &raw const machine_stub_0xff),
    ])
}

// SAFETY: the routine, the table and the labels are those below.
unsafe extern "C" {
    unsafe fn machine_enter(context: *mut Context);
    static machine_stubs: [u64; 32];
    static machine_stub_0x80: u8;
    static machine_stub_0xf0: u8;
    static machine_stub_0xff: u8;
}

global_asm!(
    r#"
.section .text.trap, "ax"
.balign 16
.global machine_enter
machine_enter:
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
    iretq

# Stack: vector, error code, rip, cs, rflags, rsp, ss; from ring 3 these are the end of the context.
.balign 16
trap_common:
    test byte ptr [rsp + 24], 3
    jz trap_kernel
    swapgs
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

.macro machine_trap_stub vector
.global machine_stub_\vector
machine_stub_\vector:
    .if (\vector != 8) && (\vector != 10) && (\vector != 11) && (\vector != 12) && (\vector != 13) && (\vector != 14) && (\vector != 17) && (\vector != 21) && (\vector != 29) && (\vector != 30)
    push 0
    .endif
    push \vector
    jmp trap_common
.endm

.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 0x80, 0xf0, 0xff
    machine_trap_stub \vector
.endr

.section .rodata.trap, "a"
.balign 8
.global machine_stubs
machine_stubs:
    .irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    .quad machine_stub_\vector
    .endr
.text
"#,
    kernel_rsp = const cpu::KERNEL_RSP,
    rsp0 = const cpu::RSP0,
    context_bytes = const size_of::<Context>(),
    kernel_trap = sym kernel_trap,
);

const _: () = assert!(offset_of!(Context, vector) == 15 * 8);
