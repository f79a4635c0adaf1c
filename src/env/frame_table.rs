//! [`FrameTable`]: from a frame number to its [`PageFrame`].

use crate::addr::Pfn;
use crate::frame::{Layout, PageFrame, Wide};

/// The kernel's array of [`PageFrame`]s.
///
/// # Implementation safety
/// Always the same `PageFrame` for one frame number, by either method, different ones for different numbers, and `None` for
/// everything that is not ordinary memory (device registers, holes, memory owned by firmware or by another party): `Some`
/// is what permits a frame to be counted, copied and freed.
///
/// A word begins as [`PageFrame::new`](PageFrame::new) and changes only through the crate and [`PageFrame::word`].
pub unsafe trait FrameTable {
    /// How the words are packed.
    type Layout: Layout;

    /// The `PageFrame` of `frame`; `None` if it is not the kernel's ordinary memory.
    fn frame(&self, frame: Pfn) -> Option<&PageFrame<Self::Layout>>;

    /// The `PageFrame`s of `count` consecutive frames, if they are all there and consecutive in memory too. `None` only
    /// costs speed.
    #[inline(always)]
    fn run(&self, first: Pfn, count: u64) -> Option<&[PageFrame<Self::Layout>]> {
        let _ = (first, count);
        None
    }
}

// SAFETY: forwards to an implementation.
unsafe impl<T: FrameTable + ?Sized> FrameTable for &T {
    type Layout = T::Layout;

    #[inline(always)]
    fn frame(&self, frame: Pfn) -> Option<&PageFrame<T::Layout>> {
        (**self).frame(frame)
    }

    #[inline(always)]
    fn run(&self, first: Pfn, count: u64) -> Option<&[PageFrame<T::Layout>]> {
        (**self).run(first, count)
    }
}

/// One slice for a contiguous stretch of memory.
#[derive(Debug)]
pub struct FlatFrameTable<'a, L: Layout = Wide> {
    first: Pfn,
    frames: &'a [PageFrame<L>],
}

impl<'a, L: Layout> FlatFrameTable<'a, L> {
    /// `frames[i]` describes frame `first + i`. Costs 8 bytes for each 4 KiB of memory.
    ///
    /// # Safety
    /// All these frames are ordinary memory and in no other frame table, and their words are
    /// free. Frames that the kernel uses for itself may be among them: nothing touches a frame that was never handed
    /// out.
    #[must_use]
    pub const unsafe fn new(first: Pfn, frames: &'a [PageFrame<L>]) -> Self {
        Self { first, frames }
    }
}

// SAFETY: one slice element per frame number; the constructor's caller vouches for the memory.
unsafe impl<L: Layout> FrameTable for FlatFrameTable<'_, L> {
    type Layout = L;

    #[inline(always)]
    fn frame(&self, frame: Pfn) -> Option<&PageFrame<L>> {
        self.frames.get(frame.number().wrapping_sub(self.first.number()) as usize)
    }

    #[inline(always)]
    fn run(&self, first: Pfn, count: u64) -> Option<&[PageFrame<L>]> {
        let start = first.number().wrapping_sub(self.first.number()) as usize;
        self.frames.get(start..start.checked_add(count as usize)?)
    }
}
