//! The operations that must agree with the fault handler: fork, unmap, protect, discard; and `UserSpace`, which
//! bundles them with VMAs and the mm lock (feature `alloc`).
//!
//! A kernel with VMAs of its own calls the functions here on its [`Mm`](crate::Mm)s. They are `unsafe`, since they take
//! its word for the VMAs and the mm lock.

#[cfg(feature = "alloc")]
mod advice;
mod copies;
#[cfg(feature = "alloc")]
mod deferred;
#[cfg(feature = "alloc")]
mod error;
mod fork;
#[cfg(feature = "alloc")]
mod growth;
#[cfg(feature = "alloc")]
mod inspect;
mod kernel_half;
#[cfg(feature = "alloc")]
mod lazily_freed;
#[cfg(feature = "alloc")]
mod merge;
#[cfg(feature = "alloc")]
mod mm_lock;
#[cfg(feature = "alloc")]
mod move_pages;
#[cfg(feature = "alloc")]
mod objects;
#[cfg(feature = "alloc")]
mod options;
mod pinned;
#[cfg(feature = "alloc")]
mod placement;
#[cfg(feature = "alloc")]
mod populate;
#[cfg(feature = "alloc")]
mod private_pages;
mod protect;
#[cfg(feature = "alloc")]
mod relocate;
#[cfg(feature = "alloc")]
mod steps;
#[cfg(feature = "alloc")]
mod swap;
#[cfg(feature = "alloc")]
mod user_space;
#[cfg(feature = "alloc")]
mod vma_map;
mod zap;

/// Most places of leaves that one step of a long operation visits, up to a table's end.
const MOST_PLACES: u64 = 8 * crate::arch::ENTRIES;

#[cfg(feature = "alloc")]
pub use advice::Advice;
#[cfg(all(pagepin_checker, feature = "alloc"))]
pub(crate) use mm_lock::MmLock;

pub use copies::Copies;
#[cfg(feature = "alloc")]
pub use error::SpaceError;
pub use fork::{ForkError, Forked, fork_vmas};
#[cfg(feature = "alloc")]
pub use growth::Growth;
#[cfg(feature = "alloc")]
pub use inspect::{Audited, Dump, Finding, Resident, audit};
pub use kernel_half::{KernelHalf, KernelHalfError, OutOfTables, Vital};
#[cfg(feature = "alloc")]
pub use lazily_freed::{LazilyFreed, Reclaimed};
#[cfg(feature = "alloc")]
pub use merge::MergeError;
#[cfg(feature = "alloc")]
pub use objects::Sharing;
#[cfg(feature = "alloc")]
pub use options::SpaceOptions;
pub use pinned::first_pinned_page;
#[cfg(feature = "alloc")]
pub use placement::Placement;
#[cfg(feature = "alloc")]
pub use populate::Unpopulated;
pub use protect::{ProtectError, protect_pages};
#[cfg(feature = "alloc")]
pub use relocate::Relocated;
#[cfg(feature = "alloc")]
pub use swap::SwappedOut;
#[cfg(feature = "alloc")]
pub use user_space::UserSpace;
pub use zap::{EmptyTables, Unmapped, ZapError, free_tables, zap_pages};
