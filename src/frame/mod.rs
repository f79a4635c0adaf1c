//! [`PageFrame`]: one atomic word per physical frame, and the transitions it may make.
//!
//! | transition | atomic step | refuses when |
//! |---|---|---|
//! | get | refs += 1 | free, frozen, overflow |
//! | pin | pins += 1 | free, frozen; anonymous and not EXCLUSIVE; never pinnable; overflow |
//! | put / unpin | the reverse; whoever takes both to 0 frees | underflow |
//! | share | clear EXCLUSIVE (and refs += 1 for fork) | pins != 0; free, frozen, overflow |
//! | claim | set EXCLUSIVE | refs != 1 or pins != 0 |
//! | freeze | refs n -> frozen | refs != n or pins != 0 |
//!
//! `refs` are the plain references; a pin keeps the frame allocated all by itself.
//!
//! Because references, pins and `EXCLUSIVE` are one word, "is it pinned?" and "forbid new pins" are one step (INV-4)
//! and a lockless pinner needs neither a sequence count nor a sequentially consistent fence against fork.
//!
//! # Orderings
//! Every successful transition is `AcqRel`. The release half of a `put`/`unpin` publishes this holder's accesses to
//! the frame; the acquire half of the one that takes refs to 0 receives all of them before the frame is reused. The
//! acquire half of `get`/`pin` pairs with the release of [`PageFrame::hand_out`], so that a pinner that reads a
//! recycled frame's word also sees the page-table change that preceded the recycling when it re-reads the entry.

#![forbid(unsafe_code)]

mod counts;
mod kind;
mod layout;
mod outcome;
mod sharing;
mod snapshot;

use core::fmt;
use core::marker::PhantomData;

pub use kind::FrameKind;
pub use layout::{Layout, Split23x8, Wide};
pub use outcome::{CountError, Dirty, Ownership, Released, Shared};
pub use snapshot::Snapshot;

use crate::primitive::{AtomicU64, Ordering, const_fn, safeguard};

/// The state of one physical frame, packed in one atomic word (see the [module text](self)).
///
/// All methods take `&self`: frames are shared by every CPU, and no `&mut PageFrame` to a live frame can be sound.
#[repr(transparent)]
pub struct PageFrame<L: Layout = Wide> {
    word: AtomicU64,
    layout: PhantomData<fn() -> L>,
}

/// How often a compare-and-exchange lost to another CPU is tried again is not bounded here: each loss means that some
/// other CPU's transition succeeded, so the system as a whole always moves.
impl<L: Layout> PageFrame<L> {
    const FREE: u64 = 0;
    const REF: u64 = L::REFS.one();
    const PIN: u64 = L::PINS.one();
    const COUNTS: u64 = L::REFS.mask() | L::PINS.mask();
    /// Everything that says whether and by whom the frame is used.
    const STATE: u64 = Self::COUNTS | L::EXCLUSIVE;
    const FROZEN_EXCLUSIVE: u64 = L::PINS.mask();
    const FROZEN_SHARED: u64 = L::PINS.mask() - L::PINS.one();
    /// The most pins a frame can have: the two values above mean "frozen".
    pub const MAX_PINS: u64 = L::PINS.max() - 2;
    /// The most plain references a frame can have.
    pub const MAX_REFS: u64 = L::REFS.max();
    /// The highest order a block can have.
    pub const MAX_ORDER: u8 = L::ORDER.max() as u8;

