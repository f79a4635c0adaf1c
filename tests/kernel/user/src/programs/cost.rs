//! What the ways into the kernel cost, in ticks of the cycle counter. Under
//! `-icount shift=0` a tick is an instruction.

use core::arch::{asm, x86_64::_rdtsc};

use pagepin_abi::{Call, FAULT_PROBE};

use crate::println;

const ROUNDS: u64 = 10_000;

fn ticks() -> u64 {
    // SAFETY: every x86_64 has the instruction, and ring 3 may use it.
    unsafe { _rdtsc() }
}

/// Prints the ticks per round of `body`, in hundredths.
fn report(name: &str, body: impl FnOnce(u64)) {
    let start = ticks();
    body(ROUNDS);
    let each = (ticks() - start) * 100 / ROUNDS;
    println!("@cost {name} {}.{:02}", each / 100, each % 100);
}

pub fn measure() {
    report("loop", |rounds| {
        // SAFETY: counts a register down.
        unsafe { asm!("2:", "dec {0}", "jnz 2b", inout(reg) rounds => _, options(nomem, nostack)) };
    });
    report("null_syscall_with_loop", |rounds| {
        // SAFETY: a call without effect, three instructions a round around it.
        unsafe {
            asm!("2:", "xor eax, eax", "syscall", "dec {0}", "jnz 2b",
                 inout(reg) rounds => _, out("rax") _, out("rcx") _, out("r11") _,
                 options(nostack));
        }
    });
    const { assert!(Call::Null as u64 == 0) };
    report("null_interrupt_with_loop", |rounds| {
        // SAFETY: as above.
        unsafe {
            asm!("2:", "xor eax, eax", "int 0x80", "dec {0}", "jnz 2b",
                 inout(reg) rounds => _, out("rax") _, options(nostack));
        }
    });
    report("fault_probe_with_loop", |rounds| {
        // SAFETY: the kernel steps over the two-byte load from this address.
        unsafe {
            asm!("2:", ".byte 0x8a, 0x07", "dec {0}", "jnz 2b",
                 inout(reg) rounds => _, in("rdi") FAULT_PROBE, out("al") _,
                 options(nostack));
        }
    });
}
