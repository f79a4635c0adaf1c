//! Why pages could not be pinned.

use core::fmt;

use crate::addr::RangeError;
use crate::env::{BudgetExceeded, NotReady, Reentered};
use crate::errno::{EACCES, EAGAIN, EBUSY, EDEADLK, EFAULT, EINVAL, EIO, ENOMEM, ENOSPC, EOPNOTSUPP};
use crate::fault::{FaultError, Unresolved};
use crate::frame::CountError;
use crate::paging::TableError;

/// Why pages could not be pinned or referenced, one variant per cause.
///
/// Worth a retry as it is: `WouldFault` (with a form that may fault), `Contended`, `NoMemory`, `NotReady` when what was named
/// has happened, `NoPinnableMemory` when some was freed or moved away, and `BudgetExceeded`, `OtherKind`, `Sole`, `KeptByPin` and
/// `KeptByReference` when pins or gets have been released. The others need a different call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PinError {
    /// The address range is not one of user memory.
    Range(RangeError),
    /// Unknown flag bits, or flags that contradict each other or the call.
    InvalidFlags,
    /// No VMA contains the page.
    NoVma,
    /// The VMA does not permit the access.
    AccessDenied,
    /// A protection key denies the access.
    ProtectionKey,
    /// Device registers, foreign memory, memory without a frame table entry, or a VMA that is
    /// [unpinnable](crate::VmaFlags::UNPINNABLE).
    NotPinnable,
    /// The object ends before the page.
    PastEnd,
    /// The page could not be read: its contents are lost.
    Failed,
    /// A form that never faults met a page that needs a fault, or that only the slow path may judge.
    WouldFault,
    /// Out of memory while a page was made ready: with [`LONGTERM`](super::PinFlags::LONGTERM), where pages may stay.
    NoMemory,
    /// The page may not stay where it is for as long as a long-term pin, and there is no frame for it where it may
    /// ([`Zone::Unmovable`](crate::Zone::Unmovable)).
    NoPinnableMemory,
    /// The page may not stay where it is, and somebody else's pin keeps it there.
    KeptByPin,
    /// The same, and somebody else refers to its frame: a get, a slot, another address space.
    KeptByReference,
    /// The same, and pages of its kind are not moved: an object's, and large leaves.
    CannotMove,
    /// For long, and for writing, a page of an object that is written back
    /// ([`Objects::is_written_back`](crate::Objects::is_written_back)).
    WrittenBack,
    /// A frame's count is at its limit.
    CountOverflow,
    /// Somebody pinned the page, and one of the two wants no other ([`PinFlags::SOLE`](super::PinFlags::SOLE)).
    Sole,
    /// The layout of the kernel's frame words knows no sole pins.
    NoSole,
    /// The page is held by gets and cannot be pinned, or the reverse. Only frames of
    /// [`Split23x4x4`](crate::frame::Split23x4x4) say so.
    OtherKind,
    /// The owner of the mm may not pin more.
    BudgetExceeded,
    /// The caller's buffer has no room for another run.
    BufferTooSmall,
    /// Fewer pages than asked for, where all or nothing was wanted.
    Incomplete,
    /// Other threads kept changing the page; a bounded number of attempts was made.
    Contended,
    /// A page is not there yet. Worth a retry when what the kernel named has happened; what was pinned until then can be
    /// [resumed](super::Pinned::resume).
    NotReady(NotReady),
    /// This CPU is inside a section of an mm lock: a bug in the kernel.
    Reentered,
    /// The page tables were damaged by someone else.
    MalformedTable,
}

