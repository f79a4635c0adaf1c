//! Physical memory: where the direct map is, which frames the bootloader left
//! over, and how they are split between the kernel heap, what plays a device's
//! memory, and everybody else.

use bootloader::{BootInfo, bootinfo::MemoryRegionType};
use pagepin_abi::DEVICE_PAGES;
use spin::Once;
use x86_64::{VirtAddr, registers::control::Cr3};

pub const PAGE: u64 = 4096;
pub const HEAP_PAGES: u64 = 4096;

/// A half-open range of page frame numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    pub start: u64,
    pub end: u64,
}

struct Layout {
    direct_map: u64,
    boot_root: u64,
    heap: Frames,
    free: Frames,
    device: Frames,
    /// The first 63 frames: a bit for each that is usable or was the bootloader's code.
    low_left_over: u64,
}

static LAYOUT: Once<Layout> = Once::new();

fn layout() -> &'static Layout {
    LAYOUT.get().expect("memory::init comes first")
}

/// Splits the largest usable region. Smaller ones stay unused.
pub fn init(boot: &BootInfo) {
    LAYOUT.call_once(|| {
        let largest = boot
            .memory_map
            .iter()
            .filter(|r| r.region_type == MemoryRegionType::Usable)
            .map(|r| Frames { start: r.range.start_frame_number, end: r.range.end_frame_number })
            .max_by_key(|f| f.end - f.start)
            .expect("the memory map has a usable region");
        let low_left_over = (0..63)
            .filter(|&pfn| {
                boot.memory_map.iter().any(|r| {
                    (r.range.start_frame_number..r.range.end_frame_number).contains(&pfn)
                        && matches!(r.region_type, MemoryRegionType::Usable | MemoryRegionType::Bootloader)
                })
            })
            .fold(0, |bits, pfn| bits | 1 << pfn);
        let split = largest.start + HEAP_PAGES;
        let device = largest.end.saturating_sub(DEVICE_PAGES);
        assert!(split < device, "not enough memory for the kernel heap");
        Layout {
            direct_map: boot.physical_memory_offset,
            boot_root: Cr3::read().0.start_address().as_u64(),
            heap: Frames { start: largest.start, end: split },
            free: Frames { start: split, end: device },
            device: Frames { start: device, end: largest.end },
            low_left_over,
        }
    });
}

/// Frames reserved for the kernel heap.
pub fn heap_frames() -> Frames {
    layout().heap
}

/// Frames nobody uses yet: all of them are RAM and in the direct map.
pub fn free_frames() -> Frames {
    layout().free
}

/// What programs can map as the memory of a device: not the pool's, so not the library's to count.
pub fn device_frames() -> Frames {
    layout().device
}

/// Top-level table of the bootloader: its upper half is the kernel's mapping, and
/// each process gets a copy of that half.
pub fn boot_root() -> u64 {
    layout().boot_root
}

/// Offset of the direct map: physical address `p` is mapped at `p + offset`.
pub fn direct_map_offset() -> u64 {
    layout().direct_map
}

/// Where physical address `phys` is mapped.
pub fn direct(phys: u64) -> *mut u8 {
    VirtAddr::new(layout().direct_map + phys).as_mut_ptr()
}

/// Stores one entry of a page table.
pub fn write_entry(table: u64, index: u64, entry: u64) {
    assert!(index < 512);
    let entries: *mut u64 = direct(table).cast();
    // SAFETY: a table is one page of the direct map, 512 words long. What the entry
    // means is up to the callers, all of which are boot code.
    unsafe { entries.add(index as usize).write_volatile(entry) };
}

/// Takes all out of the lower half of the boot loader's root, where other CPUs began.
pub fn clear_lower_half() {
    for index in 0..256 {
        write_entry(boot_root(), index, 0);
    }
    x86_64::instructions::tlb::flush_all();
}

/// Whether this frame is RAM that neither the kernel nor the firmware uses any more.
pub fn is_left_over(pfn: u64) -> bool {
    layout().low_left_over & 1 << pfn.min(63) != 0
}
