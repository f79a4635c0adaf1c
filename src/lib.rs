//! The memory core of a small kernel: fork with copy-on-write, pinning of user pages for DMA, and a lockless fast path
//! between them, correct on SMP.
//!
//! A kernel implements a handful of small traits ([`Env`] bundles them); pagepin does the rest on the kernel's real page
//! tables. There are no globals and no hidden allocations; without features the crate needs nothing but `core`.
//!
//! # The four pillars
//!
//! 1. **[`PageFrame`](frame::PageFrame)**: one atomic word per physical frame, with the references, the pins and the `EXCLUSIVE` bit. "Is it
//!    pinned?" and "forbid new pins" are one step, so there is no window between them. See [`frame`].
//! 2. **The pin family**: [`pin_user_pages`](pin::pin_user_pages) and its forms give runs of physical memory that a device
//!    may use, in guards that release themselves. Read pins and write pins are different types. See [`pin`].
//! 3. **The fast walker**: pins present pages without a lock, over 4- and 5-level tables with leaves of 4 KiB, 2 MiB and
//!    1 GiB. It reads the entry again after counting; on any mismatch it takes the slow path. See
//!    [`pin::pin_user_pages_fast`].
//! 4. **The fault handler**: copy-on-write, unsharing for read pins, and the fork, unmap and protect operations that must
//!    agree with it. One pure function holds the whole decision. See [`fault`] and [`space`].
//!
//! # Words
//!
//! *Frame*: a physical page. *Page*: a virtual one. *Entry*: a PTE of any level; a *leaf* maps memory. *mm*: an address
//! space. *Exclusive*: mapped by at most one mm. *Get*: a plain reference; the frame stays allocated, nothing more. *Pin*:
//! the page also stays what its mm maps, through fork and copy-on-write. *Unshare*: give a shared page its own copy without
//! making it writable. `Pin` in this crate is never `core::pin::Pin`.
//!
//! # A walk through it
//!
#![cfg_attr(feature = "alloc", doc = "```")]
#![cfg_attr(not(feature = "alloc"), doc = "```ignore")]
//! # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
//! # use doc_kernel::{Kernel, Memory, OneCpu};
//! # use pagepin::{*, pin::*, space::*};
//! # let map = Memory::new();
//! // The boot loader's map of memory: here, 1 MiB that nobody uses. What comes out has a word for each frame, and a
//! // frame allocator. `map` is the direct map; the other two are the walkers' read side and the TLB shootdown.
//! let regions = [Region::usable(0, 1 << 20)];
//! // SAFETY: the memory is this kernel's alone, and no processor has its tables.
//! let kernel: Kernel = unsafe { Platform::from_regions(map, regions, OneCpu, OneCpu) }?;
//!
//! // A process. This one has no kernel in its upper half, since no processor will run it.
//! let parent = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
//! parent.map(0x10000, 4096, Rights::READ | Rights::WRITE)?;
//!
//! // A driver pins 100 bytes of it; the page is faulted in.
//! let mut runs = [PhysRun::default(); 1];
//! let buffer = parent.range(0x10040, 100)?;
//! let pinned = parent.pin(Write, buffer, &mut runs)?;
//! pinned.copy_from(0, b"from the device")?; // what a device does by DMA
//!
//! // Fork while the device may be writing: the parent keeps the frame, the child gets a copy.
//! let child = parent.fork()?;
//! pinned.copy_from(0, b"and some more")?;
//! let mut look = [PhysRun::default(); 1];
//! let seen_by_child = child.pin(Read, buffer, &mut look)?;
//! let mut bytes = [0; 15];
//! seen_by_child.copy_to(0, &mut bytes)?;
//! assert_eq!(&bytes, b"from the device");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # In which order
//!
//! The tutorial makes a kernel [from nothing](documents::tutorial_1_boot); [Into your kernel](documents::embedding) is for one that is
//! there.
//!
//! | step | with | page |
//! |---|---|---|
//! | all of the kernel in the upper half | `KernelHalf` | [2](documents::tutorial_2_layout) |
//! | frames | [`Platform::from_regions`], [`Region`] | [3](documents::tutorial_3_frames) |
//! | processes, page faults, system calls | `UserSpace`, `CurrentSpace`, `uaccess` | [4](documents::tutorial_4_process) |
//! | fork | `UserSpace::fork` | [5](documents::tutorial_5_fork) |
//! | devices | [`pin`], [`AnyPinned`](pin::AnyPinned) | [6](documents::tutorial_6_dma) |
//! | more CPUs | [`IpiShootdown`] | [7](documents::tutorial_7_more_cpus) |
//! | when something is wrong | [`FrameTable::leaks`], `audit`, `UserSpace::dump` | [by symptom](documents::embedding#when-something-is-wrong) |
//!
//! Functions by [their names in Linux](documents::embedding#for-who-knows-linux).
//!
//! # Features
//!
//! - `alloc`: `space::UserSpace`, a complete address space with VMAs and locks.
//! - `instructions`: [`SingleCpu`], which flushes by `invlpg` and switches interrupts off; needs ring 0.
//!
//! # What a kernel must do
//!
//! Set `CR0.WP`, or the kernel writes through read-only mappings; send page faults on user addresses to
//! [`handle_fault`](fault::handle_fault), those of kernel copies too; wait for the acknowledgement in its [`Shootdown`]; hold none of the mm's
//! locks while it copies from or to user memory; set `EFER.NXE`, since entries that do not permit execution say so; leave user
//! shadow stacks off (`IA32_U_CET.SH_STK_EN`), which would take write-protected dirty pages for theirs; know that fork is no
//! snapshot across threads, and stop them if it must be. All its duties are in [Unsafe, counted](documents::unsafe_counted).
//!
//! # Documents
//!
//! [The model](documents::model) numbers the invariants and gives the arguments for them, [the decision
//! table](documents::decision_table) is all of copy-on-write on one page, [Assurance](documents::assurance) says what was
//! tested and how far, and [the bug hall](documents::bug_hall) what went wrong in other kernels. `examples/embed.rs` has
//! the glue that a small kernel needs.
// Where the two are left out, their names lead back to what brings them.
#![cfg_attr(not(all(feature = "instructions", target_arch = "x86_64")), doc = "", doc = "[`SingleCpu`]: #features")]
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "alloc")]
extern crate alloc;

