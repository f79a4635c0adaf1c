//! Where the fields of a frame word lie. The transitions in [`super::FrameWord`] are written once over these
//! constants; a layout proves itself by const assertions.

#![forbid(unsafe_code)]

use static_assertions::const_assert;

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

mod sealed {
    use super::Field;

    /// The constants of a layout. Out of sight, since they are nobody's business but the transitions'.
    pub trait Fields {
        /// Count of plain references.
        const REFS: Field;
        /// Count of pins. A pin is a reference as well, but is not counted twice.
        const PINS: Field;
        /// "Mapped by at most one mm, may be pinned and written" (INV-2, INV-3).
        const EXCLUSIVE: u64;
        /// Written by a device or through a mapping that is gone.
        const DIRTY: u64;
        /// [`FrameKind`](crate::frame::FrameKind).
        const KIND: Field;
        /// log2 of the number of frames this one stands for.
        const ORDER: Field;
    }
}

pub(super) use sealed::Fields;

/// How a frame's word is packed: [`Wide`] or [`Split23x8`].
///
/// Everything is in **one** 64-bit atomic: references, pins and `EXCLUSIVE`, and what the frame *is* (kind, order, dirty),
/// so that a transition changes all it has to, or nothing.
///
/// Plain references (mappings and gets) and pins are two counters; a frame is in use while either is not 0.
///
/// | plain references | pins | `EXCLUSIVE` | state |
/// |---|---|---|---|
/// | 0 | 0 | 0 | free |
/// | 0 | all ones | 0 | frozen, was exclusive |
/// | 0 | all ones but the last | 0 | frozen, was shared |
/// | otherwise | | 0 or 1 | in use |
///
/// So `EXCLUSIVE` by itself says that the frame is in use and not frozen.
pub trait Layout: Fields + 'static {}

/// The default: 32 bits of references and 21 of pins (2 million, as many as on Linux).
///
/// The counts are exact, and nothing can wrap however many CPUs race, because every change is a compare-and-exchange that
/// looked first. Everything that the hot paths of pin and unpin look at lies in the low half, within the reach of an
/// immediate operand.
#[derive(Clone, Copy, Debug)]
pub struct Wide;

impl Layout for Wide {}
impl Fields for Wide {
    const EXCLUSIVE: u64 = 1 << 0;
    const DIRTY: u64 = 1 << 1;
    const KIND: Field = Field { shift: 2, bits: 3 };
    const ORDER: Field = Field { shift: 5, bits: 5 };
    const PINS: Field = Field { shift: 10, bits: 21 };
    const REFS: Field = Field { shift: 32, bits: 32 };
}

/// Counts in 32 bits, as in the 2021 proposal to raise Linux's pin bias to `1 << 23`: 23 bits of references, 8 of pins and
/// `EXCLUSIVE`, in the low half of the word; the rest of it above.
///
/// The counts are exact here, too, but small. Of the 256 values of the pin count the two highest mean "frozen", so a frame
/// can have 253 pins, and the 254th is refused.
#[derive(Clone, Copy, Debug)]
pub struct Split23x8;

impl Layout for Split23x8 {}
impl Fields for Split23x8 {
    const REFS: Field = Field { shift: 0, bits: 23 };
    const PINS: Field = Field { shift: 23, bits: 8 };
    const EXCLUSIVE: u64 = 1 << 31;
    const DIRTY: u64 = 1 << 32;
    const KIND: Field = Field { shift: 33, bits: 3 };
    const ORDER: Field = Field { shift: 36, bits: 5 };
}

/// No bit means two things.
const fn fits<L: Layout>() -> bool {
    disjoint(&[L::REFS.mask(), L::PINS.mask(), L::EXCLUSIVE, L::DIRTY, L::KIND.mask(), L::ORDER.mask()])
}

const fn disjoint(parts: &[u64]) -> bool {
    let (mut seen, mut i) = (0, 0);
    while i < parts.len() {
        if seen & parts[i] != 0 {
            return false;
        }
        seen |= parts[i];
        i += 1;
    }
    true
}

const_assert!(disjoint(&[]) && disjoint(&[1, 2, 4]) && !disjoint(&[1, 2, 1]) && !disjoint(&[1, 2, 2]));
const_assert!(fits::<Wide>() && fits::<Split23x8>());
// The counts of a split word are its low half, all of it.
const_assert!(Split23x8::REFS.mask() | Split23x8::PINS.mask() | Split23x8::EXCLUSIVE == u32::MAX as u64);
