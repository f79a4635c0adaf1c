//! The transitions of `EXCLUSIVE`: share, claim, freeze.

use super::FrameWord;
use crate::frame::{CountError, FrameKind, Layout, Shared};
use crate::primitive::{Ordering, safeguard};

impl<L: Layout> FrameWord<L> {
    #[inline(always)]
    fn shared(word: u64, refs: u64) -> Result<u64, CountError> {
        if safeguard!(ShareNeedsNoPins => word & L::PINS.mask() != 0) {
            return Err(if L::frozen(word) { CountError::Frozen } else { CountError::Pinned });
        }
        Self::ref_is_possible(word)?;
        Ok((word & !L::EXCLUSIVE) + refs)
    }

    /// Fork's step: one more mapping, no longer `EXCLUSIVE`, unless pinned (INV-4).
    ///
    /// ```
    /// use pagepin::frame::{FrameKind, FrameWord, Ownership};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive)?;
    /// let shared = word.try_share_with_child()?;
    /// assert!(shared.was_exclusive && !word.snapshot().exclusive);
    /// word.unshare_with_child(shared)?; // the fork has failed
    /// assert!(word.snapshot().exclusive);
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// [`CountError::Pinned`]: give the child a copy. [`CountError::Free`], [`CountError::Frozen`],
    /// [`CountError::Overflow`].
    #[inline(always)]
    pub fn try_share_with_child(&self) -> Result<Shared, CountError> {
        let word = self.step(|word| Self::shared(word, Self::REF))?;
        Ok(Shared { was_exclusive: word & L::EXCLUSIVE != 0 })
    }

