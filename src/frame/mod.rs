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

mod kind;
mod layout;
mod snapshot;

use core::fmt;

pub use kind::FrameKind;
pub use layout::{Field, Layout, Split23x8, SplitCell, Wide};
pub use snapshot::Snapshot;

use crate::primitive::Ordering;

/// Why a transition of a frame's word was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CountError {
    /// The frame has no references: free, or about to be.
    Free,
    /// The frame is frozen by a migration or split; retry later.
    Frozen,
    /// Anonymous and not `EXCLUSIVE`: unshare it first.
    NotExclusive,
    /// A zero frame, a page-table page, or a frame the crate did not hand out.
    NotPinnable,
    /// The reference or pin count is at its limit.
    Overflow,
    /// Released more often than acquired: a bug in the caller, caught before the count could wrap.
    Underflow,
    /// Pinned, so it cannot be shared, claimed or frozen.
    Pinned,
    /// There are other references than the caller accounted for; they may be momentary.
    Referenced,
    /// The frame was handed out although its word says that it is in use: a bug in the frame source.
    InUse,
}

impl fmt::Display for CountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "the frame is free",
            Self::Frozen => "the frame is frozen",
            Self::NotExclusive => "the frame is shared between address spaces",
            Self::NotPinnable => "frames of this kind are never pinned",
            Self::Overflow => "the count is at its limit",
            Self::Underflow => "released more often than acquired",
            Self::Pinned => "the frame is pinned",
            Self::Referenced => "the frame has other references",
            Self::InUse => "the frame source handed out a frame that is in use",
        })
    }
}

impl core::error::Error for CountError {}

/// What became of a frame when one of its references was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the caller that released the last reference owns the frame and must free it"]
pub enum Released {
    /// Others still hold it.
    Held {
        /// Some of them are pins.
        pinned: bool,
    },
    /// That was the last reference; the word is free. The caller now gives `1 << order` frames back to their source.
    Last {
        /// log2 of the number of frames.
        order: u8,
    },
}

/// What a successful share found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The frame was `EXCLUSIVE` until this step; an undo gives that back.
    pub was_exclusive: bool,
}

/// The state of one physical frame, packed in one atomic word (see the [module text](self)).
///
/// All methods take `&self`: frames are shared by every CPU, and no `&mut PageFrame` to a live frame can be sound.
#[repr(transparent)]
pub struct PageFrame<L: Layout = Wide> {
    cell: L::Cell,
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

    /// A free frame.
    #[must_use]
    pub fn new() -> Self {
        Self { cell: L::new(Self::FREE, 0) }
    }

    fn attributes_of(&self, word: u64) -> u64 {
        if L::ATTRIBUTES_IN_WORD { word } else { L::load_attributes(&self.cell) }
    }

