//! The kernel heap: a first-fit list in frames taken aside at boot.

use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
};

use linked_list_allocator::Heap;
use spin::mutex::SpinMutex;

use crate::{memory, poll::Poll};

struct KernelHeap(SpinMutex<Heap, Poll>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(SpinMutex::new(Heap::empty()));

// SAFETY: `Heap` hands out disjoint, aligned blocks of the memory given to it, and
// the lock serialises the callers.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller says that `alloc` returned this block for this layout.
            unsafe { self.0.lock().deallocate(block, layout) };
        }
    }
}

pub fn init() {
    let frames = memory::heap_frames();
    let bytes = (frames.end - frames.start) * memory::PAGE;
    // SAFETY: these frames are RAM, mapped, contiguous, set aside for this purpose
    // alone, and this runs once.
    unsafe {
        HEAP.0.lock().init(memory::direct(frames.start * memory::PAGE), bytes as usize);
    }
}
