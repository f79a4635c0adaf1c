//! Control registers and the `syscall` instruction, set once on every CPU.

use x86_64::{
    VirtAddr,
    registers::{
        control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags},
        model_specific::{LStar, Msr, SFMask, Star},
        rflags::RFlags,
    },
};

use crate::{gdt, trap};

/// `IA32_PAT`: what the memory types of entries mean.
const PAT: Msr = Msr::new(0x277);

pub fn memory_types() -> u64 {
    // SAFETY: every processor with 64-bit mode has the register, and reading it changes nothing.
    unsafe { PAT.read() }
}

/// Whether this processor, and so all of them, can walk five levels of tables.
pub fn knows_five_levels() -> bool {
    const LA57: u32 = 1 << 16;
    core::arch::x86_64::__cpuid_count(7, 0).ecx & LA57 != 0
}

pub fn init() {
    // Boot code and trampoline switch these on. Without them the kernel would write
    // through read-only mappings and reserved bits would fault.
    assert!(Cr0::read().contains(Cr0Flags::WRITE_PROTECT), "CR0.WP is off");
    assert!(Efer::read().contains(EferFlags::NO_EXECUTE_ENABLE), "EFER.NXE is off");
    // SAFETY: neither the kernel nor the programs use floating point, and a program
    // that does gets an exception instead of another one's registers. Nothing here
    // uses global pages or process context identifiers.
    unsafe {
        Cr0::update(|cr0| cr0.insert(Cr0Flags::EMULATE_COPROCESSOR));
        Cr4::update(|cr4| {
            cr4.remove(Cr4Flags::PAGE_GLOBAL | Cr4Flags::PCID | Cr4Flags::FSGSBASE | Cr4Flags::OSFXSR);
        });
        Efer::update(|efer| efer.insert(EferFlags::SYSTEM_CALL_EXTENSIONS));
    }
    let mut pat = PAT;
    // SAFETY: only the field for write-combining changes, and no entry has used that one yet: nothing is cached by it.
    unsafe { pat.write(pagepin::MemoryType::PAT) };
    // The user half is never used, as every way back is an `iretq`.
    let user_base = gdt::KERNEL_DATA.0;
    // SAFETY: `syscall` takes the kernel's code segment from bits 32..48, and the
    // stack segment is the descriptor after it.
    unsafe { Star::write_raw(user_base, gdt::KERNEL_CODE.0) };
    LStar::write(VirtAddr::from_ptr(trap::syscall_entry()));
    // Whatever of the user's flags could disturb the kernel.
    SFMask::write(
        RFlags::INTERRUPT_FLAG
            | RFlags::TRAP_FLAG
            | RFlags::DIRECTION_FLAG
            | RFlags::NESTED_TASK
            | RFlags::ALIGNMENT_CHECK
            | RFlags::IOPL_LOW
            | RFlags::IOPL_HIGH,
    );
}
