//! All that this kernel has to do with its memory.

use alloc::sync::Arc;

use bootloader::bootinfo::{BootInfo, MemoryRegionType};
use pagepin::{fault::FaultError, pin::*, space::*, *};
use x86_64::structures::idt::PageFaultErrorCode;

type Kernel = BootPlatform<SingleCpu, SingleCpu>;
pub type Space = UserSpace<&'static Kernel>;
pub type Lent = AnyPinned<Owner<&'static Kernel, Unlimited>, [PhysRun; 2]>;

static KERNEL: spin::Once<(Kernel, KernelHalf)> = spin::Once::new();
// SAFETY: one CPU, in ring 0, on the boot loader's root.
pub static CURRENT: CurrentSpace<Arc<Space>, SingleCpu, 1> = CurrentSpace::new(unsafe { SingleCpu::new() });

/// Once, at boot, while the boot loader's root is loaded and nothing is in its lower half.
pub fn init(boot: &BootInfo) {
    let regions = boot.memory_map.iter().map(|region| {
        let is = if region.region_type == MemoryRegionType::Usable { Region::usable } else { Region::reserved };
        is(region.range.start_addr(), region.range.end_addr())
    });
    // SAFETY: the boot loader maps all memory at this offset, and nobody uses what it says is usable; one CPU, in ring 0.
    let kernel: Kernel = unsafe {
        let map = OffsetPhysMap::new(boot.physical_memory_offset);
        Platform::from_regions(map, regions, SingleCpu::new(), SingleCpu::new()).expect("a map of memory")
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
