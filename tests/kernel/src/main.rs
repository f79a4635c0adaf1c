//! Test kernel: everything around the library under test, which is plugged in at
//! `mm.rs`. One image serves all modes; `opt/pagepin/mode` of fw_cfg selects.
#![no_std]
#![no_main]

extern crate alloc;

mod apic;
mod console;
mod cpu;
mod disk;
mod edu;
mod exit;
mod fw_cfg;
mod gdt;
mod heap;
mod idt;
mod iommu;
mod ipi;
mod kernel_trap;
mod loader;
mod memory;
mod mm;
mod modes;
mod notes;
mod pci;
mod percpu;
mod poll;
mod process;
mod sched;
mod shootdown;
mod single_step;
mod smp;
mod syscall;
mod time;
mod trap;

use core::panic::PanicInfo;

use bootloader::BootInfo;

use crate::exit::{ExitCode, exit};

bootloader::entry_point!(main);

fn main(boot: &'static BootInfo) -> ! {
    memory::init(boot);
    console::init();
    heap::init();
    apic::mask_legacy();
    smp::init_this_cpu(0);
    time::init();
    mm::init();
    let mode = fw_cfg::string("opt/pagepin/mode");
    let mode = mode.as_deref().unwrap_or("test").trim();
    if mode == "test" {
        modes::five_levels::visit();
    }
    smp::start_others();
    let device = edu::init().is_ok();
    if disk::init() {
        mm::store::init();
    }
    println!(
        "pagepin test kernel: {} cpus, {} MiB free, {} TSC ticks/us, edu {}",
        percpu::online().count(),
        (memory::free_frames().end - memory::free_frames().start) / 256,
        time::ticks_per_millisecond() / 1000,
        if device { "present" } else { "missing" },
    );
    let passed = modes::run(mode);
    exit(if passed { ExitCode::Success } else { ExitCode::Failure })
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::print_at_any_cost(format_args!("\n@panic {info}\n"));
    exit(ExitCode::Failure)
}
