//! Real mode to long mode for the CPUs that the firmware did not start.
//!
//! The code is copied to a fixed page below 1 MiB, which was the bootloader's and is
//! now nobody's, and needs that page mapped at its own address for the few
//! instructions after paging goes on: a table tree of its own lends the boot root a
//! lower half for that time.

use core::arch::global_asm;

use crate::{memory, mm};

/// Page number of the code; also the startup vector.
pub const PAGE: u8 = 8;
const BASE: u64 = (PAGE as u64) << 12;
const PRESENT_WRITABLE: u64 = 0b11;
const HUGE: u64 = 1 << 7;
/// Of `CR4`.
const PAE: u64 = 1 << 5;
const LA57: u64 = 1 << 12;

global_asm!(
    r#"
.section .rodata.trampoline, "a"
.balign 16
.global ap_start, ap_end, ap_control, ap_root, ap_stack, ap_entry, ap_argument
.set ap_control_offset, ap_control - ap_start
.set ap_root_offset, ap_root - ap_start
.set ap_gdt_pointer_offset, ap_gdt_pointer - ap_start
.code16
ap_start:
    cli
    cld
    mov ax, cs                          # the startup vector: offsets count from ap_start
    mov ds, ax
    mov eax, dword ptr [ap_control_offset]
    mov cr4, eax
    mov eax, dword ptr [ap_root_offset]
    mov cr3, eax
    mov ecx, 0xc0000080                 # EFER: LME, NXE
    rdmsr
    or eax, 0x900
    wrmsr
    lgdt [ap_gdt_pointer_offset]
    mov eax, 0x80010031                 # PG, WP, NE, ET, PE: straight to long mode
    mov cr0, eax
    .byte 0x66, 0xea                    # far jump, 32-bit offset
    .long ap_long - ap_start + {base}
    .word 8
.code64
ap_long:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov rsp, qword ptr [rip + ap_stack]
    mov edi, dword ptr [rip + ap_argument]
    mov rax, qword ptr [rip + ap_entry]
    push 0                              # no caller: the entry finds an aligned call frame
    jmp rax
.balign 16
ap_gdt:
    .quad 0
    .quad 0x00af9a000000ffff            # 64-bit code
ap_gdt_pointer:
    .word 15
    .long ap_gdt - ap_start + {base}
.balign 8
ap_control:  .quad 0
ap_root:     .quad 0
ap_stack:    .quad 0
ap_entry:    .quad 0
ap_argument: .quad 0
ap_end:
.text
"#,
    base = const BASE,
);

unsafe extern "C" {
    static ap_start: u8;
    static ap_end: u8;
    static ap_control: u8;
    static ap_root: u8;
    static ap_stack: u8;
    static ap_entry: u8;
    static ap_argument: u8;
}

/// Stores a word of the copied page.
fn store(original: *const u8, value: u64) {
    let offset = original as u64 - (&raw const ap_start) as u64;
    // SAFETY: `original` is one of the words at the end of the code, so the copy is
    // within the trampoline's page, which is in the direct map; no CPU runs there now.
    unsafe { memory::direct(BASE + offset).cast::<u64>().write_volatile(value) };
}

/// Copies the code and lends `root` an identity mapping of the first 2 MiB.
pub fn install(root: u64) {
    let len = (&raw const ap_end) as usize - (&raw const ap_start) as usize;
    assert!(len as u64 <= memory::PAGE && root < 1 << 32);
    assert!(memory::is_left_over(u64::from(PAGE)), "the trampoline's page is in use");
    // SAFETY: source and length are those of the code above; the destination is RAM
    // that nobody uses, just checked, and in the direct map.
    unsafe { memory::direct(BASE).copy_from_nonoverlapping(&raw const ap_start, len) };
    store(&raw const ap_control, PAE);
    store(&raw const ap_root, root);
    let middle = mm::table().expect("memory for the trampoline");
    let upper = mm::table().expect("memory for the trampoline");
    memory::write_entry(middle, 0, PRESENT_WRITABLE | HUGE);
    memory::write_entry(upper, 0, middle | PRESENT_WRITABLE);
    memory::write_entry(root, 0, upper | PRESENT_WRITABLE);
}

/// The next CPU begins with tables of five levels: a fifth one over the boot loader's root. `CR4.LA57` can be changed only while paging is off, as it is
/// at the start of the trampoline.
pub fn begin_with_five_levels() {
    let (root, below) = (mm::table().expect("memory for a root"), memory::boot_root() | PRESENT_WRITABLE);
    assert!(root < 1 << 32);
    // The identity mapping, and the kernel.
    memory::write_entry(root, 0, below);
    memory::write_entry(root, 511, below);
    store(&raw const ap_control, PAE | LA57);
    store(&raw const ap_root, root);
}

/// Tells the next CPU where to go.
pub fn aim(stack_top: u64, entry: extern "C" fn(u32) -> !, argument: u32) {
    store(&raw const ap_stack, stack_top);
    store(&raw const ap_entry, entry as usize as u64);
    store(&raw const ap_argument, u64::from(argument));
}

/// Takes the identity mapping away again. Its two tables stay behind.
pub fn remove() {
    memory::clear_lower_half();
    crate::shootdown::flush(memory::boot_root(), 0, crate::shootdown::ALL_PAGES);
}
