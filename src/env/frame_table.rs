//! [`FrameTable`]: from a frame number to its [`PageFrame`].

use crate::addr::Pfn;
use crate::frame::{Layout, PageFrame, Snapshot, Wide};

/// The `PageFrame`s of consecutive frames.
type Words<L> = [PageFrame<L>];

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

    /// Calls `look` with all `PageFrame`s, in slices of consecutive frames of which the first is named. Returns whether it did: a
    /// table that is not a list of slices need not. For diagnosis.
    fn for_each_span(&self, look: &mut dyn FnMut(Pfn, &Words<Self::Layout>)) -> bool {
        let _ = look;
        false
    }

    /// Calls `found` with each frame that somebody uses, and returns how many there are. When no address space is left and
    /// no pin is held, each is a leak. `None`: the table cannot be listed.
    ///
    /// ```
    /// # use pagepin::{FlatFrameTable, FrameTable, Pfn, frame::*};
    /// # let words: [PageFrame; 4] = [const { PageFrame::new() }; 4];
    /// # let table = unsafe { FlatFrameTable::new(Pfn::new(0), &words) };
    /// # unsafe { words[2].word() }.hand_out(FrameKind::Table, 0, Ownership::Shared).unwrap();
    /// let leaks = table.leaks(&mut |frame, word| println!("{frame:?}: {word:?}"));
    /// assert_eq!(leaks, Some(1));
    /// ```
    fn leaks(&self, found: &mut dyn FnMut(Pfn, Snapshot)) -> Option<u64> {
        let mut count = 0;
        let listed = self.for_each_span(&mut |first, words| {
            let words = words.iter().map(PageFrame::snapshot).enumerate();
            for (index, word) in words.filter(|(_, word)| !word.is_free()) {
                count += 1;
                found(first.offset(index as u64), word);
            }
        });
        listed.then_some(count)
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

    fn for_each_span(&self, look: &mut dyn FnMut(Pfn, &Words<T::Layout>)) -> bool {
        (**self).for_each_span(look)
    }
}

/// One slice for a contiguous stretch of memory.
///
/// ```
/// use pagepin::{FlatFrameTable, FrameTable, Pfn, frame::PageFrame};
/// static FRAMES: [PageFrame; 64] = [const { PageFrame::new() }; 64];
/// // SAFETY: the 64 frames from 0x100 on are ordinary memory, in no other table.
/// let table = unsafe { FlatFrameTable::new(Pfn::new(0x100), &FRAMES) };
/// assert!(table.frame(Pfn::new(0x13f)).is_some() && table.frame(Pfn::new(0x140)).is_none());
/// ```
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

    fn for_each_span(&self, look: &mut dyn FnMut(Pfn, &[PageFrame<L>])) -> bool {
        look(self.first, self.frames);
        true
    }
}
