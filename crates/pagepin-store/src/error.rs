//! [`StoreError`].

use core::fmt;

use pagepin::{NotReady, ObjectError};

/// Why a store has not done it. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such object.
    NoObject,
    /// Beyond the end of the object, or of what an object can have.
    PastEnd,
    /// It cannot be written.
    Denied,
    /// An address space shows it, still.
    Shown,
    /// There are as many objects as there can be.
    Full,
    /// No frame, or no place for a page, and none that could be evicted. Write back, and try again.
    NoMemory,
    /// The device failed.
    Failed,
    /// Not yet: a page is being read or written, or another thread changes the object's length.
    NotReady(NotReady),
}

impl StoreError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::NoObject => 2,
            Self::PastEnd => 27,
            Self::Denied => 13,
            Self::Shown => 16,
            Self::Full => 23,
            Self::NoMemory => 12,
            Self::Failed => 5,
            Self::NotReady(_) => 11,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoObject => "there is no such object",
            Self::PastEnd => "beyond the end of the object",
            Self::Denied => "the object cannot be written",
            Self::Shown => "an address space shows the object",
            Self::Full => "there is no room for another object",
            Self::NoMemory => "out of memory",
            Self::Failed => "the device failed",
            Self::NotReady(_) => "a page of the object is not ready",
        })
    }
}

impl core::error::Error for StoreError {}

impl From<ObjectError> for StoreError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::NoObject => Self::NoObject,
            ObjectError::PastEnd => Self::PastEnd,
            ObjectError::Denied => Self::Denied,
            ObjectError::NoMemory => Self::NoMemory,
            ObjectError::NotReady(what) => Self::NotReady(what),
            // What is never pinned fails nobody here, and what the library may add is none of the above.
            _ => Self::Failed,
        }
    }
}
