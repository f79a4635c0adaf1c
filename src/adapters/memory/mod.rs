//! Physical memory of a kernel that has no allocator yet: from the boot loader's map to a frame table and a frame source.
//!
//! ```text
//!   the boot loader's map         sorted and checked           what is usable, without gaps
//!   Region, Region, ...   ----->  MemoryMap            ----->  Stretch, Stretch, ...
//!                                                                   |
//!                        carve: one chunk of the largest piece      |
//!                        +-------------+------------------+---------+
//!                        | frame words | notes and bits   | stretches
//!                        v             v                  v
//!                    SpanFrameTable   BuddySource       (both)
//! ```
//!
//! Neither needs a heap, and neither writes to a frame that is free: the links of the free lists are in an array of their
//! own, so that a device that goes on writing, or a process's stale bytes, cannot lead the allocator astray. That costs 12
//! bytes a frame beside the 8 of its word, 0.5 % of memory in all.

mod allocated;
mod carve;
mod lists;
mod region;
mod source;
mod stretch;
mod table;

pub use carve::{BootPlatform, frames_from_regions};
pub use region::{Region, RegionError};
pub use source::{BuddySource, Reach};
pub use table::SpanFrameTable;
