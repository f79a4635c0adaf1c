//! [`Split23x8`]: two counters in 32 bits.

use static_assertions::const_assert;

use super::{Field, Fields, Layout, fits, is_low_half};

/// Counts in 32 bits, as in the 2021 proposal to raise Linux's pin bias to `1 << 23`: 23 bits of references, 8 of pins and
/// `EXCLUSIVE`, in the low half of the word; the rest of it above.
///
/// The counts are exact here, too, but small. Of the 256 values of the pin count the two highest mean "frozen", so a frame
/// can have 253 pins, and the 254th is refused.
#[derive(Clone, Copy, Debug)]
pub struct Split23x8;

impl Layout for Split23x8 {
    const NAME: &'static str = "Split23x8";
}
impl Fields for Split23x8 {
    const REFS: Field = Field { shift: 0, bits: 23 };
    const PINS: Field = Field { shift: 23, bits: 8 };
    const EXCLUSIVE: u64 = 1 << 31;
    const DIRTY: u64 = 1 << 32;
    const KIND: Field = Field { shift: 33, bits: 3 };
    const ORDER: Field = Field { shift: 36, bits: 5 };
}

const_assert!(fits::<Split23x8>() && is_low_half::<Split23x8>());
