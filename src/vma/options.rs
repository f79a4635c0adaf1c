//! What is said of a mapping when it is made: rights, a protection key, flags, a number of the kernel's.

use core::fmt;

use bitflags::bitflags;

use crate::errno::{EACCES, EINVAL, EOVERFLOW};
use crate::rights::Rights;

bitflags! {
    /// What an operation does otherwise with a VMA.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct VmaFlags: u16 {
        /// A child gets neither the VMA nor its pages (`VM_DONTCOPY` on Linux). A parent that lends pages to a device spares
        /// fork the copies.
        const DONT_FORK = 1 << 0;
        /// A child gets the VMA, and zeroes in it (`VM_WIPEONFORK`). For keys and the state of random generators.
        const WIPE_ON_FORK = 1 << 1;
        /// Taking the right to write, or all rights, from a page that is pinned, for reading or writing, is refused. Without it rights
        /// are user code's alone, and a device keeps what it was given, as on Linux. A pin that is being taken at the same
        /// moment may come before or after.
        const REFUSE_PROTECT_PINNED = 1 << 2;
        /// Unmapping or discarding a page that is pinned is refused. Without it, and the next, the page goes, its frame
        /// stays as long as the pin, and the caller is told which. As with protect, a pin may be taken at the same moment.
        const REFUSE_UNMAP_PINNED = 1 << 3;
        /// Unmapping a page that is pinned is deferred: nobody may access the VMA from then on, and no child gets it, but its addresses
        /// stay taken and its pages stay where they are until none is pinned any more and the kernel calls
        /// [`finish_deferred`](crate::space::UserSpace::finish_deferred). Discarding such a page is refused.
        const DEFER_UNMAP_PINNED = 1 << 4;
        /// An unmap of it waits. Set by the unmap, and by nobody else.
        const UNMAP_DEFERRED = 1 << 5;
        /// No form of pin or get takes its pages (`VM_SECRETMEM` on Linux): every one is refused as `NotPinnable`. User code and the kernel's
        /// copies use them as any other. They stay in their frames: swap-out, relocation and merge pass over them. Said when the memory is
        /// mapped, and then for good, since each entry says it, too. An object whose pages nobody may pin by its number refuses that
        /// itself ([`Objects::may_pin`](crate::Objects::may_pin)).
        const UNPINNABLE = 1 << 6;
        /// A fault below grows it: see [`Growth`](crate::space::Growth). For stacks (`VM_GROWSDOWN` on Linux).
        const GROWS_DOWN = 1 << 7;
    }
}

/// Protection keys that an entry has room for.
pub(super) const KEYS: u8 = 16;

/// A protection key and [`VmaFlags`] in two bytes, so that a fault copies no more than eight of a VMA.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyAndFlags(u16);

impl KeyAndFlags {
    /// Bits of the key: one more than it needs, for a number that is none.
    const KEY_BITS: u32 = 5;

    pub(super) const fn new(key: u8, flags: VmaFlags) -> Self {
        let key = if key < KEYS { key } else { KEYS };
        Self(flags.bits() << Self::KEY_BITS | key as u16)
    }

    #[inline(always)]
    pub(super) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub(super) const fn bits(self) -> u16 {
        self.0
    }

    #[inline(always)]
    pub(super) const fn key(self) -> u8 {
        (self.0 & ((1 << Self::KEY_BITS) - 1)) as u8
    }

    #[inline(always)]
    pub(super) const fn flags(self) -> VmaFlags {
        VmaFlags::from_bits_truncate(self.0 >> Self::KEY_BITS)
    }
}

static_assertions::const_assert!(VmaFlags::all().bits().leading_zeros() >= KeyAndFlags::KEY_BITS);

impl fmt::Debug for KeyAndFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}, {:?}", self.key(), self.flags())
    }
}

/// What a new mapping may do. Checked where it becomes a [`Vma`](crate::Vma).
///
/// ```
/// use pagepin::{MapOptions, Rights};
/// let read_now_write_later = MapOptions::new(Rights::READ).max_rights(Rights::READ | Rights::WRITE).key(3);
/// ```
///
/// ```
/// use pagepin::{MapOptions, Rights, VmaFlags};
/// let heap = MapOptions::new(Rights::READ | Rights::WRITE).flags(VmaFlags::WIPE_ON_FORK).data(7); // 7: the kernel's own number
/// assert!(!heap.max_rights(Rights::READ).eq(&heap));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapOptions {
    pub(super) rights: Rights,
    pub(super) max_rights: Rights,
    pub(super) key_and_flags: KeyAndFlags,
    pub(super) data: u16,
}

impl MapOptions {
    /// `rights` now, any later; protection key 0, no flags.
    #[must_use]
    pub const fn new(rights: Rights) -> Self {
        Self { rights, max_rights: Rights::all(), key_and_flags: KeyAndFlags::new(0, VmaFlags::empty()), data: 0 }
    }

    /// The rights that the mapping may ever be given (`VM_MAYREAD` and the like on Linux).
    #[must_use]
    pub const fn max_rights(self, max_rights: Rights) -> Self {
        Self { max_rights, ..self }
    }

    /// The protection key of its pages (0..16).
    #[must_use]
    pub const fn key(self, key: u8) -> Self {
        Self { key_and_flags: KeyAndFlags::new(key, self.key_and_flags.flags()), ..self }
    }

    /// What operations do otherwise with it.
    #[must_use]
    pub const fn flags(self, flags: VmaFlags) -> Self {
        Self { key_and_flags: KeyAndFlags::new(self.key_and_flags.key(), flags), ..self }
    }

    /// A number of the kernel's own: what the mapping is for, or the place in a table where more is written about it; there are as
    /// many as an address space may have VMAs. It stays with the VMA through splits and forks, and VMAs with different
    /// numbers are not joined.
    #[must_use]
    pub const fn data(self, data: u16) -> Self {
        Self { data, ..self }
    }
}

impl From<Rights> for MapOptions {
    fn from(rights: Rights) -> Self {
        Self::new(rights)
    }
}

/// Why there can be no such [`Vma`](crate::Vma).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VmaError {
    /// More rights than it may ever be given.
    RightsExceedMax,
    /// There are 16 protection keys.
    InvalidKey,
    /// Only anonymous memory can be wiped on fork or grow down, an unmap is refused or deferred and not both, nobody asks for one
    /// that waits, and whether pages can be pinned does not change.
    InvalidFlags,
    /// An object has no page of such a number.
    PageOverflow,
}

impl VmaError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::RightsExceedMax => EACCES,
            Self::InvalidKey | Self::InvalidFlags => EINVAL,
            Self::PageOverflow => EOVERFLOW,
        }
    }
}

impl fmt::Display for VmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RightsExceedMax => "more rights than the VMA may be given",
            Self::InvalidKey => "there is no such protection key",
            Self::InvalidFlags => "flags that contradict each other or the kind of memory",
            Self::PageOverflow => "beyond the last page that an object can have",
        })
    }
}

impl core::error::Error for VmaError {}
