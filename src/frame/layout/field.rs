//! [`Field`]: a run of bits.

/// A run of bits in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Position of the lowest bit.
    pub shift: u32,
    /// Number of bits.
    pub bits: u32,
}

impl Field {
    /// The field's bits, in place.
    #[must_use]
    pub const fn mask(self) -> u64 {
        self.max() << self.shift
    }

    /// The largest value.
    #[must_use]
    pub const fn max(self) -> u64 {
        (1 << self.bits) - 1
    }

    /// The value 1, in place.
    #[must_use]
    pub const fn one(self) -> u64 {
        1 << self.shift
    }

    /// The value of the field in `word`.
    #[must_use]
    pub const fn get(self, word: u64) -> u64 {
        (word >> self.shift) & self.max()
    }

    /// The field's highest bit, in place: set means "over half full, look closely".
    pub const fn top(self) -> u64 {
        1 << (self.shift + self.bits - 1)
    }
}
