//! The operations that must agree with the fault handler: fork, unmap, protect, discard; and [`UserSpace`], which
//! bundles them with areas and the mm lock (feature `alloc`).
//!
//! A kernel with areas of its own calls the functions here on its [`Mm`](crate::Mm)s. They are `unsafe`, since they take
//! its word for the areas and the mm lock.

#[cfg(feature = "alloc")]
mod area_map;
#[cfg(feature = "alloc")]
mod error;
mod fork;
#[cfg(feature = "alloc")]
mod kernel_half;
mod protect;
#[cfg(feature = "alloc")]
mod user_space;
mod zap;

#[cfg(feature = "alloc")]
pub use error::SpaceError;
pub use fork::{ForkError, Forked, fork_areas};
#[cfg(feature = "alloc")]
pub use kernel_half::KernelHalf;
pub use protect::{ProtectError, ProtectPolicy, protect_pages};
#[cfg(feature = "alloc")]
pub use user_space::{SpaceOptions, UserSpace};
pub use zap::{Unmapped, ZapError, free_tables, zap_pages};
