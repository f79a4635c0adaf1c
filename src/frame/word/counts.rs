//! The transitions that count: get and put, pin and unpin.

use super::FrameWord;
use crate::frame::{CountError, Dirty, FrameKind, Layout, Released};
use crate::primitive::{Ordering, safeguard};

impl<L: Layout> FrameWord<L> {
    /// Takes a plain reference: the frame stays allocated, but it may stop being what the address space maps.
    ///
    /// ```
    /// use pagepin::frame::{FrameKind, FrameWord, Ownership, Released};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive)?; // one reference: an entry's
    /// word.try_get()?;
    /// assert_eq!(word.put()?, Released::Held { pinned: false });
    /// assert_eq!(word.put()?, Released::Last { order: 0, kind: FrameKind::Anonymous }); // to the frame source with it
    /// assert!(word.try_get().is_err());
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// [`CountError::Free`], [`CountError::Frozen`], [`CountError::Overflow`].
    #[inline]
    pub fn try_get(&self) -> Result<(), CountError> {
        self.try_get_of(None)
    }

    /// The same of a block of `order`, or of any.
    #[inline(always)]
    pub(crate) fn try_get_of(&self, order: Option<u8>) -> Result<(), CountError> {
        self.step(|word| {
            Self::ref_is_possible(word)?;
            Self::is_of(word, order)?;
            Ok(word + Self::REF)
        })?;
        Ok(())
    }

