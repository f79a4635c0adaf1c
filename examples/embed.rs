//! pagepin in a small kernel with one CPU, in the style of blog_os: all the glue there is. It is
//! compiled, not run. The README quotes what is between the two marks; what is below them is what
//! such a kernel has anyway.
#![cfg(target_arch = "x86_64")]
#![no_std]
#![expect(dead_code, reason = "the rest of the kernel would call it")]

// <quoted>
use pagepin::{fault::*, frame::*, pin::*, space::*, *};
use x86_64::{registers::control::Cr2, structures::idt::PageFaultErrorCode};

type Kernel = Platform<
    OffsetPhysMap,
    FlatFrameTable<'static>,
    FrameAllocatorSource<MyFrames>,
    SingleCpu, // the walker's read side: interrupts off
    SingleCpu, // the TLB shootdown: INVLPG
>;
type Process = UserSpace<&'static Kernel>;

/// Once, at boot. `words` has one `PageFrame::new()` for each frame of memory.
fn make_kernel(offset: u64, words: &'static [PageFrame], free: MyFrames) -> Kernel {
    // SAFETY: the boot loader maps all memory at `offset`; `words` is the only table of
    // these frames; `free` hands out unused frames; there is one CPU, in ring 0.
    unsafe {
        Platform::new(
            OffsetPhysMap::new(offset),
            FlatFrameTable::new(Pfn::new(0), words),
            FrameAllocatorSource::new(free, None),
            SingleCpu::new(),
            SingleCpu::new(),
        )
    }
}

/// The first process. Its root, `space.root()`, goes into CR3.
fn first_process(kernel: &'static Kernel, half: KernelHalf) -> Result<Process, SpaceError> {
    let options = SpaceOptions::new(half);
    UserSpace::new(kernel, options)
}

/// The page-fault handler, for user code and for the kernel's copies from and to user memory.
/// Kill the process after an error.
fn page_fault(current: &Process, code: PageFaultErrorCode) -> Result<(), FaultError> {
    current.fault(fault_from_error_code(Cr2::read_raw(), code)).map(|_| ())
}

fn sys_mmap(current: &Process, start: u64, length: u64) -> Result<(), SpaceError> {
    current.map(start, length, Rights::READ | Rights::WRITE)
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

use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB};

/// A device that writes to physical memory.
trait Disk {
    /// Starts to read into `length` bytes from the physical `address` on.
    fn read_to(&self, address: u64, length: u64);
    /// Returns when the device has stopped writing.
    fn wait(&self);
}

/// The frames that nobody uses.
struct MyFrames {
    free: [Option<PhysFrame>; 1024],
    count: usize,
}

// SAFETY: a frame is given out once until it comes back.
unsafe impl FrameAllocator<Size4KiB> for MyFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        self.count = self.count.checked_sub(1)?;
        self.free.get_mut(self.count)?.take()
    }
}

impl FrameDeallocator<Size4KiB> for MyFrames {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        // A frame without a place is lost, not given out twice.
        if let Some(place) = self.free.get_mut(self.count) {
            *place = Some(frame);
            self.count += 1;
        }
    }
}
