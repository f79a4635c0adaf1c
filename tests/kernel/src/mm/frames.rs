//! The frame allocator: the library's own, and a way to make it refuse.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pagepin::{BuddySource, Env, FrameRequest, FrameSource, Pfn};

use super::kernel;
use crate::memory;

/// How many frames are free: the same before and after a process, if none is lost.
pub fn free_count() -> u64 {
    let source = &kernel().source().0;
    assert_eq!(source.refused(), 0, "frames came back that were not handed out");
    source.free_frames()
}

static SCARCE: AtomicBool = AtomicBool::new(false);
/// Blocks that were asked for while they were scarce.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// Each of this number is refused.
const REFUSED: u64 = 8;

/// From now on some blocks of more than one frame are refused, as if there were none: or no longer.
pub fn make_blocks_scarce(scarce: bool) {
    SCARCE.store(scarce, Ordering::Relaxed);
}

fn is_refused() -> bool {
    SCARCE.load(Ordering::Relaxed) && ASKED.fetch_add(1, Ordering::Relaxed).is_multiple_of(REFUSED)
}

/// A cleared frame for the kernel's own use, never given back.
pub fn kernel_frame() -> Option<u64> {
    let frame = kernel().source().allocate(FrameRequest::unmovable(0))?.address();
    // SAFETY: the frame is RAM of the direct map and was free until now.
    unsafe { core::ptr::write_bytes(memory::direct(frame), 0, memory::PAGE as usize) };
    Some(frame)
}

/// The library's source, which runs out of blocks when it is told to.
#[derive(Debug)]
pub struct Frames(pub BuddySource<'static>);

// SAFETY: forwards to a source, or hands out nothing.
unsafe impl FrameSource for Frames {
    #[inline]
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        if request.order > 0 && is_refused() { None } else { self.0.allocate(request) }
    }

    #[inline]
    unsafe fn free(&self, frame: Pfn, order: u8) {
        // SAFETY: forwarded from the caller.
        unsafe { self.0.free(frame, order) };
    }

    unsafe fn free_run(&self, first: Pfn, count: u64) {
        // SAFETY: forwarded from the caller.
        unsafe { self.0.free_run(first, count) };
    }

    fn zero_frame(&self) -> Option<Pfn> {
        self.0.zero_frame()
    }
}
