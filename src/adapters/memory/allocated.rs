//! [`Allocated`]: a bit for each frame, set while it is handed out. What is freed must have been: the free lists believe it.

#![forbid(unsafe_code)]

/// Bits by place.
#[derive(Debug)]
pub(super) struct Allocated<'a>(&'a mut [u64]);

impl<'a> Allocated<'a> {
    /// Words needed for so many frames.
    pub(super) const fn words(frames: u64) -> u64 {
        frames.div_ceil(64)
    }

    /// All clear: nothing is handed out.
    pub(super) fn new(words: &'a mut [u64]) -> Self {
        words.fill(0);
        Self(words)
    }

    /// The words that `count` bits from `place` on are in, each with a mask of those bits.
    #[inline(always)]
    fn parts(place: u64, count: u64) -> impl Iterator<Item = (usize, u64)> {
        let end = place + count;
        (place / 64..end.div_ceil(64)).map(move |word| {
            let (first, last) = (place.max(word * 64) % 64, (end - 1).min(word * 64 + 63) % 64);
            (word as usize, (!0 << first) & (!0 >> (63 - last)))
        })
    }

    /// Sets `count` bits.
    #[inline(always)]
    pub(super) fn set(&mut self, place: u64, count: u64) {
        if count == 1 {
            self.0[(place / 64) as usize] |= 1 << (place % 64);
            return;
        }
        for (word, mask) in Self::parts(place, count) {
            self.0[word] |= mask;
        }
    }

    /// Clears `count` bits if they are all set, and says whether they were.
    #[inline(always)]
    pub(super) fn clear(&mut self, place: u64, count: u64) -> bool {
        if count == 1 {
            let (word, mask) = (&mut self.0[(place / 64) as usize], 1 << (place % 64));
            let was_set = *word & mask != 0;
            *word &= !mask;
            return was_set;
        }
        let all_set = Self::parts(place, count).all(|(word, mask)| self.0[word] & mask == mask);
        if all_set {
            for (word, mask) in Self::parts(place, count) {
                self.0[word] &= !mask;
            }
        }
        all_set
    }
}
