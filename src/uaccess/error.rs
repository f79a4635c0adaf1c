//! Why a user copy ended early.

use core::fmt;

use crate::addr::RangeError;
use crate::errno::{EAGAIN, EDEADLK, EFAULT, ENAMETOOLONG};
use crate::fault::FaultError;

/// A user copy ended early. What was copied before stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserCopyError {
    /// Bytes copied, or cleared, from the first on.
    pub copied: usize,
    /// Why not more.
    pub reason: UserCopyRefusal,
}

/// Why a user copy went no further, one variant per cause.
///
/// Worth a retry from where it stopped: `Contended`, and of `Fault` what [`FaultError`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserCopyRefusal {
    /// The addresses are not ones of user memory. Nothing was touched.
    Range(RangeError),
    /// The next byte cannot be accessed.
    Fault(FaultError),
    /// Other threads kept taking the page away; a bounded number of attempts was made.
    Contended,
    /// The calling CPU is not in the address space that was named: a bug of the kernel. Nothing was touched.
    NotCurrent,
    /// The calling CPU holds a lock of the crate's, in a call from [`with_vmas`](crate::AddressSpace::with_vmas) or from the kernel's
    /// own traits: a bug of the kernel, found where its [`NoPreempt`](crate::NoPreempt) counts. Nothing was touched.
    InSection,
    /// The string does not end within the buffer, which is full.
    Unterminated,
}

impl UserCopyError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self.reason {
            UserCopyRefusal::Fault(
                error @ (FaultError::NotReady(_) | FaultError::NoMemory | FaultError::Reentered),
            ) => error.errno(),
            UserCopyRefusal::Contended => EAGAIN,
            UserCopyRefusal::InSection => EDEADLK,
            UserCopyRefusal::Range(_) | UserCopyRefusal::NotCurrent | UserCopyRefusal::Fault(_) => EFAULT,
            UserCopyRefusal::Unterminated => ENAMETOOLONG,
        }
    }
}

impl fmt::Display for UserCopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} bytes: ", self.copied)?;
        match self.reason {
            UserCopyRefusal::Range(error) => error.fmt(f),
            UserCopyRefusal::Fault(error) => error.fmt(f),
            UserCopyRefusal::Contended => f.write_str("the page kept changing"),
            UserCopyRefusal::NotCurrent => f.write_str("the CPU is not in this address space"),
            UserCopyRefusal::InSection => f.write_str("the CPU holds an mm lock"),
            UserCopyRefusal::Unterminated => f.write_str("the string does not end"),
        }
    }
}

impl core::error::Error for UserCopyError {}
