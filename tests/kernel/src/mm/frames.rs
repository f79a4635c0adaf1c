//! The frame allocator: a bitmap, behind a lock that may be taken with interrupts off
//! (they always are).

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bitmap_allocator::{BitAlloc, BitAlloc1M};
use pagepin::{FrameRequest, FrameSource, Pfn};
use spin::mutex::SpinMutex;

use crate::{memory, poll::Poll};

/// Free frames, numbered from `first`.
struct Pool {
    bits: BitAlloc1M,
    first: u64,
    /// Number of free frames.
    free: u64,
}

static POOL: SpinMutex<Pool, Poll> = SpinMutex::new(Pool { bits: BitAlloc1M::DEFAULT, first: 0, free: 0 });

/// Before the first frame is needed.
pub fn init() {
    let frames = memory::free_frames();
    // Blocks of every order are aligned to frame numbers, so the bits are as well.
    let first = frames.start & !0xffff;
    let end = frames.end.min(first + BitAlloc1M::CAP as u64);
    let mut pool = POOL.lock();
    pool.first = first;
    pool.free = end - frames.start;
    pool.bits.insert((frames.start - first) as usize..(end - first) as usize);
}

/// How many frames are free: the same before and after a process, if none is lost.
pub fn free_count() -> u64 {
    POOL.lock().free
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
    let frame = Frames { zero: None }.allocate(FrameRequest::unmovable(0))?.address();
    // SAFETY: the frame is RAM of the direct map and was free until now.
    unsafe { core::ptr::write_bytes(memory::direct(frame), 0, memory::PAGE as usize) };
    Some(frame)
}

/// The pool as the library sees it.
#[derive(Debug)]
pub struct Frames {
    pub zero: Option<Pfn>,
}

// SAFETY: the pool holds frames of RAM that nobody else uses, all of them in the
// direct map and in the frame table; a bit is handed out once.
unsafe impl FrameSource for Frames {
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        let order = request.order;
        let mut pool = POOL.lock();
        let bit = match order {
            0 => pool.bits.alloc()?,
            _ if is_refused() => return None,
            _ => pool.bits.alloc_contiguous(None, 1 << order, usize::from(order))?,
        };
        pool.free -= 1 << order;
        Some(Pfn::new(pool.first + bit as u64))
    }

    unsafe fn free(&self, frame: Pfn, order: u8) {
        let mut pool = POOL.lock();
        let bit = (frame.number() - pool.first) as usize;
        let was_used = match order {
            0 => pool.bits.dealloc(bit),
            _ => pool.bits.dealloc_contiguous(bit, 1 << order),
        };
        assert!(was_used, "{frame:?} was freed twice");
        pool.free += 1 << order;
    }

    unsafe fn free_run(&self, first: Pfn, count: u64) {
        let mut pool = POOL.lock();
        let start = (first.number() - pool.first) as usize;
        let was_used = (start..start + count as usize).all(|bit| pool.bits.dealloc(bit));
        assert!(was_used, "one of {count} frames from {first:?} was freed twice");
        pool.free += count;
    }

    fn zero_frame(&self) -> Option<Pfn> {
        self.zero
    }
}
