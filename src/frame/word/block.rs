//! Blocks: one word, that of the first frame, counts for all frames of a block, until it is split.
//!
//! A count of a block is taken in the step that sees its order, and given back by what the word says in the step that gives it back
//! ([`FrameWord::unpin_of_block`]). So a split needs to know no holder: it gives each part what the head has, and then drops the order
//! in one exchange. Whoever came before finds its count in every part, whoever comes later finds a smaller block.

use super::FrameWord;
use crate::frame::{CountError, FrameKind, Layout};
use crate::primitive::{Ordering, safeguard};

impl<L: Layout> FrameWord<L> {
    /// What to look at in a word, and what must be there, if it is to be of `order`.
    #[inline(always)]
    pub(super) const fn order_bits(order: Option<u8>) -> (u64, u64) {
        match order {
            Some(order) => (L::ORDER.mask(), (order as u64) << L::ORDER.shift),
            None => (0, 0),
        }
    }

    /// Refuses a word of another order than the one that is wanted.
    #[inline(always)]
    pub(super) fn is_of(word: u64, order: Option<u8>) -> Result<(), CountError> {
        let (mask, bits) = Self::order_bits(order);
        if safeguard!(CountsByOrder => word & mask != bits) { Err(CountError::OtherOrder) } else { Ok(()) }
    }

