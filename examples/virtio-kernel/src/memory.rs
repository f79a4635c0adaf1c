//! Frames, and what every root has of the kernel.

use bootloader::bootinfo::{BootInfo, MemoryRegionType};
use pagepin::{space::KernelHalf, *};

pub type Kernel = BootPlatform<SingleCpu, SingleCpu>;

static KERNEL: spin::Once<(Kernel, KernelHalf)> = spin::Once::new();
static OFFSET: spin::Once<u64> = spin::Once::new();

/// Once, at boot, on the boot loader's root.
pub fn init(boot: &BootInfo) {
    let regions = boot.memory_map.iter().map(|region| {
        let (start, end) = (region.range.start_addr(), region.range.end_addr());
        match region.region_type {
            MemoryRegionType::Usable => Region::usable(start, end),
            _ => Region::reserved(start, end),
        }
    });
    // SAFETY: the boot loader maps all memory at this offset, and nobody uses what it says is usable; one CPU, in ring 0.
    let kernel: Kernel = unsafe {
        let map = OffsetPhysMap::new(boot.physical_memory_offset);
        Platform::from_regions(map, regions, SingleCpu::new(), SingleCpu::new()).expect("a map of memory")
    };
    // SAFETY: in ring 0; the boot loader's tables live for ever.
    let half = unsafe { KernelHalf::take_over(kernel.phys_map()) };
    KERNEL.call_once(|| (kernel, half.expect("all of the kernel in the upper half")));
    OFFSET.call_once(|| boot.physical_memory_offset);
}

pub fn kernel() -> &'static (Kernel, KernelHalf) {
    KERNEL.wait()
}

/// Where the direct map begins.
pub fn offset() -> u64 {
    *OFFSET.wait()
}
