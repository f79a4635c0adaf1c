//! Where the counts of a frame word lie, in the ways that were ever proposed: a file each. The transitions in
//! [`super::FrameWord`] are written once over what a layout says of itself; a layout proves itself by const assertions.

#![forbid(unsafe_code)]

mod biased10;
mod field;
mod split23x4x4;
mod split23x8;
mod wide;

pub use biased10::Biased10;
pub(super) use field::Field;
pub use split23x4x4::Split23x4x4;
pub use split23x8::Split23x8;
pub use wide::Wide;

mod sealed {
    use super::Field;

    /// What a layout says of itself. Out of sight, since it is nobody's business but the transitions'.
    pub trait Fields {
        /// Count of plain references.
        const REFS: Field;
        /// Count of pins. A pin is a reference as well, but is not counted twice.
        const PINS: Field;
        /// Count of the get family's references, where they have one of their own.
        const GETS: Field = Field { shift: 0, bits: 0 };
        /// What of `REFS` is not of `PINS`, too.
        const PLAIN: Field = Self::REFS;
        /// The most plain references.
        const MAX_REFS: u64 = Self::REFS.max();
        /// The most pins: the two values above mean "frozen", or that there is one pinner and no other.
        const MAX_PINS: u64 = Self::PINS.max() - 2;
        /// "Mapped by at most one mm, may be pinned and written" (INV-2, INV-3).
        const EXCLUSIVE: u64;
        /// Written by a device or through a mapping that is gone.
        const DIRTY: u64;
        /// [`FrameKind`](crate::frame::FrameKind).
        const KIND: Field;
        /// log2 of the number of frames this one stands for.
        const ORDER: Field;

        /// References that are not pins, of a word that is not frozen and so far as it can tell.
        #[inline(always)]
        fn refs(word: u64) -> u64 {
            Self::PLAIN.get(word) + Self::GETS.get(word)
        }

        /// Pins, likewise.
        #[inline(always)]
        fn pins(word: u64) -> u64 {
            Self::PINS.get(word)
        }

        /// Whether the frame is out of circulation.
        #[inline(always)]
        fn frozen(word: u64) -> bool {
            let state = word & (Self::REFS.mask() | Self::GETS.mask() | Self::PINS.mask() | Self::EXCLUSIVE);
            let highest = Self::GETS.mask() | Self::PINS.mask();
            state == highest || state == highest - Self::PINS.one()
        }
    }
}

pub(super) use sealed::Fields;

/// How a frame's word is packed: [`Wide`], [`Split23x8`], [`Split23x4x4`] or [`Biased10`].
///
/// Everything is in **one** 64-bit atomic: references, pins and `EXCLUSIVE`, and what the frame *is* (kind, order, dirty),
/// so that a transition changes all it has to, or nothing.
///
/// Plain references (mappings and gets) and pins are two counters, but for [`Biased10`], which has one for both; a frame is in use
/// while either is not 0.
///
/// | plain references | pins | `EXCLUSIVE` | state |
/// |---|---|---|---|
/// | 0 | 0 | 0 | free |
/// | 0 | all ones | 0 | frozen, was exclusive |
/// | 0 | all ones but the last | 0 | frozen, was shared |
/// | otherwise | | 0 or 1 | in use |
///
/// [Layouts](crate::documents::layouts) has them side by side, measured.
///
/// So `EXCLUSIVE` by itself says that the frame is in use and not frozen. (In [`Split23x4x4`] a frozen frame has the most gets
/// beside these pins, which no other has.)
pub trait Layout: Fields + 'static {
    /// Its name.
    const NAME: &'static str;
    /// Whether references are never taken for pins, nor pins for references, however many there are.
    const EXACT: bool = true;
    /// Whether the get family's references are counted by themselves, so that a frame holds those or pins and never both.
    const SEPARATE_GETS: bool = Self::GETS.bits != 0;
    /// Whether one pinner can take all pins of a frame at once, so that there is no other
    /// ([`PinFlags::SOLE`](crate::pin::PinFlags::SOLE)): more pins than there can be, all ones, of a frame that is `EXCLUSIVE`.
    const HAS_SOLE: bool = Self::EXACT;
}

/// No bit means two things.
const fn fits<L: Layout>() -> bool {
    disjoint(&[
        L::PLAIN.mask(),
        L::GETS.mask(),
        L::PINS.mask(),
        L::EXCLUSIVE,
        L::DIRTY,
        L::KIND.mask(),
        L::ORDER.mask(),
    ])
}

/// The counts and `EXCLUSIVE` are the low half of the word, all of it.
const fn is_low_half<L: Layout>() -> bool {
    L::REFS.mask() | L::GETS.mask() | L::PINS.mask() | L::EXCLUSIVE == u32::MAX as u64
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

static_assertions::const_assert!(
    disjoint(&[]) && disjoint(&[1, 2, 4]) && !disjoint(&[1, 2, 1]) && !disjoint(&[1, 2, 2])
);
