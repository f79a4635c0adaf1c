//! Where the fields of a frame word lie. The transitions in [`super::PageFrame`] are written once over these
//! constants; a layout proves itself by const assertions.

use static_assertions::const_assert;

use crate::primitive::{AtomicU32, AtomicU64, Ordering, safeguard};

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
    pub(crate) const fn top(self) -> u64 {
        1 << (self.shift + self.bits - 1)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// How the counts of a [`PageFrame`](super::PageFrame) are packed.
///
/// References, pins and `EXCLUSIVE` share **one** atomic word, the *count word*; what a frame *is* (kind, order) and
/// whether it is dirty are *attributes*, in the same word where there is room and beside it where there is not.
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
pub trait Layout: sealed::Sealed + 'static {
    /// The storage of one frame.
    type Cell: Send + Sync;
    /// Count of plain references.
    const REFS: Field;
    /// Count of pins. A pin is a reference as well, but is not counted twice.
    const PINS: Field;
    /// "Mapped by at most one mm, may be pinned and written" (INV-2, INV-3).
    const EXCLUSIVE: u64;
    /// Attribute: written by a device or through a mapping that is gone.
    const DIRTY: u64;
    /// Attribute: [`FrameKind`](super::FrameKind).
    const KIND: Field;
    /// Attribute: log2 of the number of frames this one stands for.
    const ORDER: Field;
    /// Whether the attributes live in the count word (and so change in the same atomic step).
    const ATTRIBUTES_IN_WORD: bool;

    #[doc(hidden)]
    fn new(word: u64, attributes: u64) -> Self::Cell;
    #[doc(hidden)]
    fn load(cell: &Self::Cell, order: Ordering) -> u64;
    #[doc(hidden)]
    fn exchange(cell: &Self::Cell, from: u64, to: u64, order: Ordering) -> Result<u64, u64>;
    #[doc(hidden)]
    fn load_attributes(cell: &Self::Cell) -> u64;
    #[doc(hidden)]
    fn store_attributes(cell: &Self::Cell, attributes: u64);
    #[doc(hidden)]
    fn add_attributes(cell: &Self::Cell, attributes: u64);
}

/// The default: 64 bits, exact.
///
/// 32 bits of references and 21 of pins (2 million, as many as on Linux), and nothing can wrap however many CPUs race, because
/// every change is a compare-and-exchange that looked first. Everything that the hot paths of pin and unpin look at lies
/// in the low half, within the reach of an immediate operand.
#[derive(Clone, Copy, Debug)]
pub struct Wide;

impl sealed::Sealed for Wide {}
impl Layout for Wide {
    type Cell = AtomicU64;
    const EXCLUSIVE: u64 = 1 << 0;
    const DIRTY: u64 = 1 << 1;
    const KIND: Field = Field { shift: 2, bits: 3 };
    const ORDER: Field = Field { shift: 5, bits: 5 };
    const PINS: Field = Field { shift: 10, bits: 21 };
    const REFS: Field = Field { shift: 32, bits: 32 };
    const ATTRIBUTES_IN_WORD: bool = true;

    fn new(word: u64, attributes: u64) -> AtomicU64 {
        AtomicU64::new(word | attributes)
    }
    #[inline(always)]
    fn load(cell: &AtomicU64, order: Ordering) -> u64 {
        cell.load(order)
    }
    #[inline(always)]
    fn exchange(cell: &AtomicU64, from: u64, to: u64, order: Ordering) -> Result<u64, u64> {
        cell.compare_exchange_weak(from, to, safeguard!(WordOrdering: order), Ordering::Relaxed)
    }
    #[inline(always)]
    fn load_attributes(cell: &AtomicU64) -> u64 {
        cell.load(Ordering::Relaxed)
    }
    #[inline(always)]
    fn store_attributes(_: &AtomicU64, _: u64) {
        // They travel in the count word: whoever exchanges it has put them there.
    }
    #[inline(always)]
    fn add_attributes(cell: &AtomicU64, attributes: u64) {
        cell.fetch_or(attributes, Ordering::Relaxed);
    }
}

/// 32 bits as in the 2021 proposal to raise Linux's pin bias to `1 << 23`: 23 bits of references, 8 of pins.
///
/// The counts are exact here, too, but small: the 256th pin of a frame is refused. The last bit of the count word is
/// `EXCLUSIVE`; the attributes need a second 32-bit word.
#[derive(Clone, Copy, Debug)]
pub struct Split23x8;

/// Storage of one frame under [`Split23x8`].
#[derive(Debug)]
#[repr(C)]
pub struct SplitCell {
    word: AtomicU32,
    attributes: AtomicU32,
}

impl sealed::Sealed for Split23x8 {}
impl Layout for Split23x8 {
    type Cell = SplitCell;
    const REFS: Field = Field { shift: 0, bits: 23 };
    const PINS: Field = Field { shift: 23, bits: 8 };
    const EXCLUSIVE: u64 = 1 << 31;
    const DIRTY: u64 = 1 << 0;
    const KIND: Field = Field { shift: 1, bits: 3 };
    const ORDER: Field = Field { shift: 4, bits: 5 };
    const ATTRIBUTES_IN_WORD: bool = false;

    fn new(word: u64, attributes: u64) -> SplitCell {
        SplitCell { word: AtomicU32::new(word as u32), attributes: AtomicU32::new(attributes as u32) }
    }
    #[inline(always)]
    fn load(cell: &SplitCell, order: Ordering) -> u64 {
        u64::from(cell.word.load(order))
    }
    #[inline(always)]
    fn exchange(cell: &SplitCell, from: u64, to: u64, order: Ordering) -> Result<u64, u64> {
        let success = safeguard!(WordOrdering: order);
        let result = cell.word.compare_exchange_weak(from as u32, to as u32, success, Ordering::Relaxed);
        result.map(u64::from).map_err(u64::from)
    }
    #[inline(always)]
    fn load_attributes(cell: &SplitCell) -> u64 {
        u64::from(cell.attributes.load(Ordering::Relaxed))
    }
    #[inline(always)]
    fn store_attributes(cell: &SplitCell, attributes: u64) {
        cell.attributes.store(attributes as u32, Ordering::Relaxed);
    }
    #[inline(always)]
    fn add_attributes(cell: &SplitCell, attributes: u64) {
        cell.attributes.fetch_or(attributes as u32, Ordering::Relaxed);
    }
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
const_assert!(disjoint(&[Wide::REFS.mask(), Wide::PINS.mask(), Wide::EXCLUSIVE]));
const_assert!(disjoint(&[Wide::REFS.mask(), Wide::PINS.mask(), Wide::EXCLUSIVE, Wide::DIRTY]));
const_assert!(disjoint(&[Wide::DIRTY | Wide::EXCLUSIVE, Wide::KIND.mask(), Wide::ORDER.mask(), Wide::PINS.mask()]));
const_assert!(disjoint(&[Split23x8::REFS.mask(), Split23x8::PINS.mask(), Split23x8::EXCLUSIVE]));
const_assert!(Split23x8::REFS.mask() | Split23x8::PINS.mask() | Split23x8::EXCLUSIVE == u32::MAX as u64);
const_assert!(disjoint(&[Split23x8::DIRTY, Split23x8::KIND.mask(), Split23x8::ORDER.mask()]));
#[cfg(not(pagepin_checker))]
const_assert!(size_of::<SplitCell>() == 8 && size_of::<AtomicU64>() == 8);
