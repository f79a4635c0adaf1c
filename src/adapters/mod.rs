//! Ready-made parts for a kernel: over the `x86_64` crate's types, over one CPU, over a slot per CPU, and
//! over nothing but the boot loader's map of memory.
//!
//! The one room that may use every other; none of them knows it.

mod epoch;
mod interrupts;
mod memory;
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
mod single_cpu;
mod x86_64_types;

pub use epoch::{EpochGuard, EpochReadSide};
pub use memory::{BootPlatform, BuddySource, Reach, Region, RegionError, SpanFrameTable, frames_from_regions};
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
pub use single_cpu::{InterruptsOff, SingleCpu};
pub use x86_64_types::{FrameAllocatorSource, fault_from_error_code};
