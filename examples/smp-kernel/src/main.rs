//! The same on several CPUs: programs run on all of them, and fork, copy on write and end while others run. What the kernel
//! has to do for its memory is in `memory.rs`.
#![no_std]
#![no_main]

extern crate alloc;

mod memory;
#[path = "../../minimal-kernel/src/process.rs"]
mod process;

use bootloader::BootInfo;
use machine::{edu, println, stack, startup, trap};
use memory::{Answer as Relax, SMP};

const CPUS: usize = 4;
/// Programs at a time, each with a child.
const PROGRAMS: usize = 6;

bootloader::entry_point!(main);

fn main(boot: &'static BootInfo) -> ! {
    machine::init(boot.physical_memory_offset);
    SMP.join();
    trap::set_handlers(trap::Handlers {
        page_fault: |address, code, rip| memory::page_fault(address, code, rip).expect("no program is in ring 0"),
        flush: || SMP.answer(),
    });
    startup::start_others(CPUS, run_programs);
    memory::init(boot);
    assert!(edu::init(), "no device");
    let programs = [(); PROGRAMS].map(|()| process::start());
    let statuses = programs.map(process::run_until_end_of);
    let stacks = [0, 1, 2, 3].map(stack::used);
    println!("{} CPUs; the programs ended with {statuses:?}; bytes of stack: {stacks:?}", startup::cpus());
    machine::exit(startup::cpus() == CPUS && statuses == [0; PROGRAMS])
}

/// What the other CPUs do.
fn run_programs() -> ! {
    SMP.join();
    loop {
        process::run_one();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    machine::exit(false)
}