impl PinError {
    /// The nearest Linux error number (positive). Limits and overflow are never `EFAULT`.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Range(error) => error.errno(),
            Self::InvalidFlags => EINVAL,
            Self::NoVma | Self::AccessDenied | Self::NotPinnable | Self::PastEnd | Self::MalformedTable => EFAULT,
            Self::Failed => EIO,
            Self::ProtectionKey => EACCES,
            Self::WouldFault | Self::Contended | Self::Incomplete | Self::NotReady(_) => EAGAIN,
            Self::NoMemory | Self::NoPinnableMemory | Self::CountOverflow | Self::BudgetExceeded => ENOMEM,
            Self::BufferTooSmall => ENOSPC,
            Self::OtherKind | Self::Sole | Self::KeptByPin | Self::KeptByReference => EBUSY,
            Self::NoSole | Self::CannotMove | Self::WrittenBack => EOPNOTSUPP,
            Self::Reentered => EDEADLK,
        }
    }
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => return error.fmt(f),
            Self::InvalidFlags => "invalid flags",
            Self::NoVma => "no VMA contains the page",
            Self::AccessDenied => "the VMA does not permit the access",
            Self::ProtectionKey => "a protection key denies the access",
            Self::NotPinnable => "not ordinary memory",
            Self::PastEnd => "beyond the end of the object",
            Self::Failed => "the page could not be read",
            Self::WouldFault => "the page would have to be faulted in",
            Self::NoMemory => "out of memory",
            Self::NoPinnableMemory => "not where it may be pinned for long, and there is no memory that may",
            Self::KeptByPin => "not where it may be pinned for long, and kept there by another pin",
            Self::KeptByReference => "not where it may be pinned for long, and referred to by others",
            Self::CannotMove => "not where it may be pinned for long, and of a kind that is not moved",
            Self::WrittenBack => "written back, and so not pinned for long for writing",
            Self::CountOverflow => "the frame's count is at its limit",
            Self::Sole => "pinned, and one pinner wants no other",
            Self::NoSole => "the frame words know no sole pins",
            Self::OtherKind => "held by gets and not by pins, or the reverse",
            Self::BudgetExceeded => "the pin budget is exhausted",
            Self::BufferTooSmall => "the buffer has no room for another run",
            Self::Incomplete => "only a part of the range could be pinned",
            Self::Contended => "the page kept changing",
            Self::NotReady(_) => "the page is not there yet",
            Self::Reentered => return Reentered.fmt(f),
            Self::MalformedTable => "the page tables are malformed",
        }
        .fmt(f)
    }
}

impl core::error::Error for PinError {}

impl From<RangeError> for PinError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<Reentered> for PinError {
    fn from(_: Reentered) -> Self {
        Self::Reentered
    }
}

impl From<BudgetExceeded> for PinError {
    fn from(_: BudgetExceeded) -> Self {
        Self::BudgetExceeded
    }
}

impl From<FaultError> for PinError {
    fn from(error: FaultError) -> Self {
        match error {
            FaultError::Address(error) => Self::Range(error),
            // A pin grows nothing.
            FaultError::NoVma | FaultError::GuardGap | FaultError::GrowthLimit => Self::NoVma,
            FaultError::AccessDenied => Self::AccessDenied,
            FaultError::ProtectionKey => Self::ProtectionKey,
            FaultError::Foreign | FaultError::NotFilled => Self::NotPinnable,
            FaultError::PastEnd => Self::PastEnd,
            FaultError::Failed => Self::Failed,
            FaultError::NotReady(what) => Self::NotReady(what),
            FaultError::NoMemory => Self::NoMemory,
            FaultError::Reentered => Self::Reentered,
            FaultError::MalformedTable => Self::MalformedTable,
        }
    }
}

impl From<Unresolved> for PinError {
    fn from(error: Unresolved) -> Self {
        FaultError::from(error).into()
    }
}

impl From<TableError> for PinError {
    fn from(error: TableError) -> Self {
        FaultError::from(error).into()
    }
}

impl From<CountError> for PinError {
    fn from(error: CountError) -> Self {
        match error {
            CountError::Overflow => Self::CountOverflow,
            CountError::NotPinnable => Self::NotPinnable,
            CountError::Sole => Self::Sole,
            CountError::NoSole => Self::NoSole,
            CountError::OtherKind => Self::OtherKind,
            _ => Self::Contended,
        }
    }
}

/// Where and why an acquisition stopped short of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Index of the first page that was not acquired, counted from the range's first page.
    pub page_index: u64,
    /// Why.
    pub reason: PinError,
}
