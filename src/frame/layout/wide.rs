//! [`Wide`]: the default.

use static_assertions::const_assert;

use super::{Field, Fields, Layout, fits};

/// The default: 32 bits of references and 21 of pins (2 million, as many as on Linux).
///
/// The counts are exact, and nothing can wrap however many CPUs race, because every change is a compare-and-exchange that
/// looked first. Everything that the hot paths of pin and unpin look at lies in the low half, within the reach of an
/// immediate operand.
#[derive(Clone, Copy, Debug)]
pub struct Wide;

impl Layout for Wide {
    const NAME: &'static str = "Wide";
}
impl Fields for Wide {
    const EXCLUSIVE: u64 = 1 << 0;
    const DIRTY: u64 = 1 << 1;
    const KIND: Field = Field { shift: 2, bits: 3 };
    const ORDER: Field = Field { shift: 5, bits: 5 };
    const PINS: Field = Field { shift: 10, bits: 21 };
    const REFS: Field = Field { shift: 32, bits: 32 };
}

const_assert!(fits::<Wide>());
