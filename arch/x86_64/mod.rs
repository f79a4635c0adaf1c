//! Everything that knows an x86_64 bit.
//!
//! The core in `src/` speaks of levels, leaves and rights; this module says which bits those are (Intel SDM volume 3,
//! chapter 4 "Paging"; AMD APM volume 2, chapter 5). It knows addresses, rights and what fork's undo note says about a frame's
//! word, and nothing above; values in, values out.

mod copy;
mod entry;
mod levels;
mod protection_keys;
mod software_bits;

pub(crate) use copy::{copy_bytes, copy_frames, zero_frames};
pub(crate) use entry::Demand;
pub use entry::Entry;
pub(crate) use levels::ENTRIES;
pub use levels::{LeafSize, Level, Levels};
pub use protection_keys::KeyRights;
pub use software_bits::SOFTWARE_BITS;
