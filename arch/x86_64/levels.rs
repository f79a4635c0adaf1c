//! The shape of the tables: 4 or 5 levels of 512 entries, leaves at the three lowest.

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserHalf};

/// log2 of the entries in one table.
const INDEX_BITS: u8 = 9;
/// Entries in one table.
pub(crate) const ENTRIES: u64 = 1 << INDEX_BITS;

/// How many levels the tables of an address space have (`CR4.LA57`).
///
/// ```
/// use pagepin::Levels;
/// assert_eq!(Levels::Four.user_half().kernel_start(), 0xffff_8000_0000_0000);
/// assert_eq!(Levels::Five.user_half().kernel_start(), 0xff00_0000_0000_0000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// 48-bit virtual addresses; the root is a PML4.
    Four,
    /// 57-bit virtual addresses; the root is a PML5.
    Five,
}

impl Levels {
    /// The level of the root.
    #[must_use]
    #[inline(always)]
    pub const fn top(self) -> Level {
        match self {
            Self::Four => Level { shift: Level::LOWEST.shift + 3 * INDEX_BITS },
            Self::Five => Level { shift: Level::LOWEST.shift + 4 * INDEX_BITS },
        }
    }

    /// The level above [`Level::UPPER`], where there is one.
    #[inline(always)]
    pub(crate) const fn extra(self) -> Option<Level> {
        match self {
            Self::Four => None,
            Self::Five => Some(self.top()),
        }
    }

    const fn half(self) -> u64 {
        self.top().span() << (INDEX_BITS - 1)
    }

    /// The addresses that user pages may have.
    ///
    /// It ends one page below the canonical hole: a `SYSCALL` in the last bytes of that page would return to a
    /// non-canonical address, on which Intel's `SYSRET` faults in ring 0 (CVE-2012-0217).
    #[must_use]
    #[inline]
    pub const fn user_half(self) -> UserHalf {
        UserHalf::new(self.half() - PAGE_SIZE, self.half().wrapping_neg())
    }

    /// Root entries below this index belong to user space; the others are the kernel's and the same in every root.
    #[must_use]
    pub const fn user_root_entries(self) -> u64 {
        ENTRIES / 2
    }
}

/// A level of the tables, from the lowest, whose entries map 4 KiB, up to the root's.
///
/// Kept as the number of address bits below its index, which is what a walk needs at every step.
///
/// ```
/// use pagepin::{LeafSize, Levels};
/// let top = Levels::Four.top();
/// assert_eq!((top.index(0xffff_8000_0000_0000), top.leaf_size()), (256, None));
/// assert_eq!(top.below().below().leaf_size(), Some(LeafSize::Size2MiB));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level {
    shift: u8,
}

impl Level {
    /// The tables whose entries are all leaves.
    pub const LOWEST: Self = Self { shift: PAGE_SHIFT as u8 };

    /// The levels above the lowest that every mm has, from the top. As a constant, so that a walk over them is unrolled
    /// and each index is one shift by a constant.
    pub(crate) const UPPER: [Self; 3] =
        [Levels::Four.top(), Levels::Four.top().below(), Levels::Four.top().below().below()];

    /// The level below. Not for the lowest.
    #[inline(always)]
    #[must_use]
    pub const fn below(self) -> Self {
        Self { shift: self.shift - INDEX_BITS }
    }

    /// Bytes that one entry covers.
    #[inline(always)]
    #[must_use]
    pub const fn span(self) -> u64 {
        1 << self.shift
    }

    /// Index of `address` in a table of this level.
    #[inline(always)]
    #[must_use]
    pub const fn index(self, address: u64) -> u64 {
        (address >> self.shift) & (ENTRIES - 1)
    }

    /// The size of this level's leaves; `None` where the hardware has none (PS is reserved in levels 4 and 5).
    #[inline(always)]
    #[must_use]
    pub const fn leaf_size(self) -> Option<LeafSize> {
        match self.shift {
            12 => Some(LeafSize::Size4KiB),
            21 => Some(LeafSize::Size2MiB),
            30 => Some(LeafSize::Size1GiB),
            _ => None,
        }
    }
}

/// The sizes a leaf can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeafSize {
    /// One base page, level 1.
    Size4KiB,
    /// 512 pages, level 2.
    Size2MiB,
    /// 262,144 pages, level 3.
    Size1GiB,
}

impl LeafSize {
    /// The level whose entries are leaves of this size.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Size4KiB => Level::LOWEST,
            Self::Size2MiB => Level { shift: Level::LOWEST.shift + INDEX_BITS },
            Self::Size1GiB => Level { shift: Level::LOWEST.shift + 2 * INDEX_BITS },
        }
    }

    /// The size of the leaves that take the place of one of this size when it is split; base pages stay what they are.
    #[must_use]
    pub(crate) const fn part_size(self) -> Self {
        match self {
            Self::Size4KiB | Self::Size2MiB => Self::Size4KiB,
            Self::Size1GiB => Self::Size2MiB,
        }
    }

    /// log2 of the number of base pages.
    #[must_use]
    #[inline(always)]
    pub const fn order(self) -> u8 {
        self.level().shift - PAGE_SHIFT as u8
    }

    /// Number of base pages.
    #[must_use]
    #[inline(always)]
    pub const fn pages(self) -> u64 {
        1 << self.order()
    }

    /// Number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.level().span()
    }
}
