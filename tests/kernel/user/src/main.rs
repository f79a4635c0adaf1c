//! Ring-3 programs of the test kernel: one executable, a number selects.
#![no_std]
#![no_main]

mod calls;
mod console;
mod programs;

use core::panic::PanicInfo;

use pagepin_abi::Program;

/// Exit code of a program that panicked.
const PANICKED: u32 = 101;

core::arch::global_asm!(
    r#"
.section .text._start, "ax"
.global _start
_start:
    xor ebp, ebp
    and rsp, -16
    call {start}
    ud2
.text
"#,
    start = sym start,
);

extern "C" fn start(program: u64, argument: u64) -> ! {
    let code = match Program::from_number(program) {
        Some(program) => programs::run(program, argument),
        None => 100,
    };
    calls::exit(code)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("ring 3: {info}");
    calls::exit(PANICKED)
}
