//! What differs between architectures, in two parts that do not know of each other.
//!
//! A *format* (`x86_64`) is the bits of entries, the shape of tables, protection keys: values in, values out, the same on every
//! host, where it is tested. The *machine* that the code runs on copies and clears frames and counts, with the best
//! instructions it has. Both know addresses, rights and what fork's undo note says about a frame's word, and nothing above.

mod machine;
mod x86_64;

#[cfg(not(pagepin_checker))]
pub(crate) use machine::add_on_this_cpu;
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
pub(crate) use machine::user_copy;
pub(crate) use machine::{copy_frames, read_bytes, write_bytes, zero_frames};
pub(crate) use x86_64::{Demand, ENTRIES, NewRights, PHYSICAL_END};
pub use x86_64::{
    Entry, EntryChange, KERNEL_BITS, KeyRights, LeafSize, Level, Levels, MemoryType, SOFTWARE_BITS, Token,
};