    /// The frame's kind. Stable only while the caller holds a reference.
    #[inline]
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        FrameKind::from_bits(L::KIND.get(L::load_attributes(&self.cell)))
    }

    /// log2 of the number of frames this head stands for. Stable only while the caller holds a reference.
    #[inline]
    #[must_use]
    pub fn order(&self) -> u8 {
        L::ORDER.get(L::load_attributes(&self.cell)) as u8
    }

    /// Notes that the frame's bytes were changed other than through a live mapping.
    #[inline]
    pub fn mark_dirty(&self) {
        if L::load_attributes(&self.cell) & L::DIRTY == 0 {
            L::add_attributes(&self.cell, L::DIRTY);
        }
    }

    /// A decoded copy of the state. Another CPU may have changed it by the time it is looked at.
    #[must_use]
    #[inline]
    pub fn snapshot(&self) -> Snapshot {
        let word = L::load(&self.cell, Ordering::Acquire);
        let attributes = self.attributes_of(word);
        let frozen = Self::is_frozen(word);
        let pins = if frozen { 0 } else { L::PINS.get(word) };
        Snapshot {
            refs: L::REFS.get(word) + pins,
            pins,
            exclusive: word & L::EXCLUSIVE != 0 || word & Self::STATE == Self::FROZEN_EXCLUSIVE,
            frozen,
            dirty: attributes & L::DIRTY != 0,
            kind: FrameKind::from_bits(L::KIND.get(attributes)),
            order: L::ORDER.get(attributes) as u8,
        }
    }

    /// Whether the frame is `EXCLUSIVE`, and whether it has one plain reference and no pin: what the copy-on-write
    /// decision asks of a frame that the caller's entry maps.
    #[inline(always)]
    pub(crate) fn exclusive_and_sole(&self) -> (bool, bool) {
        let word = L::load(&self.cell, Ordering::Acquire);
        (word & L::EXCLUSIVE != 0, word & Self::COUNTS == Self::REF)
    }

    /// Free -> one reference, as what the frame source has just handed out.
    ///
    /// # Errors
    /// [`CountError::InUse`]: the word is not free; the frame source is broken.
    pub fn hand_out(&self, kind: FrameKind, order: u8, exclusive: bool) -> Result<(), CountError> {
        let attributes = ((kind as u64) << L::KIND.shift) | (u64::from(order) << L::ORDER.shift);
        let mut word = Self::REF | if exclusive { L::EXCLUSIVE } else { 0 };
        if L::ATTRIBUTES_IN_WORD {
            word |= attributes;
        }
        self.transition(
            |old| if old == Self::FREE { Ok(word) } else { Err(CountError::InUse) },
            || {
                L::store_attributes(&self.cell, attributes);
            },
        )?;
        Ok(())
    }

    /// The one compare-and-exchange loop. `before` runs once the first look permits the step.
    #[inline(always)]
    fn transition(&self, next: impl Fn(u64) -> Result<u64, CountError>, before: impl Fn()) -> Result<u64, CountError> {
        let mut word = L::load(&self.cell, Ordering::Relaxed);
        loop {
            let to = next(word)?;
            before();
            match L::exchange(&self.cell, word, to, Ordering::AcqRel) {
                Ok(_) => return Ok(word),
                Err(now) => word = now,
            }
        }
    }

    #[inline(always)]
    fn step(&self, next: impl Fn(u64) -> Result<u64, CountError>) -> Result<u64, CountError> {
        self.transition(next, || ())
    }

    const fn is_frozen(word: u64) -> bool {
        matches!(word & Self::STATE, state if state == Self::FROZEN_EXCLUSIVE || state == Self::FROZEN_SHARED)
    }

    /// Whether anyone may refer to the frame once more.
    #[inline(always)]
    fn in_use(word: u64) -> Result<(), CountError> {
        // Most frames have a plain reference, and then nothing else needs a look.
        if L::REFS.get(word) == 0 {
            if word & L::PINS.mask() == 0 {
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

    /// Takes a plain reference: the frame stays allocated, but it may stop being what the address space maps.
    ///
    /// # Errors
    /// [`CountError::Free`], [`CountError::Frozen`], [`CountError::Overflow`].
    #[inline]
    pub fn try_get(&self) -> Result<(), CountError> {
        self.step(|word| {
            Self::ref_is_possible(word)?;
            Ok(word + Self::REF)
        })?;
        Ok(())
    }

    /// Gives a plain reference back.
    ///
    /// # Errors
    /// [`CountError::Underflow`]: there was none left that is not also a pin.
    #[inline]
    pub fn put(&self) -> Result<Released, CountError> {
        self.put_mapping(false)
    }

    /// Gives back the reference of an entry that is out of use; with `dirty`, notes in the same step that the page was
    /// written through it.
    ///
    /// # Errors
    /// As [`PageFrame::put`].
    #[inline(always)]
    pub fn put_mapping(&self, dirty: bool) -> Result<Released, CountError> {
        if dirty && !L::ATTRIBUTES_IN_WORD {
            self.mark_dirty();
        }
        let mark = Self::mark(dirty);
        let word = self.step(|word| {
            if L::REFS.get(word) == 0 {
                return Err(CountError::Underflow);
            }
            Ok(Self::less(word | mark, Self::REF))
        })?;
        Ok(self.released(word, Self::REF))
    }

    /// Pins a frame that is `EXCLUSIVE`: a reference that also keeps it so, and so the page of its mm, until unpinned
    /// (INV-3). One look at one word decides, so a lockless walker may call it on a frame that is being recycled.
    ///
    /// # Errors
    /// [`CountError::NotExclusive`] for any frame that is not, [`CountError::Free`], [`CountError::Frozen`],
    /// [`CountError::Overflow`].
    #[inline(always)]
    pub fn try_pin_exclusive(&self) -> Result<(), CountError> {
        let word = L::load(&self.cell, Ordering::Relaxed);
        if word & (L::EXCLUSIVE | L::PINS.top()) == L::EXCLUSIVE
            && L::exchange(&self.cell, word, word + Self::PIN, Ordering::AcqRel).is_ok()
        {
            return Ok(());
        }
        self.try_pin_carefully(true)
    }

    /// Pins a frame of any kind. The caller makes sure that the frame cannot be recycled meanwhile (it holds a
    /// reference, or the lock of a table that maps the frame).
    ///
    /// # Errors
    /// [`CountError::NotExclusive`] for an anonymous frame that is shared, [`CountError::NotPinnable`] by kind,
    /// [`CountError::Free`], [`CountError::Frozen`], [`CountError::Overflow`].
    #[inline]
    pub fn try_pin(&self) -> Result<(), CountError> {
        match self.try_pin_exclusive() {
            Err(CountError::NotExclusive) => match self.kind().pin_needs_exclusive() {
                None => Err(CountError::NotPinnable),
                Some(true) => Err(CountError::NotExclusive),
                Some(false) => self.try_pin_carefully(false),
            },
            result => result,
        }
    }

    #[cold]
    #[inline(never)]
    fn try_pin_carefully(&self, exclusive: bool) -> Result<(), CountError> {
        self.step(|word| {
            Self::in_use(word)?;
            if exclusive && word & L::EXCLUSIVE == 0 {
                return Err(CountError::NotExclusive);
            }
            if L::PINS.get(word) >= Self::MAX_PINS {
                return Err(CountError::Overflow);
            }
            Ok(word + Self::PIN)
        })?;
        Ok(())
    }

    /// Gives a pin back; with `dirty`, notes in the same step that the holder wrote.
    ///
    /// # Errors
    /// [`CountError::Underflow`]: the frame has no pin left.
    #[inline]
    pub fn unpin(&self, dirty: bool) -> Result<Released, CountError> {
        if dirty && !L::ATTRIBUTES_IN_WORD {
            self.mark_dirty();
        }
        let mark = Self::mark(dirty);
        let word = self.step(|word| {
            if word & L::PINS.mask() == 0 || Self::is_frozen(word) {
                return Err(CountError::Underflow);
            }
            Ok(Self::less(word | mark, Self::PIN))
        })?;
        Ok(self.released(word, Self::PIN))
    }

    /// The usual case of [`PageFrame::unpin`] in few instructions: the frame is mapped as well, so that neither the last
    /// reference goes nor can it be frozen. False: nothing was changed, and `unpin` must decide.
    #[inline(always)]
    pub(crate) fn unpin_mapped(&self, dirty: bool) -> bool {
        let word = L::load(&self.cell, Ordering::Relaxed);
        let next = (word | Self::mark(dirty)).wrapping_sub(Self::PIN);
        (L::ATTRIBUTES_IN_WORD || !dirty)
            && word & L::PINS.mask() != 0
            && L::REFS.get(next) != 0
            && L::exchange(&self.cell, word, next, Ordering::AcqRel).is_ok()
    }

    /// What to set in the count word to note that the frame was written.
    #[inline(always)]
    const fn mark(dirty: bool) -> u64 {
        if dirty && L::ATTRIBUTES_IN_WORD { L::DIRTY } else { 0 }
    }

    /// `word` with one reference or pin less; the last one leaves the word free.
    #[inline(always)]
    fn less(word: u64, what: u64) -> u64 {
        if word & Self::COUNTS == what { Self::FREE } else { word - what }
    }

    #[inline(always)]
    fn released(&self, word: u64, what: u64) -> Released {
        if word & Self::COUNTS == what {
            let attributes = self.attributes_of(word);
            Released::Last { order: L::ORDER.get(attributes) as u8 }
        } else {
            Released::Held { pinned: (word - what) & L::PINS.mask() != 0 }
        }
    }

    #[inline(always)]
    fn shared(word: u64, refs: u64) -> Result<u64, CountError> {
        if word & L::PINS.mask() != 0 {
            return Err(if Self::is_frozen(word) { CountError::Frozen } else { CountError::Pinned });
        }
        Self::ref_is_possible(word)?;
        Ok((word & !L::EXCLUSIVE) + refs)
    }

    /// Fork's step: one more mapping, no longer `EXCLUSIVE`, unless pinned (INV-4).
    ///
    /// # Errors
    /// [`CountError::Pinned`]: give the child a copy. [`CountError::Free`], [`CountError::Frozen`],
    /// [`CountError::Overflow`].
    #[inline(always)]
    pub fn try_share_with_child(&self) -> Result<Shared, CountError> {
        let word = self.step(|word| Self::shared(word, Self::REF))?;
        Ok(Shared { was_exclusive: word & L::EXCLUSIVE != 0 })
    }

    /// Undoes [`PageFrame::try_share_with_child`] before the child could run.
    ///
    /// # Errors
    /// [`CountError::Underflow`]: there is no child reference to give back.
    pub fn unshare_with_child(&self, shared: Shared) -> Result<(), CountError> {
        let exclusive = if shared.was_exclusive { L::EXCLUSIVE } else { 0 };
        self.step(|word| {
            if L::REFS.get(word) < 2 {
                return Err(CountError::Underflow);
            }
            Ok((word - Self::REF) | exclusive)
        })?;
        Ok(())
    }

    /// Gives up `EXCLUSIVE` without a new reference (the step before swap-out, merging, migration).
    ///
    /// # Errors
    /// As [`PageFrame::try_share_with_child`].
    pub fn try_share(&self) -> Result<Shared, CountError> {
        let word = self.step(|word| Self::shared(word, 0))?;
        Ok(Shared { was_exclusive: word & L::EXCLUSIVE != 0 })
    }

    /// Sets `EXCLUSIVE` if the caller's mapping is the only reference (INV-7).
    ///
    /// A lockless walker may hold a momentary reference, so a refusal is no proof of sharing: copy, or try again.
    ///
    /// # Errors
    /// [`CountError::Referenced`], [`CountError::Pinned`], [`CountError::Free`], [`CountError::Frozen`].
    #[inline]
    pub fn try_claim(&self) -> Result<(), CountError> {
        self.step(|word| {
            Self::in_use(word)?;
            match (L::REFS.get(word), L::PINS.get(word)) {
                (1, 0) => Ok(word | L::EXCLUSIVE),
                (_, 0) => Err(CountError::Referenced),
                _ => Err(CountError::Pinned),
            }
        })?;
        Ok(())
    }

    /// Takes all `refs` references, which the caller accounted for, out of circulation: nobody can get, pin, share or
    /// claim until [`PageFrame::unfreeze`].
    ///
    /// # Errors
    /// [`CountError::Pinned`], [`CountError::Referenced`] (the count is not `refs`), [`CountError::Free`],
    /// [`CountError::Frozen`].
    pub fn try_freeze(&self, refs: u64) -> Result<(), CountError> {
        self.step(|word| {
            Self::in_use(word)?;
            let frozen = if word & L::EXCLUSIVE != 0 { Self::FROZEN_EXCLUSIVE } else { Self::FROZEN_SHARED };
            match (L::REFS.get(word), L::PINS.get(word)) {
                (now, 0) if now == refs => Ok((word & !Self::STATE) | frozen),
                (_, 0) => Err(CountError::Referenced),
                _ => Err(CountError::Pinned),
            }
        })?;
        Ok(())
    }

    /// Frozen -> `refs` references (1 or more), exclusive if it was.
    ///
    /// # Errors
    /// [`CountError::Underflow`] if the frame is not frozen or `refs` is 0, [`CountError::Overflow`] if it does not fit.
    pub fn unfreeze(&self, refs: u64) -> Result<(), CountError> {
        if refs > Self::MAX_REFS {
            return Err(CountError::Overflow);
        }
        self.step(|word| {
            if !Self::is_frozen(word) || refs == 0 {
                return Err(CountError::Underflow);
            }
            let exclusive = if word & Self::STATE == Self::FROZEN_EXCLUSIVE { L::EXCLUSIVE } else { 0 };
            Ok((word & !Self::STATE) | (refs << L::REFS.shift) | exclusive)
        })?;
        Ok(())
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

static_assertions::const_assert!(size_of::<PageFrame<Wide>>() == 8 && size_of::<PageFrame<Split23x8>>() == 8);
static_assertions::assert_impl_all!(PageFrame<Wide>: Send, Sync);
