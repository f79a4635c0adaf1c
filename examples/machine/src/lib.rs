//! What a kernel has beside memory: console, heap, segments, traps, ring 3, a device, other CPUs. Nothing here knows pagepin.
#![no_std]

extern crate alloc;

pub mod apic;
pub mod console;
pub mod cpu;
pub mod edu;
pub mod program;
pub mod stack;
pub mod startup;
pub mod trap;

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use linked_list_allocator::Heap;
use spin::mutex::SpinMutex;
use x86_64::instructions::{hlt, port::Port};

static DIRECT_MAP: AtomicU64 = AtomicU64::new(0);

/// Once, first of all. `direct_map` is where the boot loader has mapped all memory.
pub fn init(direct_map: u64) {
    DIRECT_MAP.store(direct_map, Ordering::Relaxed);
    console::init();
    stack::init();
    // SAFETY: the masks of the two old interrupt controllers, which would use the vectors of exceptions.
    unsafe {
        Port::<u8>::new(0x21).write(0xff_u8);
        Port::<u8>::new(0xa1).write(0xff_u8);
    }
    cpu::init(0);
}

/// Where physical memory and registers are mapped.
pub(crate) fn direct(address: u64) -> *mut u8 {
    ptr::with_exposed_provenance_mut((DIRECT_MAP.load(Ordering::Relaxed) + address) as usize)
}

/// Ends QEMU, by its `isa-debug-exit` device: with status 33 or 35.
pub fn exit(well: bool) -> ! {
    // SAFETY: the port is that device's, or nothing's.
    unsafe { Port::<u32>::new(0xf4).write(if well { 0x10 } else { 0x11 }) };
    loop {
        hlt();
    }
}

const HEAP_BYTES: usize = 1 << 20;

struct KernelHeap(SpinMutex<Option<Heap>>);

static mut MEMORY: [u8; HEAP_BYTES] = [0; HEAP_BYTES];

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(SpinMutex::new(None));

impl KernelHeap {
    fn with<T>(&self, work: impl FnOnce(&mut Heap) -> T) -> T {
        let mut heap = self.0.lock();
        // SAFETY: the array is used here alone, once, under the lock.
        work(heap.get_or_insert_with(|| unsafe { Heap::new((&raw mut MEMORY).cast(), HEAP_BYTES) }))
    }
}

// SAFETY: `Heap` hands out disjoint, aligned blocks. Kernel code runs with interrupts off, so no handler comes in between, and
// who holds the lock waits for nobody.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.with(|heap| heap.allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller says that `alloc` returned this block for this layout.
            self.with(|heap| unsafe { heap.deallocate(block, layout) });
        }
    }
}
