//! [`Pinned`]: what the pin family returns, possibly less than was asked for.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use super::collected::Collected;
use super::release::release_runs;
use super::{Lender, Owner, PhysRun, PinAccess, PinError, PinFlags, PinnedRange, RunBuffer, Stopped, Write};
use crate::addr::UserRange;
use crate::env::{Env, ExtraParts, PinBudget, PinLedger, Ticket};
use crate::frame::Dirty;

/// Pinned pages of a user range: the first [`pages`](Self::pages) of it, at least one.
///
/// Dropping it unpins them and marks them dirty if they were pinned for [`Write`]. That is possible in any context,
/// interrupts included, if dropping the buffer is: a `Vec` is given back to the heap, so who must not free memory takes it
/// back by [`release`](Self::release). Leaking the guard leaks the pins, which keeps the memory allocated and is otherwise
/// harmless.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let range = space.range(0x10000, 0x4000)?;
/// let pinned = pin_user_pages(&space, Write, range, PinFlags::empty(), [PhysRun::default(); 4])?.tagged(7);
/// let raw = pinned.into_raw(); // through a foreign ABI
/// // SAFETY: pinned through this space, above.
/// let pinned = unsafe { Pinned::from_raw(&space, raw) };
/// let _ = pinned.release_unwritten(); // nobody wrote after all
///
/// // Only as much as fits: the rest may go into another request.
/// let pinned = pin_user_pages(&space, Read, range, PinFlags::empty(), [PhysRun::default(); 1])?;
/// let (part, rest) = pinned.into_part();
/// assert_eq!(part.range().pages() + rest.map_or(0, |rest| rest.pages()), 4);
/// # drop(part);
///
/// let whole = pin_user_pages(&space, Read, range, PinFlags::empty(), [PhysRun::default(); 4])?;
/// let owned = whole.into_owned(); // independent of the space
/// drop(space);
/// let (_, runs) = owned.complete()?.release();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it unpins the pages at once"]
pub struct Pinned<L: Lender, A: PinAccess, B: RunBuffer> {
    lender: L,
    pins: RawPins<A, B, Ticket<L::Kernel>>,
}

/// Pinned pages of address space `S`, which they borrow.
pub type PinnedPages<'s, S, A, B> = Pinned<&'s S, A, B>;

/// Pinned pages that keep only kernel and budget: they may outlive their address space, be queued, and be released by a
/// completion interrupt. See [`Pinned::into_owned`].
pub type OwnedPins<K, C, A, B> = Pinned<Owner<K, C>, A, B>;

impl<L: Lender, A: PinAccess, B: RunBuffer> Pinned<L, A, B> {
    #[inline(always)]
    pub(super) fn new(lender: L, flags: PinFlags, collected: Collected<B>, ticket: Ticket<L::Kernel>) -> Self {
        Self { lender, pins: RawPins { collected, flags, ticket, access: PhantomData } }
    }

    /// The same pins, for somebody else in the kernel's [`PinLedger`]: a driver, a request, in a number of the kernel's own.
    pub fn tagged(self, tag: u64) -> Self {
        ledger(self.lender.kernel()).retag(self.pins.ticket, tag);
        self
    }

    /// The pinned frames, in the order of the range.
    #[must_use]
    pub fn runs(&self) -> &[PhysRun] {
        self.pins.runs()
    }

