//! [`PhysRun`]: frames that were acquired together.

#![forbid(unsafe_code)]

use core::fmt;

use super::Pfn;

/// Runs are not merged beyond this, so that one more table's pages always fit the counter.
pub(crate) const MAX_RUN_PAGES: u32 = 1 << 31;

/// More than the largest leaf has, and little enough for sums.
const MAX_ORDER: u8 = 32;

/// Beside the order: all pins of each frame. What looks at runs of base pages passes these by without a test of its own.
const SOLE: u32 = 1 << 7;

/// Consecutive frames that were acquired in the same way.
///
/// A run of base pages (`order` 0) holds one count on each frame. A run of large leaves holds one count on the head
/// frame of each leaf it touches, however many of its pages it covers. Contiguity is what the walker saw in the
/// entries, never a guess from the frame table.
///
/// ```
/// use pagepin::{Pfn, pin::PhysRun};
/// let run = PhysRun::from_parts(Pfn::new(0x1f), 3, 0);
/// assert_eq!((run.first(), run.end(), run.pages()), (Pfn::new(0x1f), Pfn::new(0x22), 3));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct PhysRun {
    pub(crate) first: u64,
    pub(crate) pages: u32,
    /// And [`SOLE`]. As wide as the pages, so that one comparison looks at both.
    pub(crate) order: u32,
}

impl PhysRun {
    /// `pages` frames from `first`, in leaves of `1 << order` pages. For runs that come back through a foreign ABI.
    #[must_use]
    pub const fn from_parts(first: Pfn, pages: u32, order: u8) -> Self {
        Self { first: first.number(), pages, order: order as u32 }
    }

    /// All but the first frame, in the low 40 bits.
    #[inline(always)]
    pub(crate) const fn shape(&self) -> u64 {
        self.pages as u64 | (self.order as u64) << 32
    }

    /// A run of this [`shape`](Self::shape); what is above is of no interest.
    pub(crate) const fn of_shape(first: Pfn, shape: u64) -> Self {
        Self { first: first.number(), pages: shape as u32, order: (shape >> 32) as u8 as u32 }
    }

    /// The first frame.
    #[must_use]
    #[inline(always)]
    pub const fn first(&self) -> Pfn {
        Pfn::new(self.first)
    }

    /// Number of base pages; 0 only in an unused place of a buffer.
    #[must_use]
    #[inline(always)]
    pub const fn pages(&self) -> u64 {
        self.pages as u64
    }

    /// log2 of the pages in each leaf.
    #[must_use]
    #[inline(always)]
    pub const fn order(&self) -> u8 {
        (self.order & !SOLE) as u8
    }

    /// Whether it holds all pins of each frame ([`PinFlags::SOLE`](crate::pin::PinFlags::SOLE)).
    #[must_use]
    #[inline(always)]
    pub const fn is_sole(&self) -> bool {
        self.order & SOLE != 0
    }

    /// The same frames, with all pins of each. For runs that come back through a foreign ABI.
    #[must_use]
    pub const fn sole(self) -> Self {
        Self { order: self.order | SOLE, ..self }
    }

    /// Whether it holds one count on one base page.
    #[inline(always)]
    pub(crate) fn is_one_base_page(&self) -> bool {
        self.shape() == 1
    }

    /// Whether it holds one count on each base page.
    #[inline(always)]
    pub(crate) const fn is_of_base_pages(&self) -> bool {
        self.order == 0
    }

    /// Base pages that its counts keep: all of each large leaf that it has a part of. What a budget is charged for it.
    ///
    /// ```
    /// use pagepin::{Pfn, pin::PhysRun};
    /// // One page of a leaf of 2 MiB: the pin holds all of the leaf.
    /// assert_eq!(PhysRun::from_parts(Pfn::new(0x203), 1, 9).held_pages(), 512);
    /// ```
    #[must_use]
    #[inline(always)]
    pub const fn held_pages(&self) -> u64 {
        // No leaf is larger; a run from elsewhere may say so.
        let order = if self.order() < MAX_ORDER { self.order() } else { MAX_ORDER };
        let block = 1u64 << order;
        ((self.first & (block - 1)) + self.pages as u64).next_multiple_of(block)
    }

    /// The frame after the last.
    #[must_use]
    #[inline(always)]
    pub const fn end(&self) -> Pfn {
        Pfn::new(self.first + self.pages as u64)
    }

    /// Whether its counts keep `frame`: one of its frames, or of a leaf that it has a part of.
    pub(crate) fn keeps(&self, frame: Pfn) -> bool {
        let last = self.first + u64::from(self.pages.max(1)) - 1;
        let block = |number: u64| number >> self.order();
        (block(self.first)..=block(last)).contains(&block(frame.number()))
    }

    /// The frames whose words are counted: the heads of the leaves.
    pub(crate) fn heads(&self) -> impl Iterator<Item = Pfn> + use<> {
        let (step, end) = (1u64 << self.order(), self.end());
        let mut next = self.first().block_start(self.order());
        // Not `step_by`, which divides to know how often.
        core::iter::from_fn(move || {
            let head = next;
            next = head.offset(step);
            (head < end).then_some(head)
        })
    }

    /// Whether another run comes right after it. Runs of large leaves merge only at a leaf's edge; otherwise the leaf in
    /// the middle would be counted once and held twice.
    #[inline(always)]
    pub(crate) fn continues_with(&self, next: &PhysRun) -> bool {
        self.order == next.order
            && self.end() == next.first()
            && next.first() == next.first().block_start(next.order())
            && self.pages < MAX_RUN_PAGES
    }

    /// The part of a run after its first `pages`, which end at a leaf's edge.
    pub(crate) fn after(&self, pages: u32) -> Self {
        Self { first: self.first + u64::from(pages), pages: self.pages - pages, order: self.order }
    }
}

impl fmt::Debug for PhysRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysRun({:#x} + {}", self.first, self.pages)?;
        if self.order() != 0 {
            write!(f, ", order {}", self.order())?;
        }
        if self.is_sole() {
            f.write_str(", sole")?;
        }
        f.write_str(")")
    }
}
