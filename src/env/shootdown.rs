//! [`Shootdown`]: TLB flushes that are over when the call returns.

use crate::addr::{PageAddr, Pfn};
use crate::arch::LeafSize;

/// Which translations to forget.
///
/// ```
/// use pagepin::{FlushRange, PageAddr};
/// let first = PageAddr::containing(0x10000);
/// assert_eq!(FlushRange::Leaves { first, pages: 3 }.pages(), Some((first, 3)));
/// assert_eq!(FlushRange::Everything.pages(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushRange {
    /// Those of `pages` pages from `first` on, of any leaf size. No table was unlinked: cached upper entries may stay, where a
    /// processor can tell them apart.
    Leaves {
        /// First page.
        first: PageAddr,
        /// Number of base pages.
        pages: u64,
    },
    /// The same, and the cached upper entries above them: tables were unlinked there.
    Pages {
        /// First page.
        first: PageAddr,
        /// Number of base pages.
        pages: u64,
    },
    /// Every user translation of the mm, and every cached upper entry.
    Everything,
}

impl FlushRange {
    /// The first page and how many there are, for who flushes upper entries along with the leaves; `None`: everything.
    #[must_use]
    pub const fn pages(self) -> Option<(PageAddr, u64)> {
        match self {
            Self::Leaves { first, pages } | Self::Pages { first, pages } => Some((first, pages)),
            Self::Everything => None,
        }
    }
}

/// The kernel's TLB shootdown.
///
/// # Implementation safety
/// When `flush` returns, no CPU has a translation of the range cached that it took from the tables under `root` before
/// the call, nor, unless the range is of leaves only, the upper entries on the way to it; that includes CPUs that hold the mm lazily or are just switching
/// to it, and every table root the mm has. If the kernel's [`ReadSide`](crate::ReadSide) relies on the interrupt, every
/// CPU that may be walking was interrupted.
///
/// When `before_execute` returns, a CPU that fetches instructions from those frames finds every byte that was written to
/// them before the call.
///
/// `flush` is called with the mm lock held, and for a single leaf with its entry owned, and possibly with interrupts off: a CPU that waits for
/// acknowledgements must answer other CPUs' requests meanwhile, and so must one that waits for a lock (see
/// [`Env::Relax`](crate::Env::Relax)).
pub unsafe trait Shootdown {
    /// Flushes `range` of the mm whose top table is `root` on all CPUs and returns after all have acknowledged.
    fn flush(&self, root: Pfn, range: FlushRange);

    /// The mm whose top table is `root` is about to end. Who loads roots ([`SwitchMm`](crate::SwitchMm)) makes every CPU that has
    /// still loaded it, without running in it, load another; it panics if one runs in it. Otherwise that is the business of
    /// who loads the roots, and this does nothing.
    fn leave_mm(&self, root: Pfn) {
        let _ = root;
    }

    /// Entries of the mm whose top table is `root` map what they did not, or permit more. On x86 nothing has to be done:
    /// a CPU remembers no absence, and a fault that finds the entry mended is spurious. Elsewhere (a barrier between the
    /// store and the next walk, a CPU that caches entries that are not valid) this is the place for what *this* CPU needs;
    /// others may fault once more.
    #[inline(always)]
    fn entries_added(&self, root: Pfn) {
        let _ = root;
    }

    /// A leaf of `size` over the frames from `frame` on is about to permit instruction fetches in the mm whose top table is
    /// `root`. Until now nobody could fetch through it: it was not there, or had not the right. The bytes of the frames may
    /// lie in a data cache alone, and what they were before in an instruction cache.
    ///
    /// On x86 nothing has to be done. Where fetches do not see stores: write the frames back from the data caches, then
    /// forget them in the instruction caches, of all CPUs (aarch64: `dc cvau`, `ic ivau` and barriers, as far as `CTR_EL0`
    /// asks for them; riscv64: `fence.i` on every hart, or on each before it next runs user code). A kernel may note that it
    /// has done so for a frame until the frame is freed or written again. The child of a fork is not reported where it shares
    /// a frame: its parent's leaf was. What user code or a device writes to a page that is executable already is
    /// theirs to make known. Others may wait for the entry, so it does not wait for them.
    #[inline(always)]
    fn before_execute(&self, root: Pfn, frame: Pfn, size: LeafSize) {
        let _ = (root, frame, size);
    }
}

// SAFETY: forwards to an implementation.
unsafe impl<T: Shootdown + ?Sized> Shootdown for &T {
    fn flush(&self, root: Pfn, range: FlushRange) {
        (**self).flush(root, range);
    }

    fn leave_mm(&self, root: Pfn) {
        (**self).leave_mm(root);
    }

    #[inline(always)]
    fn entries_added(&self, root: Pfn) {
        (**self).entries_added(root);
    }

    #[inline(always)]
    fn before_execute(&self, root: Pfn, frame: Pfn, size: LeafSize) {
        (**self).before_execute(root, frame, size);
    }
}
