//! What `virtio-drivers` asks of a kernel. Nothing here can fail but `dma_alloc`: what a device does not reach was bounced before.

use core::ptr::NonNull;

use pagepin::{Env, FrameSource, PAGE_SIZE, Pfn, PhysMap, Reach};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::memory::{kernel, offset};

pub struct KernelHal;

/// Where the kernel has this physical address: memory, or registers.
fn pointer(address: PhysAddr) -> NonNull<u8> {
    let start = kernel().0.phys_map().frame_ptr(Pfn::containing(address));
    NonNull::new(start.wrapping_add((address % PAGE_SIZE) as usize)).expect("the direct map is not at 0")
}

fn order(pages: usize) -> u8 {
    pages.next_power_of_two().ilog2() as u8
}

// SAFETY: blocks of the frame source are nobody else's, and the direct map has them; so it has registers.
unsafe impl Hal for KernelHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let Some(first) = kernel().0.source().allocate_within(Reach::Below4GiB, order(pages)) else {
            return (0, NonNull::dangling());
        };
        let start = pointer(first.address());
        // SAFETY: the block is this function's.
        unsafe { start.write_bytes(0, pages * PAGE_SIZE as usize) };
        (first.address(), start)
    }

    unsafe fn dma_dealloc(address: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: it is a block of `dma_alloc`, which nobody uses any more, says the caller.
        unsafe { kernel().0.source().free(Pfn::containing(address), order(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        pointer(address)
    }

    /// Pieces of a transfer and blocks of `dma_alloc` are in the direct map, and nothing else is shared here.
    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.addr().get() as u64 - offset()
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
