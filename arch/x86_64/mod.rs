//! Everything that knows an x86_64 bit.
//!
//! The core in `src/` speaks of levels, leaves and rights; this module says which bits those are (Intel SDM volume 3,
//! chapter 4 "Paging"; AMD APM volume 2, chapter 5). It knows addresses, rights and what fork's undo note says about a frame's
//! word, and nothing above; values in, values out.

#[cfg(target_arch = "x86_64")]
#[cfg_attr(pagepin_portable_copy, expect(dead_code, reason = "the portable copies stand for it"))]
mod copy;
#[cfg(not(pagepin_checker))]
mod count;
mod entry;
mod entry_change;
mod levels;
#[cfg(any(test, pagepin_portable_copy, not(target_arch = "x86_64")))]
mod portable_copy;
mod protection_keys;
mod software_bits;

#[cfg(all(target_arch = "x86_64", not(pagepin_portable_copy)))]
pub(crate) use copy::{copy_frames, read_bytes, write_bytes, zero_frames};
#[cfg(not(pagepin_checker))]
pub(crate) use count::add_on_this_cpu;
pub use entry::Entry;
pub(crate) use entry::{Demand, PHYSICAL_END};
pub use entry_change::EntryChange;
pub(crate) use levels::ENTRIES;
pub use levels::{LeafSize, Level, Levels};
#[cfg(any(pagepin_portable_copy, not(target_arch = "x86_64")))]
pub(crate) use portable_copy::{copy_frames, read_bytes, write_bytes, zero_frames};
pub use protection_keys::KeyRights;
pub use software_bits::SOFTWARE_BITS;
