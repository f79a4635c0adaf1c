//! Starting the other CPUs: a page of code below 1 MiB that brings one from 16 bits to 64, one CPU at a time.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use x86_64::registers::control::Cr3;

use crate::{apic, cpu, direct, stack};

/// Physical memory that is used here, and must be nobody else's: the code, and two tables for the way.
pub const TAKEN: core::ops::Range<u64> = 0x8000..0xb000;
const CODE: u64 = TAKEN.start;
const UPPER: u64 = CODE + 0x1000;
const MIDDLE: u64 = CODE + 0x2000;

static APIC_IDS: [AtomicU32; cpu::MAX] = [const { AtomicU32::new(0) }; cpu::MAX];
static STARTED: AtomicUsize = AtomicUsize::new(1);

pub(crate) fn apic_id(cpu: usize) -> u32 {
    APIC_IDS[cpu].load(Ordering::Relaxed)
}

/// How many CPUs run.
pub fn cpus() -> usize {
    STARTED.load(Ordering::Acquire)
}

global_asm!(
    r#"
.section .rodata.startup, "a"
.balign 16
.global machine_ap_start, machine_ap_end, machine_ap_root, machine_ap_stack, machine_ap_entry, machine_ap_index
.set root_offset, machine_ap_root - machine_ap_start
.set gdt_offset, ap_gdt_pointer - machine_ap_start
.code16
machine_ap_start:
    cli
    cld
    mov ax, cs                          # offsets count from here
    mov ds, ax
    mov eax, 0x20                       # PAE
    mov cr4, eax
    mov eax, dword ptr [root_offset]
    mov cr3, eax
    mov ecx, 0xc0000080                 # EFER: LME, NXE
    rdmsr
    or eax, 0x900
    wrmsr
    lgdt [gdt_offset]
    mov eax, 0x80010031                 # PG, WP, NE, ET, PE: straight to long mode
    mov cr0, eax
    .byte 0x66, 0xea                    # far jump, 32-bit offset
    .long ap_long - machine_ap_start + {code}
    .word 8
.code64
ap_long:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov rsp, qword ptr [rip + machine_ap_stack]
    mov rdi, qword ptr [rip + machine_ap_index]
    mov rax, qword ptr [rip + machine_ap_entry]
    push 0                              # no caller: the entry finds an aligned frame
    jmp rax
.balign 16
ap_gdt:
    .quad 0
    .quad 0x00af9a000000ffff            # 64-bit code
ap_gdt_pointer:
    .word 15
    .long ap_gdt - machine_ap_start + {code}
.balign 8
machine_ap_root:  .quad 0
machine_ap_stack: .quad 0
machine_ap_entry: .quad 0
machine_ap_index: .quad 0
machine_ap_end:
.text
"#,
    code = const CODE,
);

// SAFETY: the labels are those above.
unsafe extern "C" {
    static machine_ap_start: u8;
    static machine_ap_end: u8;
    static machine_ap_root: u8;
    static machine_ap_stack: u8;
    static machine_ap_entry: u8;
    static machine_ap_index: u8;
}

/// Stores a word of the copied code.
fn store(original: *const u8, value: u64) {
    let offset = original as u64 - (&raw const machine_ap_start) as u64;
    // SAFETY: one of the words at the end of the code, in memory that is this file's, in the direct map; no CPU is there now.
    unsafe { direct(CODE + offset).cast::<u64>().write_volatile(value) };
}

fn write_entry(table: u64, index: usize, entry: u64) {
    // SAFETY: a table of this file's or the boot loader's, in the direct map.
    unsafe { direct(table).cast::<u64>().add(index).write_volatile(entry) };
}

/// Where the next CPU goes on.
static MAIN: spin::Once<fn() -> !> = spin::Once::new();

/// Starts the other CPUs up to `count`, which go on in `main`. The lower half of the root is empty afterwards.
pub fn start_others(count: usize, main: fn() -> !) {
    MAIN.call_once(|| main);
    APIC_IDS[0].store(apic::id(), Ordering::Relaxed);
    let root = Cr3::read().0.start_address().as_u64();
    let length = (&raw const machine_ap_end) as usize - (&raw const machine_ap_start) as usize;
    // SAFETY: source and length are those of the code above, the target is memory that is this file's, in the direct map.
    unsafe { direct(CODE).copy_from_nonoverlapping(&raw const machine_ap_start, length) };
    // The first 2 MiB where they are, for the moment in which paging begins.
    (0..512).for_each(|index| [UPPER, MIDDLE].into_iter().for_each(|table| write_entry(table, index, 0)));
    write_entry(MIDDLE, 0, 0b1000_0011);
    write_entry(UPPER, 0, MIDDLE | 0b11);
    write_entry(root, 0, UPPER | 0b11);
    store(&raw const machine_ap_root, root);
    store(&raw const machine_ap_entry, start as *const () as u64);
    for (index, apic_id) in APIC_IDS.iter().enumerate().take(count).skip(1) {
        store(&raw const machine_ap_stack, stack::make(index));
        store(&raw const machine_ap_index, index as u64);
        // QEMU numbers them one after the other.
        apic_id.store(index as u32, Ordering::Relaxed);
        apic::start(index as u32, (CODE >> 12) as u8);
        while cpus() != index + 1 {
            core::hint::spin_loop();
        }
    }
    clear_lower_half();
}

extern "C" fn start(index: usize) -> ! {
    cpu::init(index);
    STARTED.fetch_add(1, Ordering::Release);
    MAIN.get().expect("set before the first start")()
}

/// Takes what the boot loader has mapped there out of the lower half, which is for programs.
pub fn clear_lower_half() {
    let root = Cr3::read().0.start_address().as_u64();
    (0..256).for_each(|index| write_entry(root, index, 0));
    x86_64::instructions::tlb::flush_all();
}