    /// Takes the block that this head stands for apart, into blocks of order `to`, pinned or not: one exchange of this word, which drops the
    /// order. Each part has the references, pins and marks that the block has at that moment. `part(i)` is the word of the
    /// part's first frame, from 1 on.
    ///
    /// The caller has the one entry that maps the block, or holds the reference that it is to have, so that nobody shares, claims or splits the
    /// block meanwhile. Pins, gets, and those who give them back, may come at any time. So may walkers that found a part in an
    /// entry of an earlier life: once a part has counts, they change by differences, so that what such a walker counted stays.
    ///
    /// ```
    /// use pagepin::frame::{CountError, FrameKind, FrameWord, Ownership};
    /// let words: [FrameWord; 4] = Default::default();
    /// words[0].hand_out(FrameKind::Anonymous, 2, Ownership::Exclusive)?;
    /// words[0].try_pin_exclusive()?;
    /// words[0].try_split(0, |part| words.get(part))?;
    /// assert!(words.iter().all(|word| word.snapshot().pins == 1 && word.order() == 0 && word.snapshot().exclusive));
    /// assert_eq!(words[1].try_split(0, |_| None), Err(CountError::OtherOrder)); // there is nothing to split
    /// # Ok::<(), CountError>(())
    /// ```
    ///
    /// # Errors
    /// [`CountError::OtherOrder`]: the block is not larger than `to`. [`CountError::NotExclusive`]: several address spaces have it.
    /// [`CountError::NotPrivate`], [`CountError::Free`], [`CountError::Frozen`]. [`CountError::InUse`]: a part has no word, or one that is
    /// in use; the frame table or the source is broken.
    pub fn try_split<'w>(&self, to: u8, part: impl Fn(usize) -> Option<&'w Self>) -> Result<(), CountError>
    where
        L: 'w,
    {
        let mut word = self.load(Ordering::Acquire);
        let parts = Self::parts_of(word, to)?;
        let (mask, bits) = Self::order_bits(Some(to));
        let halved = |word: u64| (word & !mask) | bits;
        let parts_first = safeguard!(PartsBeforeHead => true);
        if parts_first {
            Self::give(halved(word), parts, &part)?;
        }
        loop {
            match self.exchange(word, halved(word)) {
                Ok(_) => break,
                Err(now) if now == word => {}
                Err(now) => {
                    let changes = if parts_first { 1..parts } else { 1..1 };
                    changes.filter_map(&part).for_each(|part| part.follow(word, now));
                    word = now;
                }
            }
        }
        if parts_first { Ok(()) } else { Self::give(halved(word), parts, &part) }
    }

    /// In how many blocks of order `to` a block can be split that has this word.
    fn parts_of(word: u64, to: u8) -> Result<usize, CountError> {
        Self::in_use(word)?;
        let order = L::ORDER.get(word) as u8;
        if order <= to {
            return Err(CountError::OtherOrder);
        }
        if L::KIND.get(word) != FrameKind::Anonymous as u64 {
            return Err(CountError::NotPrivate);
        }
        if word & L::EXCLUSIVE == 0 {
            return Err(CountError::NotExclusive);
        }
        Ok(1 << (order - to))
    }

    /// Makes `word` that of each part, which is free.
    #[inline(always)]
    fn give<'w>(word: u64, parts: usize, part: &impl Fn(usize) -> Option<&'w Self>) -> Result<(), CountError>
    where
        L: 'w,
    {
        let mut i = 1;
        while i < parts {
            // A frame that is free refuses everybody, so nobody else changes this word, and a failure has a reason.
            let Some(Ok(_)) =
                part(i).map(|part| part.word.compare_exchange(Self::FREE, word, Ordering::AcqRel, Ordering::Relaxed))
            else {
                Self::take_back(i, part);
                return Err(CountError::InUse);
            };
            i += 1;
        }
        Ok(())
    }

    /// Undoes [`give`](Self::give) of the first parts.
    #[cold]
    fn take_back<'w>(given: usize, part: &impl Fn(usize) -> Option<&'w Self>)
    where
        L: 'w,
    {
        // A walker that counted one of them by an entry of an earlier life finds that it cannot give its count back: one bug more that is
        // caught, where there is one already.
        (1..given).filter_map(part).for_each(|part| part.word.store(Self::FREE, Ordering::Release));
    }

    /// The head's word has become `now` from `before`: so does this part's, whatever else is counted in it.
    #[cold]
    fn follow(&self, before: u64, now: u64) {
        let followed = |word: u64| {
            let moved = |field: crate::frame::layout::Field| {
                let to = (field.get(word) + field.get(now)).checked_sub(field.get(before))?;
                (to <= field.max()).then_some(to << field.shift)
            };
            let plain = moved(L::REFS).filter(|plain| L::REFS.get(*plain) <= Self::MAX_REFS)?;
            let counts = if L::REFS.mask() & L::PINS.mask() != 0 {
                plain
            } else {
                let pins = moved(L::PINS)?;
                let no_more = L::PINS.get(pins) <= Self::MAX_PINS || pins == now & L::PINS.mask();
                plain | moved(L::GETS)? | if no_more { pins } else { return None }
            };
            Some((word & !Self::COUNTS) | counts | (now & L::DIRTY))
        };
        let by_difference = safeguard!(PartsByDifference => true);
        if !by_difference {
            self.word
                .store((now & !L::ORDER.mask()) | (self.load(Ordering::Relaxed) & L::ORDER.mask()), Ordering::Relaxed);
            return;
        }
        // `None`: there is no room beside what a walker of an earlier life has counted. It lets go by itself, soon.
        while self.step(|word| followed(word).ok_or(CountError::Overflow)).is_err() {
            core::hint::spin_loop();
        }
    }

    /// Takes `more` plain references to an anonymous block of `order`, for the entries of its parts.
    ///
    /// # Errors
    /// [`CountError::NotPrivate`], [`CountError::Overflow`], [`CountError::OtherOrder`], [`CountError::Free`], [`CountError::Frozen`].
    pub(crate) fn try_get_parts(&self, more: u64, order: u8) -> Result<(), CountError> {
        self.step(|word| {
            Self::in_use(word)?;
            Self::is_of(word, Some(order))?;
            if L::KIND.get(word) != FrameKind::Anonymous as u64 {
                return Err(CountError::NotPrivate);
            }
            if L::REFS.get(word) + more > Self::MAX_REFS {
                return Err(CountError::Overflow);
            }
            Ok(word + more * Self::REF)
        })?;
        Ok(())
    }
}
