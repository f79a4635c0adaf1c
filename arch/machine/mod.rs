//! What the processor does itself, chosen by the target that is compiled for.

#[cfg(not(pagepin_checker))]
mod count;
#[cfg(any(test, pagepin_portable_copy, not(target_arch = "x86_64")))]
mod portable_copy;
#[cfg(target_arch = "x86_64")]
#[cfg_attr(pagepin_portable_copy, expect(dead_code, reason = "the portable copies stand for it"))]
mod string_copy;
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
pub(crate) mod user_copy;

#[cfg(not(pagepin_checker))]
pub(crate) use count::add_on_this_cpu;
#[cfg(any(pagepin_portable_copy, not(target_arch = "x86_64")))]
pub(crate) use portable_copy::{copy_frames, read_bytes, write_bytes, zero_frames};
#[cfg(all(target_arch = "x86_64", not(pagepin_portable_copy)))]
pub(crate) use string_copy::{copy_frames, read_bytes, write_bytes, zero_frames};
