//! Why an operation on a [`UserSpace`](super::UserSpace) failed.

use core::fmt;

use super::{ProtectError, ZapError};
use crate::addr::{PageAddr, RangeError};
use crate::env::{ObjectError, Reentered, TokenError};
use crate::errno::{EACCES, EBUSY, EDEADLK, EEXIST, EFAULT, EINVAL, ENOMEM};
use crate::paging::TableError;
use crate::vma::VmaError;

/// Why an operation on a [`UserSpace`](super::UserSpace) failed. Nothing was changed, unless other threads changed the same long
/// range while it was changed step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpaceError {
    /// The range is not one of whole user pages.
    Range(RangeError),
    /// Some page of the range is in a VMA already.
    Overlap,
    /// Some page of the range is in no VMA.
    NoVma,
    /// More rights than the VMA may be given.
    AccessDenied,
    /// A page is pinned and the policy says no.
    Pinned(PageAddr),
    /// A large leaf is in the way that cannot be split: an object's or a driver's block, or none, or one whose count is at its limit.
    LargeLeaf,
    /// There is no such protection key.
    InvalidKey,
    /// Only private memory can be wiped on fork.
    InvalidFlags,
    /// An object has no page of such a number.
    PageOverflow,
    /// The kernel has no such object.
    NoObject,
    /// The kernel has no slot for another page.
    NoSlot,
    /// No free stretch of addresses is that long.
    NoRoom,
    /// The address space has as many VMAs as it may have.
    TooManyVmas,
    /// Out of memory.
    NoMemory,
    /// This CPU is inside a section of an mm lock: a bug in the kernel.
    Reentered,
    /// Somebody else damaged the tables.
    MalformedTable,
}

impl SpaceError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Range(_) | Self::LargeLeaf | Self::InvalidKey | Self::InvalidFlags => EINVAL,
            Self::Overlap => EEXIST,
            Self::NoVma | Self::NoRoom | Self::TooManyVmas | Self::NoMemory => ENOMEM,
            Self::AccessDenied => EACCES,
            Self::Pinned(_) => EBUSY,
            Self::Reentered => EDEADLK,
            Self::MalformedTable => EFAULT,
            Self::PageOverflow => VmaError::PageOverflow.errno(),
            Self::NoObject => ObjectError::NoObject.errno(),
            Self::NoSlot => TokenError::Full.errno(),
        }
    }
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => return error.fmt(f),
            Self::Pinned(page) => return ProtectError::Pinned(*page).fmt(f),
            Self::Overlap => "the range overlaps a VMA",
            Self::NoVma => "some page is in no VMA",
            Self::AccessDenied => return VmaError::RightsExceedMax.fmt(f),
            Self::InvalidKey => return VmaError::InvalidKey.fmt(f),
            Self::InvalidFlags => return VmaError::InvalidFlags.fmt(f),
            Self::PageOverflow => return VmaError::PageOverflow.fmt(f),
            Self::NoObject => return ObjectError::NoObject.fmt(f),
            Self::NoSlot => return TokenError::Full.fmt(f),
            Self::LargeLeaf => "a large leaf is in the way that cannot be split",
            Self::NoRoom => "no free addresses",
            Self::TooManyVmas => "too many VMAs",
            Self::NoMemory => "out of memory",
            Self::Reentered => return Reentered.fmt(f),
            Self::MalformedTable => "the page tables are malformed",
        }
        .fmt(f)
    }
}

impl core::error::Error for SpaceError {}

impl From<RangeError> for SpaceError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<Reentered> for SpaceError {
    fn from(_: Reentered) -> Self {
        Self::Reentered
    }
}

impl From<VmaError> for SpaceError {
    fn from(error: VmaError) -> Self {
        match error {
            VmaError::RightsExceedMax => Self::AccessDenied,
            VmaError::InvalidKey => Self::InvalidKey,
            VmaError::InvalidFlags => Self::InvalidFlags,
            VmaError::PageOverflow => Self::PageOverflow,
        }
    }
}

impl From<alloc::collections::TryReserveError> for SpaceError {
    fn from(_: alloc::collections::TryReserveError) -> Self {
        Self::NoMemory
    }
}

impl From<TableError> for SpaceError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::NoMemory => Self::NoMemory,
            TableError::LargeLeaf => Self::LargeLeaf,
            TableError::Malformed => Self::MalformedTable,
        }
    }
}

impl From<ZapError> for SpaceError {
    fn from(error: ZapError) -> Self {
        match error {
            ZapError::LargeLeaf => Self::LargeLeaf,
            ZapError::NoMemory => Self::NoMemory,
            ZapError::MalformedTable => Self::MalformedTable,
        }
    }
}

impl From<ProtectError> for SpaceError {
    fn from(error: ProtectError) -> Self {
        match error {
            ProtectError::LargeLeaf => Self::LargeLeaf,
            ProtectError::NoMemory => Self::NoMemory,
            ProtectError::Pinned(page) => Self::Pinned(page),
            ProtectError::MalformedTable => Self::MalformedTable,
        }
    }
}
