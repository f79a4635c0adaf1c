//! Why a fault could not be resolved.

use core::fmt;

use super::Unresolved;
use crate::addr::RangeError;
use crate::env::{ForeignFault, NotReady, Reentered};
use crate::errno::{EACCES, EAGAIN, EDEADLK, EFAULT, ENOMEM};
use crate::paging::TableError;

/// Why a fault could not be resolved. Nothing was changed, except that a page that had lost all rights, and whose VMA has
/// some again, may be present again, read-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultError {
    /// The address is not in the user half. The process gets SIGSEGV.
    Address(RangeError),
    /// No VMA contains the page. SIGSEGV.
    NoVma,
    /// The VMA does not permit the access. SIGSEGV.
    AccessDenied,
    /// A protection key denies the access. SIGSEGV.
    ProtectionKey,
    /// Foreign memory without an entry. SIGBUS.
    Foreign,
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
            Self::NoMemory => ENOMEM,
            Self::NotReady(_) => EAGAIN,
            Self::AccessDenied | Self::ProtectionKey => EACCES,
            Self::Reentered => EDEADLK,
            Self::NoVma | Self::Foreign | Self::NotFilled | Self::MalformedTable => EFAULT,
        }
    }
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => return error.fmt(f),
            Self::NoVma => "no VMA contains the address",
            Self::AccessDenied => "the VMA does not permit the access",
            Self::ProtectionKey => "a protection key denies the access",
            Self::Foreign => "foreign memory that nothing maps",
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

impl From<ForeignFault> for FaultError {
    fn from(fault: ForeignFault) -> Self {
        match fault {
            ForeignFault::NotMapped => Self::Foreign,
            ForeignFault::NoMemory => Self::NoMemory,
            ForeignFault::NotReady(what) => Self::NotReady(what),
        }
    }
}

impl From<NotReady> for FaultError {
    fn from(what: NotReady) -> Self {
        Self::NotReady(what)
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
            Unresolved::MalformedTable => Self::MalformedTable,
        }
    }
}
