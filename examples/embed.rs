//! pagepin in a small kernel with one CPU, in the style of blog_os: all the glue there is. It is
//! compiled, not run. The README quotes what is between the two marks; what is below them is what
//! such a kernel has anyway.
#![cfg(target_arch = "x86_64")]
#![no_std]
#![expect(dead_code, reason = "the rest of the kernel would call it")]

// <quoted>
use pagepin::{fault::*, pin::*, space::*, *};
use x86_64::{registers::control::Cr2, structures::idt::PageFaultErrorCode};

type Kernel = BootPlatform<SingleCpu, SingleCpu>; // walkers switch interrupts off; INVLPG
type Process = UserSpace<&'static Kernel>;

/// Once, at boot: the frames' words and the frame allocator come out of the boot loader's map.
fn make_kernel(boot: &BootInfo) -> Result<Kernel, RegionError> {
    let regions = boot.memory.iter().map(|r| match r.is_usable {
        true => Region::usable(r.start, r.end),
        false => Region::reserved(r.start, r.end),
    });
    // SAFETY: the boot loader maps all memory at the offset, and nobody uses what it says is
    // usable; there is one CPU, in ring 0.
    unsafe {
        let map = OffsetPhysMap::new(boot.physical_memory_offset);
        Platform::from_regions(map, regions, SingleCpu::new(), SingleCpu::new())
    }
}

/// What all processes share. An error names what would be lost when a root is loaded.
fn options(kernel: &Kernel) -> Result<SpaceOptions, KernelHalfError> {
    // SAFETY: in ring 0; the boot loader's tables live for ever.
    unsafe { KernelHalf::loaded(kernel.phys_map()) }.map(SpaceOptions::new)
}

/// The first process. Its root, `space.root()`, goes into CR3.
fn first_process(kernel: &'static Kernel) -> Result<Process, SpaceError> {
    UserSpace::new(kernel, options(kernel).expect("the kernel is in the upper half"))
}

/// The page-fault handler, for user code and for the kernel's copies from and to user memory.
/// Kill the process after an error.
fn page_fault(current: &Process, code: PageFaultErrorCode) -> Result<(), FaultError> {
    current.fault(fault_from_error_code(Cr2::read_raw(), code)).map(|_| ())
}

fn sys_mmap(current: &Process, length: u64) -> Result<u64, SpaceError> {
    let range = current.map_anywhere(length, Placement::new(), Rights::READ | Rights::WRITE)?;
    Ok(range.start())
}

fn sys_fork(current: &Process) -> Result<Process, ForkError> {
    current.fork()
}

/// A driver: the disk writes straight into user memory, even if the process forks.
fn sys_read(current: &Process, disk: &impl Disk, start: u64, len: u64) -> Result<(), PinError> {
    let pinned = current.pin(Write, current.range(start, len)?, [PhysRun::default(); 16])?;
    for bytes in pinned.byte_runs() {
        disk.read_to(bytes.address, bytes.length);
    }
    disk.wait();
    Ok(()) // dropping `pinned` marks the pages dirty and unpins them
}
// </quoted>

/// A device that writes to physical memory.
trait Disk {
    /// Starts to read into `length` bytes from the physical `address` on.
    fn read_to(&self, address: u64, length: u64);
    /// Returns when the device has stopped writing.
    fn wait(&self);
}

/// What a boot loader tells.
struct BootInfo {
    /// Where all physical memory is mapped.
    physical_memory_offset: u64,
    memory: &'static [MemoryRegion],
}

/// Some of the physical memory.
struct MemoryRegion {
    start: u64,
    end: u64,
    is_usable: bool,
}