mod adapters;
mod addr;
#[path = "../arch/mod.rs"]
mod arch;
#[cfg(doc)]
pub mod documents;
mod env;
mod errno;
pub mod fault;
pub mod frame;
#[cfg(pagepin_checker)]
#[doc(hidden)]
pub mod model;
#[cfg(all(doctest, feature = "alloc", feature = "instructions", target_arch = "x86_64"))]
mod must_not_compile;
pub mod paging;
pub mod pin;
mod primitive;
mod rights;
pub mod space;
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
pub mod uaccess;
mod vma;

pub use adapters::{
    BootPlatform, BuddySource, EpochGuard, EpochReadSide, FrameAllocatorSource, FreshPage, IpiShootdown, ObjectStore,
    Reach, Region, RegionError, SectionCount, SectionGuard, SlotStore, SpanFrameTable, Stored, StoredPage, WalkGuard,
    X86Cpu, fault_from_error_code, frames_from_regions,
};
#[cfg(all(feature = "instructions", target_arch = "x86_64"))]
pub use adapters::{CurrentSpace, HasSpace, InterruptsOff, PageFault, Share, SingleCpu};
pub use addr::{PAGE_SHIFT, PAGE_SIZE, PageAddr, Pfn, RangeError, UserHalf, UserRange};
pub use arch::{Entry, EntryChange, KERNEL_BITS, KeyRights, LeafSize, Level, Levels, MemoryType, SOFTWARE_BITS, Token};
#[doc(hidden)]
pub use env::EntryCell;
pub use env::{
    AddressSpace, BudgetExceeded, CounterValues, Counters, CpuCounters, CpuReaders, Cpus, CurrentCpu, DeviceFrames,
    EntryAddr, Env, ExtraParts, Extras, FlatFrameTable, FlushRange, ForeignFault, FrameRequest, FrameSource,
    FrameTable, GrowError, LedgerEntry, LedgerTable, LedgerTicket, LocalCpu, LostLoan, Mm, MmReaders, NoPreempt,
    NotReady, ObjectError, Objects, OffsetPhysMap, PhysMap, PinBudget, PinLedger, PinLimit, PinLimits, PinRecord,
    PinTerm, PinnedRun, Platform, Quarantine, ReadSide, Reentered, Shootdown, SpaceEnd, Statistics, StillPinned,
    SwitchMm, Through, Ticket, TokenError, Tokens, Unlimited, Vmas, Zone,
};
pub use rights::{Access, Rights};
pub use vma::{Backing, MapOptions, ObjectId, Vma, VmaError, VmaFlags};
