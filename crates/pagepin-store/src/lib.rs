//! Where pages are when no address space has them: memory objects, files behind a page cache, and swap slots, for kernels that embed
//! [`pagepin`]. Safe code, which a kernel plugs in by [`pagepin::Stored`].
//!
//! | | is | over |
//! |---|---|---|
//! | [`Cache`] | objects that address spaces show: memfds, tmpfs and shared anonymous memory, and files | a [`FileDevice`] |
//! | [`Slots`] | swap | a [`Device`] |
//!
//! ```
//! # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/machine/doc_kernel.rs")); }
//! use pagepin::{Env, Extras, Levels, Rights, Stored, pin, space::*};
//! use pagepin_store::{Cache, Properties};
//!
//! // A kernel without files: up to 8 memory objects, which have up to 64 pages between them.
//! let cache = Stored(Cache::new((), 8, 64).ok_or("no memory")?);
//! let kernel = doc_kernel::kernel().with_extras(Extras::new().objects(&cache));
//! let memfd = cache.0.create(&kernel, Properties::memory(), 3 * 4096)?;
//!
//! // Two processes share it.
//! let process = || UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four));
//! let (one, other) = (process()?, process()?);
//! for space in [&one, &other] {
//!     space.map_object(0x10000, 3 * 4096, memfd, 0, Sharing::Shared, Rights::READ | Rights::WRITE)?;
//! }
//! let there = one.range(0x10ffe, 4)?;
//! one.pin(pin::Write, there, [pin::PhysRun::default(); 2])?.copy_from(0, b"both")?;
//! let mut bytes = [0; 4];
//! other.pin(pin::Read, there, [pin::PhysRun::default(); 2])?.copy_to(0, &mut bytes)?;
//! assert_eq!(&bytes, b"both");
//! // And so does who reads the file.
//! cache.0.read(&kernel, memfd, 0xffe, &mut bytes)?;
//! assert_eq!(&bytes, b"both");
//!
//! drop((one, other));
//! cache.0.remove(&kernel, memfd)?;
//! assert_eq!(kernel.statistics().bugs_caught, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What to know
//!
//! - **All memory is asked for once**, when a store is made: how many objects, pages and slots there can be is the kernel's choice, and user space
//!   can have no more made. A page costs 68 bytes besides its frame. Every look-up is constant, or a logarithm of what is cached.
//! - **Nothing waits.** A device answers at once or [later](Answer::Later); who wants the page meanwhile gets a
//!   [`NotReady`](pagepin::NotReady), whose number is what [`Cache::read_ended`], and its like, return when it is there. Of a cache it is the
//!   number of the object, times 2^32, and that of the page; `u32::MAX` in its place stands for any page of the object.
//! - **A device owns what it reads into.** Requests own their pages, and are not copied: a page that is cut off meanwhile, a slot that is let
//!   go of, or a device that is late, costs a frame for so long, and no byte of anybody else's.
//! - **What a device fails to write stays written to**, and is tried again by the next write-back. What it fails to read is an error to who
//!   waited for it.
//! - **Locks are held for a moment**, without interrupts being masked: so nothing here may be called by an interrupt handler. A handler that
//!   hears of a completion passes it on to a thread.
//! - A store does not know its kernel, so it has no `Drop`: what it holds is given back by [`Cache::remove`] and the ends of processes.
#![forbid(unsafe_code)]
#![no_std]

extern crate alloc;

mod cache;
mod device;
mod error;
mod index;
mod slots;

pub use cache::{Cache, Properties, Shown, WhenPinned, WrittenBack};
pub use device::{Answer, Device, DeviceError, FileDevice, FilePage, ReadRequest, WriteRequest};
pub use error::StoreError;
pub use slots::{SlotState, Slots, WrittenOut};