    const_fn! {
        /// A free frame.
        #[must_use]
        pub const fn new() -> Self {
            Self { word: AtomicU64::new(Self::FREE), layout: PhantomData }
        }
    }

    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        self.word.load(order)
    }

    /// May fail without a reason.
    #[inline(always)]
    fn exchange(&self, from: u64, to: u64) -> Result<u64, u64> {
        let success = safeguard!(WordOrdering: Ordering::AcqRel);
        self.word.compare_exchange_weak(from, to, success, Ordering::Relaxed)
    }

    /// The frame's kind. Stable only while the caller holds a reference.
    #[inline]
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        FrameKind::from_bits(L::KIND.get(self.load(Ordering::Relaxed)))
    }

    /// log2 of the number of frames this head stands for. Stable only while the caller holds a reference.
    #[inline]
    #[must_use]
    pub fn order(&self) -> u8 {
        L::ORDER.get(self.load(Ordering::Relaxed)) as u8
    }

    /// Notes that the frame's bytes were changed other than through a live mapping.
    ///
    /// # Errors
    /// [`CountError::Free`].
    #[inline]
    pub fn mark_dirty(&self) -> Result<(), CountError> {
        self.step(|word| if word == Self::FREE { Err(CountError::Free) } else { Ok(word | L::DIRTY) })?;
        Ok(())
    }

    /// A decoded copy of the state. Another CPU may have changed it by the time it is looked at.
    #[must_use]
    #[inline]
    pub fn snapshot(&self) -> Snapshot {
        let word = self.load(Ordering::Acquire);
        let frozen = Self::is_frozen(word);
        let pins = if frozen { 0 } else { L::PINS.get(word) };
        Snapshot {
            refs: L::REFS.get(word) + pins,
            pins,
            exclusive: word & L::EXCLUSIVE != 0 || word & Self::STATE == Self::FROZEN_EXCLUSIVE,
            frozen,
            dirty: word & L::DIRTY != 0,
            kind: FrameKind::from_bits(L::KIND.get(word)),
            order: L::ORDER.get(word) as u8,
        }
    }

    /// Whether the frame is `EXCLUSIVE`, and whether it has one plain reference and no pin: what the copy-on-write
    /// decision asks of a frame that the caller's entry maps.
    #[inline(always)]
    pub(crate) fn exclusive_and_sole(&self) -> (bool, bool) {
        let word = self.load(Ordering::Acquire);
        let others = safeguard!(ClaimNeedsSoleReference => word & Self::COUNTS != Self::REF);
        (word & L::EXCLUSIVE != 0, !others)
    }

    /// Free -> one reference, as what the frame source has just handed out.
    ///
    /// # Errors
    /// [`CountError::NoSuchOrder`]: `order` is above [`PageFrame::MAX_ORDER`]. [`CountError::InUse`]: the word is not free;
    /// the frame source is broken.
    pub fn hand_out(&self, kind: FrameKind, order: u8, ownership: Ownership) -> Result<(), CountError> {
        if order > Self::MAX_ORDER {
            return Err(CountError::NoSuchOrder);
        }
        let exclusive = if ownership == Ownership::Exclusive { L::EXCLUSIVE } else { 0 };
        let word = Self::REF | exclusive | ((kind as u64) << L::KIND.shift) | (u64::from(order) << L::ORDER.shift);
        self.step(|old| if old == Self::FREE { Ok(word) } else { Err(CountError::InUse) })?;
        Ok(())
    }

    /// The one compare-and-exchange loop: from the word as it is to what `next` makes of it, or nothing changes.
    #[inline(always)]
    fn step(&self, next: impl Fn(u64) -> Result<u64, CountError>) -> Result<u64, CountError> {
        let mut word = self.load(Ordering::Relaxed);
        loop {
            match self.exchange(word, next(word)?) {
                Ok(_) => return Ok(word),
                Err(now) => word = now,
            }
        }
    }

    const fn is_frozen(word: u64) -> bool {
        matches!(word & Self::STATE, state if state == Self::FROZEN_EXCLUSIVE || state == Self::FROZEN_SHARED)
    }

    /// Whether anyone may refer to the frame once more.
    #[inline(always)]
    fn in_use(word: u64) -> Result<(), CountError> {
        // Most frames have a plain reference, and then nothing else needs a look.
        if L::REFS.get(word) == 0 {
            if safeguard!(FreeRefuses => word & L::PINS.mask() == 0) {
                return Err(CountError::Free);
            }
            if Self::is_frozen(word) {
                return Err(CountError::Frozen);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn ref_is_possible(word: u64) -> Result<(), CountError> {
        Self::in_use(word)?;
        if L::REFS.get(word) == Self::MAX_REFS { Err(CountError::Overflow) } else { Ok(()) }
    }
}

impl<L: Layout> Default for PageFrame<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Layout> fmt::Debug for PageFrame<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.snapshot(), f)
    }
}

#[cfg(not(pagepin_checker))]
static_assertions::const_assert!(size_of::<PageFrame<Wide>>() == 8 && align_of::<PageFrame<Wide>>() == 8);
static_assertions::assert_impl_all!(PageFrame<Wide>: Send, Sync);
// A copy would be another word for the same frame.
static_assertions::assert_not_impl_any!(PageFrame<Wide>: Clone);
