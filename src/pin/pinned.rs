//! [`PinnedPages`]: what the pin family returns, possibly less than was asked for.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use super::collected::Collected;
use super::release::release_runs;
use super::{Access, PhysRun, PinError, PinFlags, PinnedRange, RunBuffer, Stopped};
use crate::addr::UserRange;
use crate::env::{Env, PinBudget};
use crate::frame::Dirty;

/// Pinned pages of a user range: the first [`pages`](Self::pages) of it, at least one.
///
/// Dropping it unpins them (from any context, interrupts included) and marks them dirty if they were pinned for
/// [`Write`](super::Write). Leaking it leaks the pins, which keeps the memory allocated and is otherwise harmless.
#[must_use = "dropping it unpins the pages at once"]
pub struct PinnedPages<'k, K: Env, A: Access, B: RunBuffer> {
    env: &'k K,
    budget: &'k dyn PinBudget,
    flags: PinFlags,
    collected: Collected<B>,
    access: PhantomData<A>,
}

impl<'k, K: Env, A: Access, B: RunBuffer> PinnedPages<'k, K, A, B> {
    #[inline(always)]
    pub(super) fn new(env: &'k K, budget: &'k dyn PinBudget, flags: PinFlags, collected: Collected<B>) -> Self {
        Self { env, budget, flags, collected, access: PhantomData }
    }

    /// The pinned frames, in the order of the range.
    #[must_use]
    pub fn runs(&self) -> &[PhysRun] {
        self.collected.runs()
    }

    /// Number of base pages pinned.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.collected.pages()
    }

    /// The range that was asked for.
    #[must_use]
    pub fn range(&self) -> UserRange {
        self.collected.range
    }

    /// Why this is not the whole range; `None` if it is.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        self.collected.stopped()
    }

    /// All or nothing: the whole range, or the reason why it is not, with everything unpinned again.
    ///
    /// # Errors
    /// What stopped the acquisition.
    pub fn complete(self) -> Result<PinnedRange<'k, K, A, B>, PinError> {
        match self.collected.acquired.stopped {
            None => Ok(PinnedRange::new(self)),
            Some(reason) => Err(reason),
        }
    }

    /// Gives the pins away without unpinning: for completion interrupts and foreign ABIs. They come back through
    /// [`from_raw`](Self::from_raw) or [`unpin_user_pages`](super::unpin_user_pages). The charge on the budget goes
    /// with them.
    pub fn into_raw(self) -> RawPins<A, B> {
        let this = ManuallyDrop::new(self);
        // SAFETY: a field of a value that is alive and never dropped: what is read here has one owner from now on.
        let collected = unsafe { core::ptr::read(&raw const this.collected) };
        RawPins { collected, flags: this.flags, access: PhantomData }
    }

    /// Takes pins back from [`into_raw`](Self::into_raw).
    ///
    /// # Safety
    /// They were taken through the same kernel, and charged to `budget`.
    pub unsafe fn from_raw(env: &'k K, budget: &'k dyn PinBudget, pins: RawPins<A, B>) -> Self {
        Self::new(env, budget, pins.flags, pins.collected)
    }

    pub(super) fn env(&self) -> &'k K {
        self.env
    }
}

impl<K: Env, A: Access, B: RunBuffer> Drop for PinnedPages<'_, K, A, B> {
    #[inline]
    fn drop(&mut self) {
        release_runs::<K, true>(self.env, self.runs(), Dirty::when(A::WRITES));
        self.budget.uncharge(self.pages(), self.flags.term());
    }
}

impl<K: Env, A: Access, B: RunBuffer> fmt::Debug for PinnedPages<'_, K, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedPages").field("range", &self.range()).field("runs", &self.runs()).finish_non_exhaustive()
    }
}

/// Pins without a guard.
#[must_use = "these pins are released by nobody unless they are taken back"]
#[derive(Debug)]
pub struct RawPins<A: Access, B: RunBuffer> {
    collected: Collected<B>,
    flags: PinFlags,
    access: PhantomData<A>,
}

impl<A: Access, B: RunBuffer> RawPins<A, B> {
    /// The pinned frames.
    #[must_use]
    pub fn runs(&self) -> &[PhysRun] {
        self.collected.runs()
    }

    /// Base pages pinned, and charged to the budget.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.collected.pages()
    }
}
