//! All that this kernel has to do with its memory, on several CPUs.

use alloc::sync::Arc;

use bootloader::bootinfo::{BootInfo, MemoryRegionType};
use machine::{apic, cpu, startup};
use pagepin::{fault::FaultError, pin::*, space::*, *};
use x86_64::structures::idt::PageFaultErrorCode;

type Smp = IpiShootdown<Machine, { cpu::MAX }>;
type Kernel = BootPlatform<&'static Smp, &'static Smp, Answer>;
pub type Space = UserSpace<&'static Kernel>;
pub type Lent = AnyPinned<Owner<&'static Kernel, Unlimited>, [PhysRun; 2]>;

static KERNEL: spin::Once<(Kernel, KernelHalf)> = spin::Once::new();
pub static SMP: Smp = IpiShootdown::new(Machine);
pub static CURRENT: CurrentSpace<Arc<Space>, Machine, { cpu::MAX }> = CurrentSpace::new(Machine);

#[derive(Debug)]
pub struct Machine;

// SAFETY: GS leads to a number of each CPU's own; the kernel does not preempt itself.
unsafe impl CurrentCpu for Machine {
    fn current_cpu(&self) -> usize {
        cpu::current()
    }
}

// SAFETY: the handler of the interrupt calls `SMP.answer()`, and so do all locks here (`Answer`); every CPU joins first, on
// the boot loader's root.
unsafe impl Cpus for Machine {
    fn interrupt(&self, cpu: usize) {
        apic::interrupt(cpu);
    }
}

/// What a CPU does while it waits for a lock.
pub struct Answer;

impl spin::RelaxStrategy for Answer {
    fn relax() {
        SMP.answer();
        core::hint::spin_loop();
    }
}

/// Once, at boot, while the boot loader's root is loaded and nothing is in its lower half.
pub fn init(boot: &BootInfo) {
    let regions = boot.memory_map.iter().map(|region| {
        let is = if region.region_type == MemoryRegionType::Usable { Region::usable } else { Region::reserved };
        is(region.range.start_addr(), region.range.end_addr())
    });
    let regions = regions.chain([Region::taken(startup::TAKEN.start, startup::TAKEN.end)]);
    // SAFETY: the boot loader maps all memory at this offset, and nobody uses what it says is usable, but for the page where
    // CPUs start.
    let kernel: Kernel = unsafe {
        let map = OffsetPhysMap::new(boot.physical_memory_offset);
        Platform::from_regions(map, regions, &SMP, &SMP).expect("a map of memory")
    };
    // SAFETY: the boot loader's tables live for ever.
    let half = unsafe { KernelHalf::loaded(kernel.phys_map()) }.expect("all of the kernel in the upper half");
    KERNEL.call_once(|| (kernel, half));
}

pub fn new_space() -> Result<Space, SpaceError> {
    let (kernel, half) = KERNEL.wait();
    UserSpace::new(kernel, SpaceOptions::new(*half))
}

/// From CR2, the error code and the instruction: where to go on, or why the program cannot.
pub fn page_fault(address: u64, code: u64, rip: u64) -> Result<u64, FaultError> {
    match CURRENT.page_fault(address, PageFaultErrorCode::from_bits_truncate(code), rip) {
        PageFault::Resolved => Ok(rip),
        PageFault::ResumeAt(fixup) => Ok(fixup),
        PageFault::Refused(error) => Err(error),
        PageFault::KernelBug => panic!("page fault at {rip:#x}, address {address:#x}"),
    }
}

/// User memory for a device, until the result is dropped; whatever the process does meanwhile.
pub fn lend(space: &Space, start: u64, length: u64, access: Access) -> Result<Lent, PinError> {
    let range = space.range(start, length)?;
    AnyPinned::pin(space, access, range, PinFlags::empty(), [PhysRun::default(); 2]).map(AnyPinned::into_owned)
}
