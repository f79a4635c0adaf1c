//! How often the storm met what it is about.

/// What a worker counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pages that were pinned for reading when a read had mapped the zero frame.
    pub zero: u64,
    /// Stores and pokes into a large leaf.
    pub large: u64,
    /// Operations that split large leaves, or found them split.
    pub split: u64,
    /// Stores of a child into device memory that its parent has seen.
    pub device: u64,
    /// Forks for which there was no memory.
    pub unforked: u64,
}

impl Tally {
    const BITS: u32 = 12;
    const MAX: u64 = (1 << Self::BITS) - 1;

    /// As a note holds it; what is more than that can say is the most it can say.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        let counts = [self.zero, self.large, self.split, self.device, self.unforked];
        counts.iter().rfold(0, |bits, &count| bits << Self::BITS | count.min(Self::MAX))
    }

    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let [zero, large, split, device, unforked] =
            core::array::from_fn(|place| bits >> (place as u32 * Self::BITS) & Self::MAX);
        Self { zero, large, split, device, unforked }
    }
}
