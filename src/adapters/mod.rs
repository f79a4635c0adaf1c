//! Ready-made parts for a kernel: over the `x86_64` crate's types, over one CPU, over several, over nothing but the boot
//! loader's map of memory, and over stores of pages in safe code.
//!
//! The one room that may use every other; none of them knows it.

#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
mod current_space;
mod epoch;
mod interrupts;
mod ipi_shootdown;
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
mod loaded_root;
mod memory;
mod section_count;
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
mod single_cpu;
mod stored;
mod x86_64_types;
mod x86_cpu;

#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
pub use current_space::{CurrentSpace, HasSpace, PageFault, Share};
pub use epoch::{EpochGuard, EpochReadSide};
pub use ipi_shootdown::{IpiShootdown, WalkGuard};
pub use memory::{BootPlatform, BuddySource, Reach, Region, RegionError, SpanFrameTable, frames_from_regions};
pub use section_count::{SectionCount, SectionGuard};
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
pub use single_cpu::SingleCpu;
pub use stored::{FreshPage, ObjectStore, SlotStore, Stored, StoredPage};
pub use x86_64_types::{FrameAllocatorSource, fault_from_error_code};
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
pub use x86_cpu::InterruptsOff;
pub use x86_cpu::X86Cpu;
