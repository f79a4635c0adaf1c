//! The one place the crate takes its atomics from.
//!
//! Everything that two CPUs may touch at once goes through these names (or, for page-table entries, through the
//! entry accessors of [`PhysMap`](crate::PhysMap)), so that a model checker can be put underneath the real code.

pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
