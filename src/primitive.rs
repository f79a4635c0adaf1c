//! The one place the crate takes its atomics and locks from.
//!
//! Everything that two CPUs may touch at once goes through these names (or, for page-table entries, through the
//! entry accessors of [`PhysMap`](crate::PhysMap)), so that a model checker can be put underneath the real code:
//! under `cfg(loom)` they are loom's, with the same interface. See `tests/loom`.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use spin::mutex::{SpinMutex, SpinMutexGuard};
#[cfg(all(not(loom), feature = "alloc"))]
pub(crate) use spin::rwlock::RwLock;

#[cfg(all(loom, feature = "alloc"))]
pub(crate) use crate::model::RwLock;
#[cfg(loom)]
pub(crate) use crate::model::{AtomicU32, AtomicU64, SpinMutex, SpinMutexGuard};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{Ordering, fence};

/// A `const fn`, except under loom, whose atomics are made at run time.
macro_rules! const_fn {
    ($(#[$attribute:meta])* $visibility:vis const $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$attribute])* $visibility const $($rest)*
        #[cfg(loom)]
        $(#[$attribute])* $visibility $($rest)*
    };
}

/// Names a safeguard where it acts. Nothing but the safeguard itself in a build; under loom the models' negative twins
/// can take away one at a time, and must then be caught.
///
/// `safeguard!(Name => condition)` is the condition, false when removed; `safeguard!(Name; statement)` the statement,
/// nothing when removed; `safeguard!(Name: ordering)` the ordering, `Relaxed` when removed.
#[cfg(not(loom))]
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
#[cfg(loom)]
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
pub(crate) use {const_fn, safeguard};
