//! [`Biased10`]: one counter for both.

use static_assertions::const_assert;

use super::{Field, Fields, Layout, fits, is_low_half};

/// Linux's scheme of 2020: one count of 31 bits, in which a reference is 1 and a pin `1 << 10`. What it says is "maybe pinned".
///
/// The two fields overlap by design, and the **carry** between them is what the scheme is known for: 1024 plain references are a
/// pin to whoever asks. Fork then copies the page, write-back and claims refuse it, until references go; a put of what is a pin,
/// and an unpin of what are references, are not noticed, since nothing tells them apart. Nothing worse: a real pin is never missed,
/// and at the limit of the count, 2 million pins or 2 thousand million references, either is refused.
///
/// It has no sole pins: who took all of them would take the references' room as well, and nothing could map the page.
#[derive(Clone, Copy, Debug)]
pub struct Biased10;

impl Layout for Biased10 {
    const NAME: &'static str = "Biased10";
    const EXACT: bool = false;
}
impl Fields for Biased10 {
    const REFS: Field = Field { shift: 0, bits: 31 };
    const PINS: Field = Field { shift: 10, bits: 21 };
    const PLAIN: Field = Field { shift: 0, bits: 10 };
    /// All below "frozen".
    const MAX_REFS: u64 = (Self::MAX_PINS << Self::PLAIN.bits) + Self::PLAIN.max();
    const EXCLUSIVE: u64 = 1 << 31;
    const DIRTY: u64 = 1 << 32;
    const KIND: Field = Field { shift: 33, bits: 3 };
    const ORDER: Field = Field { shift: 36, bits: 5 };
}

const_assert!(fits::<Biased10>() && is_low_half::<Biased10>());
const_assert!(Biased10::PLAIN.mask() | Biased10::PINS.mask() == Biased10::REFS.mask());
// One reference more would be "frozen, was shared".
const_assert!((Biased10::MAX_REFS + 1) << Biased10::REFS.shift == Biased10::PINS.mask() - Biased10::PINS.one());
