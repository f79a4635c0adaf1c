//! [`FrameWord`]: the atomic, and what all transitions are made of.

#![forbid(unsafe_code)]

mod block;
mod counts;
mod sharing;

use core::fmt;
use core::marker::PhantomData;

use super::{CountError, FrameKind, Layout, Ownership, Snapshot, Wide};
use crate::primitive::{AtomicU64, Ordering, const_fn, safeguard};

/// The word of one frame and the transitions it may make (see the [module text](super)).
///
/// By itself a word is a number, so everything here is safe to call. What the words of a kernel's frames stand for is
/// another matter: see [`PageFrame::word`](super::PageFrame::word).
///
/// ```
/// use pagepin::frame::{FrameKind, FrameWord, Ownership};
/// let word: FrameWord = FrameWord::new();
/// word.hand_out(FrameKind::Anonymous, 9, Ownership::Exclusive)?; // a block of 2 MiB
/// word.mark_dirty()?;
/// assert_eq!((word.kind(), word.order()), (FrameKind::Anonymous, 9));
/// let state = word.snapshot();
/// assert!(state.exclusive && state.dirty && state.refs == 1);
/// # Ok::<(), pagepin::frame::CountError>(())
/// ```
#[repr(transparent)]
pub struct FrameWord<L: Layout = Wide> {
    word: AtomicU64,
    layout: PhantomData<fn() -> L>,
}

/// How often a compare-and-exchange lost to another CPU is tried again is not bounded here: each loss means that some
/// other CPU's transition succeeded, so the system as a whole always moves.
impl<L: Layout> FrameWord<L> {
    const FREE: u64 = 0;
    const REF: u64 = L::REFS.one();
    const PIN: u64 = L::PINS.one();
    const GET: u64 = L::GETS.one();
    const COUNTS: u64 = L::REFS.mask() | L::GETS.mask() | L::PINS.mask();
    /// Everything that says whether and by whom the frame is used.
    const STATE: u64 = Self::COUNTS | L::EXCLUSIVE;
    const FROZEN_EXCLUSIVE: u64 = L::GETS.mask() | L::PINS.mask();
    const FROZEN_SHARED: u64 = Self::FROZEN_EXCLUSIVE - L::PINS.one();
    /// All pins, of a frame that can be pinned.
    const SOLE: u64 = L::PINS.mask() | L::EXCLUSIVE;
    /// The most pins a frame can have.
    pub const MAX_PINS: u64 = L::MAX_PINS;
    /// The most plain references a frame can have.
    pub const MAX_REFS: u64 = L::MAX_REFS;
    /// The most references of the get family: plain ones, unless the layout counts them by themselves.
    pub const MAX_GETS: u64 = if L::SEPARATE_GETS { L::GETS.max() } else { L::MAX_REFS };
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
        let frozen = L::frozen(word);
        let sole = Self::is_sole(word);
        let (refs, pins) = match (frozen, sole) {
            (true, _) => (0, 0),
            (_, true) => (L::refs(word), 1),
            _ => (L::refs(word), L::pins(word)),
        };
        Snapshot {
            refs: refs + pins,
            pins,
            sole,
            exclusive: word & L::EXCLUSIVE != 0 || word & Self::STATE == Self::FROZEN_EXCLUSIVE,
            frozen,
            dirty: word & L::DIRTY != 0,
            kind: FrameKind::from_bits(L::KIND.get(word)),
            order: L::ORDER.get(word) as u8,
        }
    }

    /// Whether the frame is `EXCLUSIVE`, whether it has one plain reference and no pin, and whether it is anonymous: what the
    /// copy-on-write decision asks of a frame that the caller's entry maps.
    #[inline(always)]
    pub(crate) fn exclusive_sole_and_anonymous(&self) -> (bool, bool, bool) {
        let word = self.load(Ordering::Acquire);
        let others = safeguard!(ClaimNeedsSoleReference => word & Self::COUNTS != Self::REF);
        (word & L::EXCLUSIVE != 0, !others, L::KIND.get(word) == FrameKind::Anonymous as u64)
    }

    /// Free -> one reference, as what the frame source has just handed out.
    ///
    /// # Errors
    /// [`CountError::NoSuchOrder`]: `order` is above [`FrameWord::MAX_ORDER`]. [`CountError::InUse`]: the word is not free;
    /// the frame source is broken.
    pub fn hand_out(&self, kind: FrameKind, order: u8, ownership: Ownership) -> Result<(), CountError> {
        if order > Self::MAX_ORDER {
            return Err(CountError::NoSuchOrder);
        }
        let exclusive = if ownership == Ownership::Exclusive { L::EXCLUSIVE } else { 0 };
        self.fill(Self::REF | exclusive | ((kind as u64) << L::KIND.shift) | (u64::from(order) << L::ORDER.shift))
    }

    /// As [`FrameWord::hand_out`] an anonymous frame that is exclusive, born pinned: one reference for the entry that is to map
    /// it, and one pin.
    ///
    /// # Errors
    /// [`CountError::InUse`].
    #[inline(always)]
    pub(crate) fn hand_out_pinned(&self) -> Result<(), CountError> {
        self.fill(Self::REF | Self::PIN | L::EXCLUSIVE | ((FrameKind::Anonymous as u64) << L::KIND.shift))
    }

    #[inline(always)]
    fn fill(&self, word: u64) -> Result<(), CountError> {
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

    /// Whether one pinner has all pins.
    #[inline(always)]
    fn is_sole(word: u64) -> bool {
        L::HAS_SOLE && word & L::EXCLUSIVE != 0 && L::PINS.get(word) > L::MAX_PINS
    }

    /// Plain references that a mapping may give back, where no others can be told from them.
    #[inline(always)]
    fn mappings(word: u64) -> u64 {
        // Only where the fields overlap has a frozen word any.
        if L::REFS.mask() & L::PINS.mask() != 0 && L::frozen(word) { 0 } else { L::REFS.get(word) }
    }

    /// Whether anyone may refer to the frame once more.
    #[inline(always)]
    fn in_use(word: u64) -> Result<(), CountError> {
        // Most frames have a plain reference, and then nothing else needs a look.
        if L::PLAIN.get(word) == 0 {
            if safeguard!(FreeRefuses => word & (L::GETS.mask() | L::PINS.mask()) == 0) {
                return Err(CountError::Free);
            }
            if L::frozen(word) {
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

impl<L: Layout> Default for FrameWord<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Layout> fmt::Debug for FrameWord<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.snapshot(), f)
    }
}

#[cfg(not(pagepin_checker))]
static_assertions::const_assert!(size_of::<FrameWord<Wide>>() == 8 && align_of::<FrameWord<Wide>>() == 8);
