//! Why a fault could not be resolved.

use core::fmt;

use super::Unresolved;
use crate::addr::RangeError;
use crate::env::{ForeignFault, GrowError, NotReady, ObjectError, Reentered, TokenError};
use crate::errno::{EACCES, EAGAIN, EDEADLK, EFAULT, EIO, ENOMEM};
use crate::paging::TableError;

/// Why a fault could not be resolved. Nothing was changed, except that a page that had lost all rights, and whose VMA has
/// some again, may be present again, read-only; and that a page whose object refuses the write may be shown, read-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultError {
    /// The address is not in the user half. The process gets SIGSEGV.
    Address(RangeError),
    /// No VMA contains the page, and none grows down to it. SIGSEGV.
    NoVma,
    /// A VMA would have to grow too near to the one below. SIGSEGV.
    GuardGap,
    /// A VMA would have to grow beyond what it may have. SIGSEGV.
    GrowthLimit,
    /// The VMA does not permit the access. SIGSEGV.
    AccessDenied,
    /// A protection key denies the access. SIGSEGV.
    ProtectionKey,
    /// Foreign memory without an entry. SIGBUS.
    Foreign,
    /// The object ends before the page, or there is none. SIGBUS.
    PastEnd,
    /// The page could not be read: its contents are lost. SIGBUS.
    Failed,
    /// No memory for the page or for a table. The access may be retried when there is some.
    NoMemory,
    /// The page is not there yet. The access may be retried when what the kernel named has happened.
    NotReady(NotReady),
    /// [`Vmas::fault_foreign`](crate::Vmas::fault_foreign) said that it had filled an entry which is empty: a bug in the
    /// kernel.
    NotFilled,
    /// This CPU is inside a section of an mm lock: a bug in the kernel.
    Reentered,
    /// Reserved bits are set or the user half holds a kernel entry: somebody else damaged the tables.
    MalformedTable,
}

impl FaultError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Address(error) => error.errno(),
            Self::NoMemory | Self::GrowthLimit => ENOMEM,
            Self::NotReady(_) => EAGAIN,
            Self::AccessDenied | Self::ProtectionKey => EACCES,
            Self::Reentered => EDEADLK,
            Self::NoVma | Self::GuardGap | Self::Foreign | Self::NotFilled | Self::PastEnd | Self::MalformedTable => {
                EFAULT
            }
            Self::Failed => EIO,
        }
    }
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => return error.fmt(f),
            Self::NoVma => "no VMA contains the address",
            Self::GuardGap => return GrowError::GuardGap.fmt(f),
            Self::GrowthLimit => return GrowError::Limit.fmt(f),
            Self::AccessDenied => "the VMA does not permit the access",
            Self::ProtectionKey => "a protection key denies the access",
            Self::Foreign => "foreign memory that nothing maps",
            Self::PastEnd => "beyond the end of the object",
            Self::Failed => "the page could not be read",
            Self::NoMemory => "out of memory",
            Self::NotReady(_) => "the page is not there yet",
            Self::NotFilled => "the kernel did not fill the entry",
            Self::Reentered => return Reentered.fmt(f),
            Self::MalformedTable => "the page tables are malformed",
        }
        .fmt(f)
    }
}

impl core::error::Error for FaultError {}

impl From<TableError> for FaultError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::NoMemory => Self::NoMemory,
            TableError::Malformed | TableError::LargeLeaf => Self::MalformedTable,
        }
    }
}

impl From<GrowError> for FaultError {
    fn from(error: GrowError) -> Self {
        match error {
            GrowError::NoVma => Self::NoVma,
            GrowError::AccessDenied => Self::AccessDenied,
            GrowError::GuardGap => Self::GuardGap,
            GrowError::Limit => Self::GrowthLimit,
            GrowError::Reentered(_) => Self::Reentered,
        }
    }
}

impl From<ForeignFault> for FaultError {
    fn from(fault: ForeignFault) -> Self {
        match fault {
            ForeignFault::NotMapped => Self::Foreign,
            ForeignFault::NoMemory => Self::NoMemory,
            ForeignFault::NotReady(what) => Self::NotReady(what),
        }
    }
}

impl From<ObjectError> for FaultError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::NoObject | ObjectError::PastEnd => Self::PastEnd,
            ObjectError::Denied => Self::AccessDenied,
            ObjectError::NotPinnable => Self::Foreign,
            ObjectError::NoMemory => Self::NoMemory,
            ObjectError::Failed => Self::Failed,
            ObjectError::NotReady(what) => Self::NotReady(what),
        }
    }
}

impl From<TokenError> for FaultError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Full | TokenError::NoMemory => Self::NoMemory,
            TokenError::Lost => Self::Failed,
            TokenError::NotReady(what) => Self::NotReady(what),
        }
    }
}

impl From<Reentered> for FaultError {
    fn from(_: Reentered) -> Self {
        Self::Reentered
    }
}

impl From<Unresolved> for FaultError {
    fn from(error: Unresolved) -> Self {
        match error {
            Unresolved::AccessDenied => Self::AccessDenied,
            Unresolved::Foreign => Self::Foreign,
            Unresolved::NoMemory => Self::NoMemory,
            // Who is told so asks the object or the slot.
            Unresolved::Elsewhere | Unresolved::MalformedTable => Self::MalformedTable,
        }
    }
}
