//! A kernel with one CPU: ring 3, demand zero, fork, and a device that writes into pinned user memory meanwhile. What it has
//! to do for its memory is in `memory.rs`; console, traps and the device's driver are in `examples/machine`.
#![no_std]
#![no_main]

extern crate alloc;

mod memory;
mod process;

use bootloader::BootInfo;
use machine::{edu, println, stack, startup, trap};

/// What the locks do while they wait.
type Relax = spin::Spin;

bootloader::entry_point!(main);

fn main(boot: &'static BootInfo) -> ! {
    machine::init(boot.physical_memory_offset);
    startup::clear_lower_half();
    memory::init(boot);
    trap::set_handlers(trap::Handlers {
        page_fault: |address, code, rip| memory::page_fault(address, code, rip).expect("no program is in ring 0"),
        flush: || (),
    });
    assert!(edu::init(), "no device");
    let status = process::run_until_end_of(process::start());
    println!("the program ended with {status}; {} bytes of stack", stack::used(0));
    machine::exit(status == 0)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    machine::exit(false)
}
