// A kernel for the examples of the documentation: one CPU, 1 MiB of memory, and no processor that has the tables.

use pagepin::{BuddySource, FlushRange, Pfn, PhysMap, Platform, ReadSide, Region, Shootdown, SpanFrameTable};

/// Physical memory from 0 on.
pub(crate) struct Memory(Box<[u64]>);

// SAFETY: the bytes stay where they are for as long as this lives.
unsafe impl PhysMap for Memory {
    fn frame_ptr(&self, frame: Pfn) -> *mut u8 {
        let aligned = self.0.as_ptr().addr().next_multiple_of(4096) - self.0.as_ptr().addr();
        self.0.as_ptr().cast::<u8>().wrapping_add(aligned + frame.address() as usize).cast_mut()
    }
}

/// Read side and shootdown of one thread.
pub(crate) struct OneCpu;

// SAFETY: one thread.
unsafe impl ReadSide for OneCpu {
    type Guard<'a> = ();
    fn enter(&self) {}
    fn synchronize(&self) {}
}

// SAFETY: no processor has the tables.
unsafe impl Shootdown for OneCpu {
    fn flush(&self, _: Pfn, _: FlushRange) {}
}

/// The kernel.
pub(crate) type Kernel = Platform<Memory, SpanFrameTable<'static>, BuddySource<'static>, OneCpu, OneCpu>;

impl Memory {
    /// 1 MiB.
    pub(crate) fn new() -> Self {
        Self(vec![0; 257 * 512].into())
    }
}

/// Makes one.
pub(crate) fn kernel() -> Kernel {
    // SAFETY: the memory is this kernel's alone.
    unsafe { Platform::from_regions(Memory::new(), [Region::usable(0, 1 << 20)], OneCpu, OneCpu) }.unwrap()
}