    /// Gives a plain reference back.
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameWord};
    /// let free: FrameWord = FrameWord::new();
    /// assert_eq!(free.put(), Err(CountError::Underflow)); // nothing wraps
    /// ```
    ///
    /// # Errors
    /// [`CountError::Underflow`]: there was none left that is not also a pin.
    #[inline]
    pub fn put(&self) -> Result<Released, CountError> {
        self.put_mapping(Dirty::No)
    }

    /// Gives back the reference of an entry that is out of use; with [`Dirty::Yes`], notes in the same step that the
    /// page was written through it.
    ///
    /// ```
    /// use pagepin::frame::{Dirty, FrameKind, FrameWord, Ownership, Released};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 0, Ownership::Shared)?;
    /// word.try_get()?;
    /// assert_eq!(word.put_mapping(Dirty::Yes)?, Released::Held { pinned: false });
    /// assert!(word.snapshot().dirty);
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// As [`FrameWord::put`].
    #[inline(always)]
    pub fn put_mapping(&self, dirty: Dirty) -> Result<Released, CountError> {
        Ok(self.put_some::<1>(dirty)?.0)
    }

    /// The same, and a plain reference of the caller's with it, in one step.
    ///
    /// # Errors
    /// As [`FrameWord::put`].
    #[inline(always)]
    pub(crate) fn put_mapping_and_ref(&self, dirty: Dirty) -> Result<Released, CountError> {
        Ok(self.put_some::<2>(dirty)?.0)
    }

    /// Gives a plain reference to a block back, and says which order the word had in that step; see [`FrameWord::unpin_of_block`].
    ///
    /// ```
    /// use pagepin::frame::{FrameKind, FrameWord, Ownership, Released};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 9, Ownership::Exclusive)?;
    /// assert_eq!(word.put_of_block()?, (Released::Last { order: 9, kind: FrameKind::Anonymous }, 9)); // all of it
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// As [`FrameWord::put`].
    #[inline(always)]
    pub fn put_of_block(&self) -> Result<(Released, u8), CountError> {
        self.put_some::<1>(Dirty::No)
    }

    #[inline(always)]
    fn put_some<const REFS: u64>(&self, dirty: Dirty) -> Result<(Released, u8), CountError> {
        let (mark, some) = (Self::mark(dirty), REFS * Self::REF);
        let word = self.step(|word| {
            if Self::mappings(word) < REFS {
                return Err(CountError::Underflow);
            }
            Ok(Self::less(word | mark, some))
        })?;
        Ok((Self::released(word, some), L::ORDER.get(word) as u8))
    }

    /// The usual case of [`FrameWord::put_mapping`] at the end of a page in few instructions: the only reference to a single frame,
    /// which is free now, and the source's. False: nothing was changed, and `put_mapping` must decide.
    #[inline(always)]
    pub(crate) fn put_sole(&self) -> bool {
        let word = self.load(Ordering::Relaxed);
        let usual = word & (Self::COUNTS | L::ORDER.mask() | Self::LENT) == Self::REF;
        usual && self.exchange(word, Self::FREE).is_ok()
    }

    /// Of the kind: what somebody else than a process has, a driver among them.
    const LENT: u64 = FrameKind::LENT << L::KIND.shift;

    /// Takes a reference for the get family: a plain one, but in a layout that counts them by themselves.
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameKind, FrameWord, Ownership, Split23x4x4};
    /// let word: FrameWord<Split23x4x4> = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive)?;
    /// word.try_get_user()?;
    /// assert_eq!(word.try_pin(), Err(CountError::OtherKind)); // this layout has one kind at a time
    /// let _ = word.put_user()?;
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// As [`FrameWord::try_get`]; [`CountError::OtherKind`]: the frame is pinned, and the layout has room for one kind at a time.
    #[inline]
    pub fn try_get_user(&self) -> Result<(), CountError> {
        self.try_get_user_of(None)
    }

    /// The same of a block of `order`, or of any.
    #[inline(always)]
    pub(crate) fn try_get_user_of(&self, order: Option<u8>) -> Result<(), CountError> {
        if !L::SEPARATE_GETS {
            return self.try_get_of(order);
        }
        self.step(|word| {
            Self::in_use(word)?;
            Self::is_of(word, order)?;
            if safeguard!(OneKindAtATime => word & L::PINS.mask() != 0) {
                return Err(CountError::OtherKind);
            }
            if L::GETS.get(word) == L::GETS.max() {
                return Err(CountError::Overflow);
            }
            Ok(word + Self::GET)
        })?;
        Ok(())
    }

    /// Gives back what [`FrameWord::try_get_user`] took.
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameWord, Split23x4x4};
    /// let free: FrameWord<Split23x4x4> = FrameWord::new();
    /// assert_eq!(free.put_user(), Err(CountError::Underflow));
    /// ```
    ///
    /// # Errors
    /// [`CountError::Underflow`]: there was none left.
    #[inline]
    pub fn put_user(&self) -> Result<Released, CountError> {
        Ok(self.put_user_of_block()?.0)
    }

    /// The same, and which order the word had in that step; see [`FrameWord::unpin_of_block`].
    ///
    /// # Errors
    /// As [`FrameWord::put_user`].
    #[inline(always)]
    pub(crate) fn put_user_of_block(&self) -> Result<(Released, u8), CountError> {
        if !L::SEPARATE_GETS {
            return self.put_of_block();
        }
        let word = self.step(|word| {
            if L::GETS.get(word) == 0 || L::frozen(word) {
                return Err(CountError::Underflow);
            }
            Ok(Self::less(word, Self::GET))
        })?;
        Ok((Self::released(word, Self::GET), L::ORDER.get(word) as u8))
    }

    /// Pins a frame that is `EXCLUSIVE`: a reference that also keeps it so, and so the page of its mm, until unpinned
    /// (INV-3). One look at one word decides, so a lockless walker may call it on a frame that is being recycled.
    ///
    /// ```
    /// use pagepin::frame::{CountError, Dirty, FrameKind, FrameWord, Ownership, Released};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive)?;
    /// word.try_pin_exclusive()?;
    /// assert_eq!(word.try_share_with_child(), Err(CountError::Pinned)); // fork gives the child a copy
    /// assert_eq!(word.unpin(Dirty::Yes)?, Released::Held { pinned: false });
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// [`CountError::NotExclusive`] for any frame that is not, [`CountError::Free`], [`CountError::Frozen`],
    /// [`CountError::Overflow`]; [`CountError::OtherKind`]: see [`FrameWord::try_get_user`].
    #[inline(always)]
    pub fn try_pin_exclusive(&self) -> Result<(), CountError> {
        if self.pin_usual(None) { Ok(()) } else { self.try_pin_carefully(true, None) }
    }

    /// The same of a block of `order`, and no other: a walker that has an entry of that size in hand may be too late.
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameKind, FrameWord, Ownership};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 9, Ownership::Exclusive)?;
    /// assert_eq!(word.try_pin_exclusive_of(0), Err(CountError::OtherOrder));
    /// word.try_pin_exclusive_of(9)?;
    /// # Ok::<(), CountError>(())
    /// ```
    ///
    /// # Errors
    /// As [`FrameWord::try_pin_exclusive`]; [`CountError::OtherOrder`].
    #[inline(always)]
    pub fn try_pin_exclusive_of(&self, order: u8) -> Result<(), CountError> {
        if self.pin_usual(Some(order)) { Ok(()) } else { self.try_pin_carefully(true, Some(order)) }
    }

    /// The usual case of [`FrameWord::try_pin_exclusive_of`] in few instructions: no gets where they count, fewer than half of the
    /// pins. False: nothing was changed, and `try_pin_exclusive_of` must decide.
    #[inline(always)]
    pub(crate) fn pin_usual(&self, order: Option<u8>) -> bool {
        let word = self.load(Ordering::Relaxed);
        let (mask, bits) = Self::order_bits(order);
        let usual = word & (L::EXCLUSIVE | L::GETS.mask() | L::PINS.top() | mask) == L::EXCLUSIVE | bits;
        usual && self.exchange(word, word + Self::PIN).is_ok()
    }

    /// Pins a frame of any kind. The caller makes sure that the frame cannot be recycled meanwhile (it holds a
    /// reference, or the lock of a table that maps the frame).
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameKind, FrameWord, Ownership};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Table, 0, Ownership::Shared)?;
    /// assert_eq!(word.try_pin(), Err(CountError::NotPinnable));
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// [`CountError::NotExclusive`] for an anonymous frame that is shared, [`CountError::NotPinnable`] by kind,
    /// [`CountError::Free`], [`CountError::Frozen`], [`CountError::Overflow`], [`CountError::OtherKind`].
    #[inline]
    pub fn try_pin(&self) -> Result<(), CountError> {
        match self.try_pin_exclusive() {
            Err(CountError::NotExclusive) => match self.kind().pin_needs_exclusive() {
                None => Err(CountError::NotPinnable),
                Some(true) => Err(CountError::NotExclusive),
                Some(false) => self.try_pin_carefully(false, None),
            },
            result => result,
        }
    }

    #[cold]
    #[inline(never)]
    fn try_pin_carefully(&self, exclusive: bool, order: Option<u8>) -> Result<(), CountError> {
        self.step(|word| {
            Self::in_use(word)?;
            Self::is_of(word, order)?;
            if safeguard!(PinNeedsExclusive => exclusive && word & L::EXCLUSIVE == 0) {
                return Err(CountError::NotExclusive);
            }
            if safeguard!(OneKindAtATime => word & L::GETS.mask() != 0) {
                return Err(CountError::OtherKind);
            }
            if Self::is_sole(word) {
                return Err(CountError::Sole);
            }
            if L::PINS.get(word) >= Self::MAX_PINS {
                return Err(CountError::Overflow);
            }
            Ok(word + Self::PIN)
        })?;
        Ok(())
    }

    /// Gives a pin back; with [`Dirty::Yes`], notes in the same step that the holder wrote.
    ///
    /// ```
    /// use pagepin::frame::{CountError, Dirty, FrameWord};
    /// let free: FrameWord = FrameWord::new();
    /// assert_eq!(free.unpin(Dirty::No), Err(CountError::Underflow));
    /// ```
    ///
    /// # Errors
    /// [`CountError::Underflow`]: the frame has no pin left. [`CountError::Sole`]: it has one that is given back by
    /// [`FrameWord::unpin_sole`].
    #[inline]
    pub fn unpin(&self, dirty: Dirty) -> Result<Released, CountError> {
        Ok(self.unpin_of_block(dirty)?.0)
    }

    /// The same, and which order the word had in that step. Who holds a block gives back one count of its head; if that says a lower
    /// order than the block was held with, it was split meanwhile, and the holder has a count of each part.
    ///
    /// ```
    /// use pagepin::frame::{Dirty, FrameKind, FrameWord, Ownership};
    /// let words: [FrameWord; 2] = Default::default();
    /// words[0].hand_out(FrameKind::Anonymous, 1, Ownership::Exclusive)?; // a block of two frames
    /// words[0].try_pin_exclusive()?;
    /// words[0].try_split(0, |tail| words.get(tail))?;
    /// assert_eq!(words[0].unpin_of_block(Dirty::No)?.1, 0); // and so:
    /// assert_eq!(words[1].unpin_of_block(Dirty::No)?.1, 0);
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// As [`FrameWord::unpin`].
    #[inline(always)]
    pub fn unpin_of_block(&self, dirty: Dirty) -> Result<(Released, u8), CountError> {
        let mark = Self::mark(dirty);
        let word = self.step(|word| {
            if word & L::PINS.mask() == 0 || L::frozen(word) {
                return Err(CountError::Underflow);
            }
            if Self::is_sole(word) {
                return Err(CountError::Sole);
            }
            Ok(Self::less(word | mark, Self::PIN))
        })?;
        Ok((Self::released(word, Self::PIN), L::ORDER.get(word) as u8))
    }

    /// Takes all pins of a frame that is `EXCLUSIVE` and has none: until they are given back there is no other pinner.
    ///
    /// ```
    /// use pagepin::frame::{CountError, Dirty, FrameKind, FrameWord, Ownership};
    /// let word: FrameWord = FrameWord::new();
    /// word.hand_out(FrameKind::Anonymous, 0, Ownership::Exclusive)?;
    /// word.try_pin_sole()?;
    /// assert_eq!(word.try_pin(), Err(CountError::Sole));
    /// let _ = word.unpin_sole(Dirty::Yes)?;
    /// assert!(word.try_pin().is_ok());
    /// # Ok::<(), pagepin::frame::CountError>(())
    /// ```
    ///
    /// # Errors
    /// [`CountError::Sole`]: somebody has pinned the frame. [`CountError::NoSole`]: the layout cannot express it. Otherwise as
    /// [`FrameWord::try_pin_exclusive`], but for an overflow.
    pub fn try_pin_sole(&self) -> Result<(), CountError> {
        self.try_pin_sole_of(None)
    }

    /// The same of a block of `order`, or of any.
    pub(crate) fn try_pin_sole_of(&self, order: Option<u8>) -> Result<(), CountError> {
        if !L::HAS_SOLE {
            return Err(CountError::NoSole);
        }
        self.step(|word| {
            Self::in_use(word)?;
            Self::is_of(word, order)?;
            if word & L::EXCLUSIVE == 0 {
                return Err(CountError::NotExclusive);
            }
            if word & L::GETS.mask() != 0 {
                return Err(CountError::OtherKind);
            }
            if safeguard!(SoleNeedsNoPins => word & L::PINS.mask() != 0) {
                return Err(CountError::Sole);
            }
            Ok(word | Self::SOLE)
        })?;
        Ok(())
    }

    /// Gives back what [`FrameWord::try_pin_sole`] took; with [`Dirty::Yes`], notes in the same step that the holder wrote.
    ///
    /// ```
    /// use pagepin::frame::{CountError, Dirty, FrameWord};
    /// let free: FrameWord = FrameWord::new();
    /// assert_eq!(free.unpin_sole(Dirty::No), Err(CountError::Underflow));
    /// ```
    ///
    /// # Errors
    /// [`CountError::Underflow`]: nobody holds all pins of the frame.
    pub fn unpin_sole(&self, dirty: Dirty) -> Result<Released, CountError> {
        Ok(self.unpin_sole_of_block(dirty)?.0)
    }

    /// The same, and which order the word had in that step; see [`FrameWord::unpin_of_block`].
    ///
    /// # Errors
    /// As [`FrameWord::unpin_sole`].
    pub(crate) fn unpin_sole_of_block(&self, dirty: Dirty) -> Result<(Released, u8), CountError> {
        let mark = Self::mark(dirty);
        let word = self.step(|word| {
            if !Self::is_sole(word) {
                return Err(CountError::Underflow);
            }
            Ok(Self::less(word | mark, word & L::PINS.mask()))
        })?;
        Ok((Self::released(word, word & L::PINS.mask()), L::ORDER.get(word) as u8))
    }

    /// The usual case of [`FrameWord::unpin`] in few instructions: the frame is mapped as well, so that neither the last
    /// reference goes nor can it be frozen. False: nothing was changed, and `unpin` must decide.
    #[inline(always)]
    pub(crate) fn unpin_mapped(&self, dirty: Dirty) -> bool {
        self.unpin_mapped_if(dirty, |_| true)
    }

    /// The same of a block that is still of `order`.
    #[inline(always)]
    pub(crate) fn unpin_mapped_of(&self, dirty: Dirty, order: u8) -> bool {
        self.unpin_mapped_if(dirty, |word| Self::is_of(word, Some(order)).is_ok())
    }

    #[inline(always)]
    fn unpin_mapped_if(&self, dirty: Dirty, is_whole: impl Fn(u64) -> bool) -> bool {
        let word = self.load(Ordering::Relaxed);
        let next = word.wrapping_sub(Self::PIN) | Self::mark(dirty);
        // To whom all pins were given at once, one less is as much.
        let usual = word & L::PINS.mask() != 0 && next & L::PLAIN.mask() != 0 && is_whole(word);
        usual && self.exchange(word, next).is_ok()
    }

    /// What to set in the word to note that the frame was written.
    #[inline(always)]
    const fn mark(dirty: Dirty) -> u64 {
        if dirty.is_yes() { L::DIRTY } else { 0 }
    }

    /// `word` with one reference or pin less; the last one leaves the word free.
    #[inline(always)]
    fn less(word: u64, what: u64) -> u64 {
        if word & Self::COUNTS == what { Self::FREE } else { word - what }
    }

    #[inline(always)]
    fn released(word: u64, what: u64) -> Released {
        if word & Self::COUNTS == what {
            Released::Last { order: L::ORDER.get(word) as u8, kind: FrameKind::from_bits(L::KIND.get(word)) }
        } else {
            Released::Held { pinned: (word - what) & L::PINS.mask() != 0 }
        }
    }
}
