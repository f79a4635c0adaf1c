//! [`Terms`]: what of a VMA decides about a fault.

use core::fmt;

use super::options::KeyAndFlags;
use super::{Backing, MapOptions, VmaFlags};
use crate::arch::MemoryType;
use crate::rights::Rights;

/// Rights, key, flags, the kernel's number, and what kind of thing fills it, without the numbers of that: one word, which a fault loads once. (As
/// a struct of bytes, the compiler would load each that is asked about, and put them together again for who is passed all.)
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms(u64);

/// Where the parts begin.
const MAX_RIGHTS: u32 = 8;
const KEY_AND_FLAGS: u32 = 16;
const DATA: u32 = 32;
const MEMORY: u32 = 56;

/// The kind of thing; none of these: anonymous memory.
const OBJECT: u64 = 1 << 48;
const SHARED: u64 = 1 << 49;
const FOREIGN: u64 = 1 << 50;
/// As the flag of this name says, for who asks about both at once.
const UNPINNABLE: u64 = 1 << 51;
const KIND: u64 = 0xff << 48;

/// Of memory that is not foreign, and so is write-back: pages are about to be pinned for long.
const STAYS: u64 = 1 << 63;

impl Terms {
    pub(super) const fn new(options: MapOptions, backing: Backing) -> Self {
        let (kind, memory) = match backing {
            Backing::Anonymous => (0, MemoryType::WRITE_BACK),
            Backing::Foreign(memory) => (FOREIGN, memory),
            Backing::Object { shared: false, .. } => (OBJECT, MemoryType::WRITE_BACK),
            Backing::Object { shared: true, .. } => (OBJECT | SHARED, MemoryType::WRITE_BACK),
        };
        let kind = if options.key_and_flags.flags().contains(VmaFlags::UNPINNABLE) { kind | UNPINNABLE } else { kind };
        let (rights, max_rights) = (options.rights.bits() as u64, options.max_rights.bits() as u64);
        let (key_and_flags, data) = (options.key_and_flags.bits() as u64, options.data as u64);
        let memory = (memory.pat_index() as u64) << MEMORY;
        Self(rights | max_rights << MAX_RIGHTS | key_and_flags << KEY_AND_FLAGS | data << DATA | kind | memory)
    }

    #[inline(always)]
    const fn has(self, kind: u64) -> bool {
        self.0 & kind != 0
    }

    #[inline(always)]
    pub(crate) const fn rights(self) -> Rights {
        Rights::from_bits_truncate(self.0 as u8)
    }

    #[inline(always)]
    pub(crate) const fn max_rights(self) -> Rights {
        Rights::from_bits_truncate((self.0 >> MAX_RIGHTS) as u8)
    }

    #[inline(always)]
    const fn key_and_flags(self) -> KeyAndFlags {
        KeyAndFlags::from_bits((self.0 >> KEY_AND_FLAGS) as u16)
    }

    #[inline(always)]
    pub(crate) const fn key(self) -> u8 {
        self.key_and_flags().key()
    }

    #[inline(always)]
    pub(super) const fn flags(self) -> VmaFlags {
        self.key_and_flags().flags()
    }

    pub(super) const fn data(self) -> u16 {
        (self.0 >> DATA) as u16
    }

    /// How the pages are accessed.
    #[inline(always)]
    pub(super) const fn memory(self) -> MemoryType {
        match MemoryType::from_pat_index((self.0 >> MEMORY) as u8 & 7) {
            Some(memory) => memory,
            None => MemoryType::UNCACHED,
        }
    }

    #[inline(always)]
    pub(crate) const fn is_anonymous(self) -> bool {
        !self.has(OBJECT | FOREIGN)
    }

    /// As [`Backing::is_foreign`].
    #[inline(always)]
    pub(crate) const fn is_foreign(self) -> bool {
        self.has(FOREIGN)
    }

    /// As [`Backing::is_shared`].
    #[inline(always)]
    pub(crate) const fn is_shared(self) -> bool {
        self.has(SHARED)
    }

    /// As [`Backing::is_private`].
    #[inline(always)]
    pub(crate) const fn is_private(self) -> bool {
        !self.has(SHARED | FOREIGN)
    }

    /// Nobody pins its pages: [`VmaFlags::UNPINNABLE`].
    #[inline(always)]
    pub(crate) const fn is_unpinnable(self) -> bool {
        self.has(UNPINNABLE)
    }

    /// Pages of an object fill it.
    #[inline(always)]
    pub(crate) const fn is_object(self) -> bool {
        self.has(OBJECT)
    }

    /// Anonymous, and pinned as any other: one look.
    #[inline(always)]
    pub(crate) const fn is_plain(self) -> bool {
        !self.has(KIND)
    }

    /// The same for a fault whose page is to stay where it is: new frames are taken where they may.
    pub(crate) const fn staying(self) -> Self {
        Self(self.0 | STAYS)
    }

    /// Whether it was made [`staying`](Self::staying).
    #[inline(always)]
    pub(crate) const fn stays(self) -> bool {
        self.has(STAYS)
    }

    pub(super) const fn with_rights(self, rights: Rights) -> Self {
        Self(self.0 & !0xff | rights.bits() as u64)
    }

    /// None now, and none ever.
    pub(super) const fn without_rights(self) -> Self {
        Self(self.0 & !0xffff)
    }

    pub(super) const fn with_flags(self, flags: VmaFlags) -> Self {
        let bits = KeyAndFlags::new(self.key(), flags).bits() as u64;
        Self(self.0 & !(0xffff << KEY_AND_FLAGS) | bits << KEY_AND_FLAGS)
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rights, max_rights, data) = (self.rights(), self.max_rights(), self.data());
        write!(f, "{rights:?} of {max_rights:?}, {:?}, data {data}, {:?}", self.key_and_flags(), self.memory())
    }
}
