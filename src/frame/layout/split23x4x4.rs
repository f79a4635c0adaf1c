//! [`Split23x4x4`]: three counters in 32 bits.

use static_assertions::const_assert;

use super::{Field, Fields, Layout, fits, is_low_half};

/// Counts in 32 bits, as in the proposal to tell `FOLL_GET` and `FOLL_PIN` apart: 23 bits of references, 4 of the get family's
/// references, 4 of pins, and `EXCLUSIVE`.
///
/// A frame holds gets or pins, never both: who wants the other gets [`OtherKind`](crate::frame::CountError::OtherKind). In
/// return each release is checked: of the mappings, the gets or the pins. A word with the most gets and pins means "frozen", and the most
/// pins alone that there is one pinner: a frame can have 15 gets, or 13 pins.
#[derive(Clone, Copy, Debug)]
pub struct Split23x4x4;

impl Layout for Split23x4x4 {
    const NAME: &'static str = "Split23x4x4";
}
impl Fields for Split23x4x4 {
    const REFS: Field = Field { shift: 0, bits: 23 };
    const GETS: Field = Field { shift: 23, bits: 4 };
    const PINS: Field = Field { shift: 27, bits: 4 };
    const EXCLUSIVE: u64 = 1 << 31;
    const DIRTY: u64 = 1 << 32;
    const KIND: Field = Field { shift: 33, bits: 3 };
    const ORDER: Field = Field { shift: 36, bits: 5 };
}

const_assert!(fits::<Split23x4x4>() && is_low_half::<Split23x4x4>());