    /// Undoes [`FrameWord::try_share_with_child`] before the child could run.
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameWord, Shared};
    /// let free: FrameWord = FrameWord::new();
    /// assert_eq!(free.unshare_with_child(Shared { was_exclusive: true }), Err(CountError::Underflow));
    /// ```
    ///
    /// # Errors
    /// [`CountError::Underflow`]: there is no child reference to give back.
    pub fn unshare_with_child(&self, shared: Shared) -> Result<(), CountError> {
        let exclusive = if shared.was_exclusive { L::EXCLUSIVE } else { 0 };
        self.step(|word| {
            if Self::mappings(word) < 2 {
                return Err(CountError::Underflow);
            }
            Ok((word - Self::REF) | exclusive)
        })?;
        Ok(())
    }

    /// Gives up `EXCLUSIVE` without a new reference (the step before swap-out, merging, migration).
    ///
    /// ```
    /// use pagepin::frame::{FrameKind, FrameWord, Ownership};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive)?;
    /// assert!(word.try_share()?.was_exclusive);
    /// assert!(word.try_pin_exclusive().is_err()); // no new pins while it goes out
    /// word.try_claim()?;
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// As [`FrameWord::try_share_with_child`].
    pub fn try_share(&self) -> Result<Shared, CountError> {
        let word = self.step(|word| Self::shared(word, 0))?;
        Ok(Shared { was_exclusive: word & L::EXCLUSIVE != 0 })
    }

    /// Closes an object's page to new pins, if it has none, and takes the note that it was written: the step with which write-back begins.
    /// Whether it was written.
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameKind, FrameWord, Ownership};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::File, 0, Ownership::Exclusive)?; // open
    /// word.mark_dirty()?;
    /// assert_eq!(word.try_close(), Ok(true));
    /// assert_eq!(word.try_pin_exclusive(), Err(CountError::NotExclusive));
    /// word.open()?;
    /// word.try_pin_exclusive()?;
    /// assert_eq!(word.try_close(), Err(CountError::Pinned)); // write a copy, or later
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// [`CountError::Pinned`], [`CountError::Free`], [`CountError::Frozen`].
    pub fn try_close(&self) -> Result<bool, CountError> {
        let word = self.step(|word| Ok(Self::shared(word, 0)? & !L::DIRTY))?;
        Ok(word & L::DIRTY != 0)
    }

    /// Takes the note that the page was written. Whether there was one.
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameKind, FrameWord, Ownership};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive)?;
    /// word.mark_dirty()?;
    /// assert_eq!((word.take_dirty()?, word.take_dirty()?), (true, false));
    /// # Ok::<(), CountError>(())
    /// ```
    ///
    /// # Errors
    /// [`CountError::Free`], [`CountError::Frozen`].
    pub fn take_dirty(&self) -> Result<bool, CountError> {
        let word = self.step(|word| {
            Self::in_use(word)?;
            Ok(word & !L::DIRTY)
        })?;
        Ok(word & L::DIRTY != 0)
    }

    /// Opens an object's page to pins, when it is not written back any more.
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameKind, FrameWord, Ownership};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 0, Ownership::Shared)?;
    /// assert_eq!(word.open(), Err(CountError::NotExclusive)); // private memory is claimed, not opened
    /// # Ok::<(), CountError>(())
    /// ```
    ///
    /// # Errors
    /// [`CountError::NotExclusive`]: it is no object's. [`CountError::Free`], [`CountError::Frozen`].
    pub fn open(&self) -> Result<(), CountError> {
        self.step(|word| {
            Self::in_use(word)?;
            let is_objects = L::KIND.get(word) & FrameKind::LENT != 0;
            if is_objects { Ok(word | L::EXCLUSIVE) } else { Err(CountError::NotExclusive) }
        })?;
        Ok(())
    }

    /// Sets `EXCLUSIVE` if the caller's mapping is the only reference (INV-7).
    ///
    /// A lockless walker may hold a momentary reference, so a refusal is no proof of sharing: copy, or try again.
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameKind, FrameWord, Ownership};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 0, Ownership::Shared)?;
    /// word.try_get()?; // the other process's entry
    /// assert_eq!(word.try_claim(), Err(CountError::Referenced)); // copy
    /// let _ = word.put()?;
    /// word.try_claim()?; // reuse
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// [`CountError::Referenced`], [`CountError::Pinned`], [`CountError::Free`], [`CountError::Frozen`].
    #[inline]
    pub fn try_claim(&self) -> Result<(), CountError> {
        self.step(|word| {
            Self::in_use(word)?;
            match (L::refs(word), L::pins(word)) {
                (refs, 0) if safeguard!(ClaimNeedsSoleReference => refs != 1 || word & L::GETS.mask() != 0) => {
                    Err(CountError::Referenced)
                }
                (_, 0) => Ok(word | L::EXCLUSIVE),
                _ => Err(CountError::Pinned),
            }
        })?;
        Ok(())
    }

    /// Whether the frame of an entry that the caller owns is this mm's: it is `EXCLUSIVE`, or anonymous and claimed in the
    /// same look, as by [`FrameWord::try_claim`].
    #[inline(always)]
    pub(crate) fn is_own_or_claimed(&self) -> bool {
        let mut word = self.load(Ordering::Acquire);
        loop {
            if word & L::EXCLUSIVE != 0 {
                return true;
            }
            let others = safeguard!(ClaimNeedsSoleReference => word & Self::COUNTS != Self::REF);
            if others || L::KIND.get(word) != FrameKind::Anonymous as u64 {
                return false;
            }
            match self.exchange(word, word | L::EXCLUSIVE) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Takes all `refs` references, which the caller accounted for, out of circulation: nobody can get, pin, share or
    /// claim until [`FrameWord::unfreeze`].
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameKind, FrameWord, Ownership};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive)?;
    /// word.try_freeze(1)?;
    /// assert_eq!(word.try_pin_exclusive(), Err(CountError::Frozen));
    /// word.unfreeze(1)?;
    /// assert!(word.try_pin_exclusive().is_ok());
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// [`CountError::Pinned`], [`CountError::Referenced`] (the count is not `refs`), [`CountError::Free`],
    /// [`CountError::Frozen`].
    pub fn try_freeze(&self, refs: u64) -> Result<(), CountError> {
        self.step(|word| {
            Self::in_use(word)?;
            let frozen = if word & L::EXCLUSIVE != 0 { Self::FROZEN_EXCLUSIVE } else { Self::FROZEN_SHARED };
            match (L::refs(word), L::pins(word)) {
                (_, pins) if safeguard!(FreezeNeedsNoPins => pins != 0) => Err(CountError::Pinned),
                // The get family's are nobody's to account for where they are counted by themselves.
                (now, _) if safeguard!(FreezeNeedsSoleReference => now != refs || word & L::GETS.mask() != 0) => {
                    Err(CountError::Referenced)
                }
                _ => Ok((word & !Self::STATE) | frozen),
            }
        })?;
        Ok(())
    }

    /// Frozen -> `refs` references (1 or more), exclusive if it was.
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameWord};
    /// let free: FrameWord = FrameWord::new();
    /// assert_eq!(free.unfreeze(1), Err(CountError::Underflow)); // it is not frozen
    /// ```
    ///
    /// # Errors
    /// [`CountError::Underflow`] if the frame is not frozen or `refs` is 0, [`CountError::Overflow`] if it does not fit.
    pub fn unfreeze(&self, refs: u64) -> Result<(), CountError> {
        if refs > Self::MAX_REFS {
            return Err(CountError::Overflow);
        }
        self.step(|word| {
            if !L::frozen(word) || refs == 0 {
                return Err(CountError::Underflow);
            }
            let exclusive = if word & Self::STATE == Self::FROZEN_EXCLUSIVE { L::EXCLUSIVE } else { 0 };
            Ok((word & !Self::STATE) | (refs << L::REFS.shift) | exclusive)
        })?;
        Ok(())
    }
}