    /// Number of base pages pinned.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pins.pages()
    }

    /// How they were pinned.
    #[must_use]
    pub fn flags(&self) -> PinFlags {
        self.pins.flags
    }

    /// The range that was asked for.
    #[must_use]
    pub fn range(&self) -> UserRange {
        self.pins.collected.range
    }

    /// Why this is not the whole range; `None` if it is.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        self.pins.collected.stopped()
    }

    /// All or nothing: the whole range, or the reason why it is not, with everything unpinned again.
    ///
    /// # Errors
    /// What stopped the acquisition.
    pub fn complete(self) -> Result<PinnedRange<L, A, B>, PinError> {
        match self.pins.collected.acquired.stopped {
            None => Ok(PinnedRange::new(self)),
            Some(reason) => Err(reason),
        }
    }

    /// What is pinned as a range by itself, and what is missing of the one that was asked for.
    pub fn into_part(self) -> (PinnedRange<L, A, B>, Option<UserRange>) {
        let (lender, mut pins) = self.into_parts();
        let (part, rest) = pins.collected.range.split_after_pages(pins.collected.acquired.pages);
        pins.collected.range = part;
        pins.collected.acquired.stopped = None;
        (PinnedRange::new(Self { lender, pins }), rest)
    }

    /// Unpins the pages, as dropping the guard does, and hands back its parts: nothing is freed but what the pins kept.
    pub fn release(self) -> (L, B) {
        self.release_as(Dirty::when(A::WRITES))
    }

    fn release_as(self, dirty: Dirty) -> (L, B) {
        let (lender, pins) = self.into_parts();
        give_back(&lender, &pins, dirty);
        (lender, pins.collected.buffer)
    }

    /// Gives the pins away without unpinning: for foreign ABIs. They come back through [`from_raw`](Self::from_raw) or
    /// [`unpin_user_pages`](super::unpin_user_pages). The charge on the budget goes with them.
    pub fn into_raw(self) -> RawPins<A, B, Ticket<L::Kernel>> {
        self.into_parts().1
    }

    /// Takes pins back from [`into_raw`](Self::into_raw).
    ///
    /// # Safety
    /// They were taken through the lender's kernel. (A budget that was never charged for them becomes too large.)
    pub unsafe fn from_raw(lender: L, pins: RawPins<A, B, Ticket<L::Kernel>>) -> Self {
        Self { lender, pins }
    }

    /// Independent of the address space: with kernel and budget of its own.
    ///
    /// When both can be kept for ever (`&'static`, or counted), so can the result: a queue of requests may own it, and a
    /// completion interrupt may release it after the process has gone.
    pub fn into_owned(self) -> OwnedPins<L::Kernel, L::Budget, A, B>
    where
        L::Kernel: Clone,
        L::Budget: Clone,
    {
        let (lender, pins) = self.into_parts();
        Pinned { lender: Owner::new(lender.kernel().clone(), lender.budget().clone()), pins }
    }

    #[inline(always)]
    pub(super) fn into_parts(self) -> (L, RawPins<A, B, Ticket<L::Kernel>>) {
        let this = ManuallyDrop::new(self);
        // SAFETY: fields of a value that is alive and never dropped: what is read here has one owner from now on.
        unsafe { (core::ptr::read(&raw const this.lender), core::ptr::read(&raw const this.pins)) }
    }

    #[inline(always)]
    pub(super) fn lender(&self) -> &L {
        &self.lender
    }
}

impl<L: Lender, B: RunBuffer> Pinned<L, Write, B> {
    /// As [`release`](Self::release), of pages that nobody wrote after all: they are not marked dirty.
    pub fn release_unwritten(self) -> (L, B) {
        self.release_as(Dirty::No)
    }
}

/// The kernel's book about pins.
#[inline(always)]
pub(super) fn ledger<K: Env>(kernel: &K) -> &<K::Extras as ExtraParts>::Ledger {
    kernel.extras().ledger()
}

#[inline(always)]
fn give_back<L: Lender, A: PinAccess, B: RunBuffer>(lender: &L, pins: &RawPins<A, B, Ticket<L::Kernel>>, dirty: Dirty) {
    ledger(lender.kernel()).forget(pins.ticket);
    release_runs::<L::Kernel, true>(lender.kernel(), pins.runs(), dirty);
    lender.budget().uncharge(pins.charged_pages(), pins.flags.term());
}

impl<L: Lender, A: PinAccess, B: RunBuffer> Drop for Pinned<L, A, B> {
    #[inline]
    fn drop(&mut self) {
        give_back(&self.lender, &self.pins, Dirty::when(A::WRITES));
    }
}

impl<L: Lender, A: PinAccess, B: RunBuffer> fmt::Debug for Pinned<L, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("range", &self.range()).field("runs", &self.runs()).finish_non_exhaustive()
    }
}

/// Pins without a guard. `T` is the [`Ticket`] of the kernel's ledger, if it keeps one.
#[must_use = "these pins are released by nobody unless they are taken back"]
#[derive(Debug)]
pub struct RawPins<A: PinAccess, B: RunBuffer, T = ()> {
    pub(super) collected: Collected<B>,
    pub(super) flags: PinFlags,
    pub(super) ticket: T,
    pub(super) access: PhantomData<A>,
}

impl<A: PinAccess, B: RunBuffer, T> RawPins<A, B, T> {
    /// The pinned frames.
    #[must_use]
    pub fn runs(&self) -> &[PhysRun] {
        self.collected.runs()
    }

    /// Base pages pinned.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.collected.pages()
    }

    /// Base pages charged to the budget: those pinned, and the rest of each large leaf that they are a part of.
    #[must_use]
    pub fn charged_pages(&self) -> u64 {
        self.collected.held_pages()
    }

    /// How they were pinned: the term is the one charged.
    #[must_use]
    pub fn flags(&self) -> PinFlags {
        self.flags
    }
}
