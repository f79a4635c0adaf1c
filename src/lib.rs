#![no_std]
//! pagepin

#[cfg(any(feature = "alloc", test))]
extern crate alloc;

mod addr;
#[path = "../arch/x86_64/mod.rs"]
mod arch;
mod area;
mod env;
pub mod fault;
pub mod frame;
mod mm;
pub mod paging;
pub mod pin;
mod primitive;
pub mod space;

pub use addr::{PAGE_SHIFT, PAGE_SIZE, PageAddr, Pfn, RangeError, UserRange};
#[cfg(feature = "instructions")]
pub use arch::SingleCpu;
pub use arch::{Entry, FrameAllocatorSource, KeyRights, LeafSize, Level, Levels, SOFTWARE_BITS, fault_from_error_code};
pub use area::{Area, Backing, Rights};
pub use env::{
    CounterValues, Counters, CurrentCpu, EntryAddr, Env, EpochGuard, EpochReadSide, FlatFrameTable, FlushRange,
    FrameSource, FrameTable, OffsetPhysMap, PhysMap, Platform, ReadSide, Shootdown,
};
pub use fault::handle_fault;
pub use frame::{FrameKind, PageFrame};
pub use mm::{AddressSpace, Areas, Mm};
#[cfg(feature = "alloc")]
pub use space::{SpaceOptions, UserSpace};
