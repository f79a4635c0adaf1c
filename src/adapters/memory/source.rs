//! [`BuddySource`]: the free lists behind a lock, as the library's [`FrameSource`].

use core::fmt;

use spin::relax::Spin;

use super::lists::{Lists, largest_block};
use crate::adapters::interrupts;
use crate::addr::Pfn;
use crate::env::{FrameRequest, FrameSource, Zone};
use crate::primitive::SpinMutex;

/// Frames that are given back in one hold of the lock, at most.
const FRAMES_AT_ONCE: u64 = 1 << 9;

/// Which physical addresses a device or processor reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// 20 bits: where other CPUs start.
    Below1MiB,
    /// 32 bits.
    Below4GiB,
    /// All.
    Anywhere,
}

impl Reach {
    /// How many zones, from the lowest.
    const fn zones(self) -> usize {
        match self {
            Self::Below1MiB => 1,
            Self::Below4GiB => 2,
            Self::Anywhere => 3,
        }
    }
}

/// A frame source that frees: a buddy allocator with blocks of up to 1 GiB, made by
/// [`frames_from_regions`](super::frames_from_regions).
///
/// - A call does one step for each order, and no more while it holds the lock: what comes back as a long run goes
///   in pieces.
/// - High memory goes first, so that what few devices reach is there when they ask: see [`BuddySource::allocate_within`].
/// - Frames for page tables are kept together, so that they do not break up the memory of large leaves.
/// - What is given back although it was not handed out, or not as one aligned block, is refused and counted
///   ([`BuddySource::refused`]): the lists stay as they are.
///
/// The lock is held with interrupts off: by itself in ring 0 with feature `instructions`; without that feature, by the
/// kernel around each use. Its holder waits for nothing.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// let source = kernel.source();
/// let free = source.free_frames();
/// let buffer = source.allocate_within(Reach::Below4GiB, 2).unwrap(); // four frames for a device
/// assert_eq!(source.free_frames(), free - 4);
/// // SAFETY: it was just taken.
/// unsafe { source.free(buffer, 2) };
/// // SAFETY: it is not: refused.
/// unsafe { source.free(buffer, 2) };
/// assert_eq!((source.free_frames(), source.refused()), (free, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BuddySource<'a> {
    lists: SpinMutex<Lists<'a>, Spin>,
    zero_frame: Option<Pfn>,
}

impl<'a> BuddySource<'a> {
    /// # Safety
    /// The frames of `lists` are used by nobody, reachable through the kernel's `PhysMap` and in its frame table.
    pub(super) unsafe fn new(lists: Lists<'a>) -> Self {
        Self { lists: SpinMutex::new(lists), zero_frame: None }
    }

    /// # Safety
    /// `zero` holds zeroes, which nobody changes.
    pub(super) unsafe fn with_zero_frame(self, zero: Pfn) -> Self {
        Self { zero_frame: Some(zero), ..self }
    }

    #[inline(always)]
    fn with<T>(&self, work: impl FnOnce(&mut Lists<'a>) -> T) -> T {
        interrupts::kept_out(|| work(&mut self.lists.lock()))
    }

    /// A block of `1 << order` frames for the kernel itself that `reach` reaches: a buffer of a device, the page where CPUs
    /// start, a heap. `None`: there is none.
    ///
    /// It is used by nobody, and goes back by [`FrameSource::free`].
    #[must_use]
    pub fn allocate_within(&self, reach: Reach, order: u8) -> Option<Pfn> {
        self.with(|lists| lists.allocate(order, Zone::Unmovable, reach.zones()))
    }

    /// How many frames are free: the same before and after a process, if none is lost.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.with(|lists| lists.free_frames())
    }

    /// How many blocks were refused as they came back. Each was a bug of who freed it.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.with(|lists| lists.refused())
    }
}

// SAFETY: a block is handed out once until it comes back, aligned, since the lists have it once and the bits believe nobody;
// what the frames are is the constructor's caller's word. No method calls anything else, and the lock is taken with
// interrupts off.
unsafe impl FrameSource for BuddySource<'_> {
    #[inline]
    fn allocate(&self, request: FrameRequest) -> Option<Pfn> {
        self.with(|lists| match request {
            FrameRequest { order: 0, zone: Zone::Movable } => lists.allocate_single(),
            FrameRequest { order, zone } => lists.allocate(order, zone, Reach::Anywhere.zones()),
        })
    }

    #[inline]
    unsafe fn free(&self, frame: Pfn, order: u8) {
        self.with(|lists| lists.free(frame, order));
    }

    unsafe fn free_run(&self, first: Pfn, count: u64) {
        let (mut at, end) = (first.number(), first.number().saturating_add(count));
        while at < end {
            at = self.with(|lists| free_some(lists, at, end));
        }
    }

    fn zero_frame(&self) -> Option<Pfn> {
        self.zero_frame
    }
}

/// Gives back some frames from `at` on, as the largest blocks they make; returns the first that is left.
fn free_some(lists: &mut Lists<'_>, mut at: u64, end: u64) -> u64 {
    let stop = end.min(at.saturating_add(FRAMES_AT_ONCE));
    while at < stop {
        let order = largest_block(at, stop - at);
        if !lists.try_free(Pfn::new(at), order) {
            // Some of them are not to be given back; the others are.
            for number in at..at + (1 << order) {
                lists.free(Pfn::new(number), 0);
            }
        }
        at += 1 << order;
    }
    stop
}

impl fmt::Debug for BuddySource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, refused) = self.with(|lists| (lists.free_frames(), lists.refused()));
        f.debug_struct("BuddySource").field("free_frames", &free).field("refused", &refused).finish_non_exhaustive()
    }
}
