//! [`ReadWrite`]: what the mm lock asks of the lock underneath.

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// A lock for many readers or one writer.
pub(crate) trait ReadWrite {
    /// What it protects.
    type Value;
    /// Held with other readers.
    type Reading<'a>: Deref<Target = Self::Value>
    where
        Self: 'a;
    /// Held alone.
    type Writing<'a>: DerefMut<Target = Self::Value>
    where
        Self: 'a;

    /// Holds it with other readers.
    fn read(&self) -> Self::Reading<'_>;

    /// Holds it alone. Until the guard is dropped the lock is closed.
    fn write(&self) -> Self::Writing<'_>;

    /// The value, for who is the last to have the lock.
    fn get_mut(&mut self) -> &mut Self::Value;

    /// Where the value is, if the lock is not closed at this moment.
    fn if_open(&self) -> Option<NonNull<Self::Value>>;

    /// What is done while waiting.
    fn relax();
}
