//! The one place the crate takes its atomics and locks from.
//!
//! Everything that two CPUs may touch at once goes through these names (or, for page-table entries, through the
//! entry accessors of [`PhysMap`](crate::PhysMap)), so that a checker can be put underneath the real code: under
//! `cfg(pagepin_checker)` they are loom's or shuttle's, with the same interface. See `tests/models`.

#[cfg(feature = "alloc")]
mod fair_rwlock;
#[cfg(feature = "alloc")]
mod read_write;

#[cfg(not(pagepin_checker))]
pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(pagepin_checker))]
pub(crate) use spin::mutex::SpinMutex;

#[cfg(feature = "alloc")]
pub(crate) use self::read_write::ReadWrite;

#[cfg(all(pagepin_checker, feature = "alloc"))]
pub(crate) use self::fair_rwlock::FairRwLock;
#[cfg(all(not(pagepin_checker), feature = "alloc"))]
pub(crate) use self::fair_rwlock::FairRwLock as RwLock;

#[cfg(all(pagepin_checker, feature = "alloc"))]
pub(crate) use crate::model::RwLock;
#[cfg(pagepin_checker)]
pub(crate) use crate::model::{AtomicU64, Ordering, SpinMutex, fence};

/// A `const fn`, except under a checker, whose atomics and locks are made at run time.
macro_rules! const_fn {
    ($(#[$attribute:meta])* $visibility:vis const $($rest:tt)*) => {
        #[cfg(not(pagepin_checker))]
        $(#[$attribute])* $visibility const $($rest)*
        #[cfg(pagepin_checker)]
        $(#[$attribute])* $visibility $($rest)*
    };
}

/// An array of `length` times the same constant, made at run time under a checker.
#[cfg(not(pagepin_checker))]
macro_rules! array_of {
    ($length:expr, $value:expr) => {
        [const { $value }; $length]
    };
}
#[cfg(pagepin_checker)]
macro_rules! array_of {
    ($length:expr, $value:expr) => {
        core::array::from_fn::<_, { $length }, _>(|_| $value)
    };
}

/// Names a safeguard where it acts. Nothing but the safeguard itself in a build; under a checker the negative twins
/// can take away one at a time, and must then be caught.
///
/// `safeguard!(Name => condition)` is the condition, false when removed; `safeguard!(Name; statement)` the statement,
/// nothing when removed; `safeguard!(Name: ordering)` the ordering, `Relaxed` when removed.
#[cfg(not(pagepin_checker))]
macro_rules! safeguard {
    ($name:ident => $condition:expr) => {
        $condition
    };
    ($name:ident; $statement:expr) => {
        $statement
    };
    ($name:ident: $order:expr) => {
        $order
    };
}
#[cfg(pagepin_checker)]
macro_rules! safeguard {
    ($name:ident => $condition:expr) => {
        (!$crate::model::Safeguard::$name.is_removed() && $condition)
    };
    ($name:ident; $statement:expr) => {
        if !$crate::model::Safeguard::$name.is_removed() {
            $statement
        }
    };
    ($name:ident: $order:expr) => {
        if $crate::model::Safeguard::$name.is_removed() { $crate::primitive::Ordering::Relaxed } else { $order }
    };
}
pub(crate) use {array_of, const_fn, safeguard};
