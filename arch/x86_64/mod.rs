//! Everything that knows an x86_64 bit.
//!
//! The core in `src/` speaks of levels, leaves and rights; this module says which bits those are (Intel SDM volume 3,
//! chapter 4 "Paging"; AMD APM volume 2, chapter 5) and converts from and to the types of the `x86_64` crate.

mod convert;
mod copy;
mod entry;
mod levels;
#[cfg(feature = "instructions")]
mod local_cpu;
mod protection_keys;
mod software_bits;

pub use convert::{FrameAllocatorSource, fault_from_error_code};
pub(crate) use copy::{copy_frames, zero_frames};
pub(crate) use entry::Demand;
pub use entry::Entry;
pub(crate) use levels::ENTRIES;
pub use levels::{LeafSize, Level, Levels};
#[cfg(feature = "instructions")]
pub use local_cpu::{InterruptsOff, SingleCpu};
pub use protection_keys::KeyRights;
pub use software_bits::SOFTWARE_BITS;
