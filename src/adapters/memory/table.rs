//! [`SpanFrameTable`]: a word for each frame of memory, and none for holes and devices.

use super::stretch::Stretches;
use crate::addr::Pfn;
use crate::env::{FlatFrameTable, FrameTable};
use crate::frame::{Layout, PageFrame, Wide};

/// The frame table that [`frames_from_regions`](super::frames_from_regions) makes: the words of each usable stretch side by side,
/// and nothing in between.
///
/// A frame of the largest stretch is found by one comparison, any other by a binary search among the stretches.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// let frames: u64 = kernel.frames().spans().map(|(_, words)| words.len() as u64).sum();
/// assert!(frames < 256 && frames > 250);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SpanFrameTable<'a, L: Layout = Wide> {
    largest: &'a [PageFrame<L>],
    words: &'a [PageFrame<L>],
    stretches: Stretches<'a>,
}

impl<'a, L: Layout> SpanFrameTable<'a, L> {
    /// # Safety
    /// The frames of `stretches` are ordinary memory and in no other frame table; `words` has one free word for each.
    pub(super) unsafe fn new(stretches: Stretches<'a>, words: &'a [PageFrame<L>]) -> Self {
        let (largest, _) = words.split_at(stretches.largest.frames as usize);
        Self { largest, words, stretches }
    }

    /// The same as a [`FlatFrameTable`], which finds a frame in an instruction or two less: if all memory is one stretch.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # use doc_kernel::Memory;
    /// let map = Memory::new();
    /// // SAFETY: the memory is this code's alone.
    /// let (frames, source) = unsafe { frames_from_regions::<Wide>(&map, [Region::usable(0, 1 << 20)]) }?;
    /// assert!(frames.into_flat().is_ok()); // one stretch
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The table as it is, if it has holes.
    pub fn into_flat(self) -> Result<FlatFrameTable<'a, L>, Self> {
        if !self.stretches.others.is_empty() {
            return Err(self);
        }
        // SAFETY: the same words for the same frames, as the constructor's caller vouched for, and this table is gone.
        Ok(unsafe { FlatFrameTable::new(Pfn::new(self.stretches.largest.first), self.largest) })
    }

    /// The stretches, each as its first frame and the words of all its frames.
    pub fn spans(&self) -> impl Iterator<Item = (Pfn, &'a [PageFrame<L>])> + '_ {
        self.stretches.all().map(|stretch| {
            let words = &self.words[stretch.place as usize..][..stretch.frames as usize];
            (Pfn::new(stretch.first), words)
        })
    }
}

// SAFETY: stretches are disjoint and so are their places, so each frame has a word of its own; that the frames are memory is
// the constructor's caller's word.
unsafe impl<L: Layout> FrameTable for SpanFrameTable<'_, L> {
    type Layout = L;

    #[inline(always)]
    fn frame(&self, frame: Pfn) -> Option<&PageFrame<L>> {
        match self.largest.get(frame.number().wrapping_sub(self.stretches.largest.first) as usize) {
            None => self.frame_elsewhere(frame),
            found => found,
        }
    }

    #[inline(always)]
    fn run(&self, first: Pfn, count: u64) -> Option<&[PageFrame<L>]> {
        let start = first.number().wrapping_sub(self.stretches.largest.first) as usize;
        match self.largest.get(start..start.wrapping_add(count as usize)) {
            None => self.run_elsewhere(first, count),
            found => found,
        }
    }

    fn for_each_span(&self, look: &mut dyn FnMut(Pfn, &[PageFrame<L>])) -> bool {
        self.spans().for_each(|(first, words)| look(first, words));
        true
    }
}

impl<L: Layout> SpanFrameTable<'_, L> {
    #[cold]
    #[inline(never)]
    fn frame_elsewhere(&self, frame: Pfn) -> Option<&PageFrame<L>> {
        self.words.get(self.stretches.find(frame.number())?.1 as usize)
    }

    #[cold]
    #[inline(never)]
    fn run_elsewhere(&self, first: Pfn, count: u64) -> Option<&[PageFrame<L>]> {
        let (stretch, _) = self.stretches.find(first.number())?;
        let place = stretch.run(first.number(), count)? as usize;
        self.words.get(place..place + count as usize)
    }
}
