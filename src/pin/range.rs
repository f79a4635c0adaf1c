//! [`PinnedRange`]: a whole range, pinned, with byte-exact bounds and access to the bytes.

use core::fmt;
use core::ptr::NonNull;

use volatile::VolatilePtr;
use volatile::access::{ReadOnly, ReadWrite};

use super::{Lender, Owner, PhysRun, PinAccess, PinFlags, Pinned, RawPins, RunBuffer, Write};
use crate::addr::{PAGE_SIZE, Pfn, UserRange};
use crate::arch;
use crate::env::{Env, PhysMap, Ticket};
use crate::errno::EINVAL;

/// A user range, all of it pinned.
///
/// User code, devices and other holders may touch the bytes at any time, so there are no Rust references to them, only
/// copies, and volatile pointers for who knows that nobody else in the kernel does.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let pinned = space.pin(Write, space.range(0x10ff8, 16)?, [PhysRun::default(); 2])?.tagged(7);
/// pinned.copy_from(4, b"8 bytes!")?; // over the end of a page
/// let mut bytes = [0; 16];
/// pinned.copy_to(0, &mut bytes)?;
/// assert_eq!(&bytes, b"\0\0\0\08 bytes!\0\0\0\0");
/// let owned = pinned.into_owned();
/// assert_eq!(owned.byte_runs().map(|run| run.length).sum::<u64>(), 16); // a scatter list
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it unpins the pages at once"]
pub struct PinnedRange<L: Lender, A: PinAccess, B: RunBuffer> {
    pages: Pinned<L, A, B>,
}

/// One page, pinned.
pub type PinnedPage<'s, S, A> = PinnedRange<&'s S, A, [PhysRun; 1]>;

/// Physically contiguous bytes: what a device's scatter list wants. Never more than the range that was pinned, so a
/// device is not shown the rest of the first and the last page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRun {
    /// Physical address of the first byte.
    pub address: u64,
    /// Number of bytes.
    pub length: u64,
}

impl ByteRun {
    /// The same bytes in pieces none of which crosses a page.
    fn in_pages(self) -> impl Iterator<Item = Self> {
        let mut rest = self;
        core::iter::from_fn(move || {
            let length = (PAGE_SIZE - rest.address % PAGE_SIZE).min(rest.length);
            let piece = Self { address: rest.address, length };
            rest = Self { address: rest.address + length, length: rest.length - length };
            (length > 0).then_some(piece)
        })
    }

    /// The bytes of `range`, whose pages are those of `runs`.
    pub(super) fn of(range: UserRange, runs: &[PhysRun]) -> impl Iterator<Item = Self> + '_ {
        let (mut skip, mut left) = (range.offset_in_page(), range.length());
        runs.iter().map(move |run| {
            let length = (run.pages() * PAGE_SIZE - skip).min(left);
            let bytes = Self { address: run.first().address() + skip, length };
            left -= length;
            skip = 0;
            bytes
        })
    }
}

/// An offset and length that do not lie in the pinned range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

impl OutOfRange {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        EINVAL
    }
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outside the pinned range")
    }
}

impl core::error::Error for OutOfRange {}

impl<L: Lender, A: PinAccess, B: RunBuffer> PinnedRange<L, A, B> {
    pub(super) fn new(pages: Pinned<L, A, B>) -> Self {
        Self { pages }
    }

    pub(super) fn lender(&self) -> &L {
        self.pages.lender()
    }

    pub(super) fn into_pages(self) -> Pinned<L, A, B> {
        self.pages
    }

    /// The range that is pinned.
    #[must_use]
    pub fn range(&self) -> UserRange {
        self.pages.range()
    }

    /// How it was pinned.
    #[must_use]
    pub fn flags(&self) -> PinFlags {
        self.pages.flags()
    }

    /// The pinned frames.
    #[must_use]
    pub fn runs(&self) -> &[PhysRun] {
        self.pages.runs()
    }

    /// The bytes of the range in physical memory, in order.
    pub fn byte_runs(&self) -> impl Iterator<Item = ByteRun> + '_ {
        ByteRun::of(self.range(), self.runs())
    }

    /// Copies bytes from `offset` of the range out. Whoever may write them meanwhile, each byte is one that was there.
    ///
    /// # Errors
    /// [`OutOfRange`]: nothing was copied.
    pub fn copy_to(&self, offset: u64, to: &mut [u8]) -> Result<(), OutOfRange> {
        let mut left = to;
        self.each_piece(offset, left.len() as u64, |bytes, length| {
            let (to, rest) = core::mem::take(&mut left).split_at_mut(length);
            // SAFETY: `each_piece` vouches for the bytes; `to` is as long, and memory of its own.
            unsafe { arch::read_bytes(bytes, to) };
            left = rest;
        })
    }

    /// Calls `visit` with a pointer and a length for the pieces, none of which crosses a page, of `length` bytes from
    /// `offset`, in order. What they point to is mapped for as long as `self` is borrowed; others may access it.
    fn each_piece(&self, offset: u64, length: u64, mut visit: impl FnMut(*mut u8, usize)) -> Result<(), OutOfRange> {
        let end = offset.checked_add(length).filter(|end| *end <= self.range().length()).ok_or(OutOfRange)?;
        let mut at = 0;
        for run in self.byte_runs() {
            let (mut from, to) = (offset.max(at), end.min(at + run.length));
            while from < to {
                let address = run.address + (from - at);
                let piece = (PAGE_SIZE - address % PAGE_SIZE).min(to - from);
                visit(self.pointer(address), piece as usize);
                from += piece;
            }
            at += run.length;
        }
        Ok(())
    }

    /// Where the kernel has the bytes of the range, in order, in pieces none of which crosses a page: for drivers that take
    /// pointers, such as a `Hal` of `virtio-drivers`.
    ///
    /// The pieces are mapped and pinned for as long as `self` is borrowed. Whoever follows a pointer sees to it that
    /// - no reference (`&[u8]`) is made of it: user code and devices may write the bytes at any time;
    /// - nobody else in the kernel writes the byte meanwhile, or all access it as atomics of one byte;
    /// - nothing is written through a pin for [`Read`](super::Read).
    ///
    /// ```
    /// # use pagepin::pin::{Lender, PhysRun, PinnedRange, Write};
    /// # fn share(_: core::ptr::NonNull<[u8]>) -> u64 { 0 }
    /// # fn example<L: Lender>(pinned: &PinnedRange<L, Write, [PhysRun; 8]>) {
    /// for piece in pinned.views() {
    ///     let address_of_the_device = share(piece);
    /// }
    /// # }
    /// ```
    pub fn views(&self) -> impl Iterator<Item = NonNull<[u8]>> + '_ {
        self.byte_runs().flat_map(ByteRun::in_pages).filter_map(|piece| {
            let first = NonNull::new(self.pointer(piece.address))?;
            Some(NonNull::slice_from_raw_parts(first, piece.length as usize))
        })
    }

    /// Where the direct map has the byte at a physical address of this pin.
    #[inline(always)]
    fn pointer(&self, address: u64) -> *mut u8 {
        let frame = self.pages.lender().kernel().phys_map().frame_ptr(Pfn::containing(address));
        frame.wrapping_add((address % PAGE_SIZE) as usize)
    }

    /// A read-only view of the byte at `offset`.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
    /// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// let pinned = space.pin(Read, space.range(0x10000, 16)?, [PhysRun::default(); 1])?;
    /// // SAFETY: nobody else in the kernel writes it.
    /// assert_eq!(unsafe { pinned.byte(3) }?.read(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OutOfRange`].
    ///
    /// # Safety
    /// While it is used, no other part of the kernel writes the byte, by whatever pin: to Rust a volatile access is not
    /// an atomic one. User code and devices may.
    pub unsafe fn byte(&self, offset: u64) -> Result<VolatilePtr<'_, u8, ReadOnly>, OutOfRange> {
        self.view(offset).map(VolatilePtr::read_only)
    }

    fn view(&self, offset: u64) -> Result<VolatilePtr<'_, u8, ReadWrite>, OutOfRange> {
        let mut found = Err(OutOfRange);
        self.each_piece(offset, 1, |byte, _| {
            // SAFETY: the frame is pinned for as long as `self` is borrowed, so the direct map has it mapped, and not at 0.
            // Who uses the view vouches for the accesses.
            found = Ok(unsafe { VolatilePtr::new(NonNull::new_unchecked(byte)) });
        })?;
        found
    }

    /// Unpins the pages and hands back the parts; see [`Pinned::release`].
    pub fn release(self) -> (L, B) {
        self.pages.release()
    }

    /// For somebody else in the kernel's ledger; see [`Pinned::tagged`].
    pub fn tagged(self, tag: u64) -> Self {
        Self::new(self.pages.tagged(tag))
    }

    /// Gives the pins away; see [`Pinned::into_raw`].
    pub fn into_raw(self) -> RawPins<A, B, Ticket<L::Kernel>> {
        self.pages.into_raw()
    }

    /// Independent of the address space; see [`Pinned::into_owned`].
    pub fn into_owned(self) -> PinnedRange<Owner<L::Kernel, L::Budget>, A, B>
    where
        L::Kernel: Clone,
        L::Budget: Clone,
    {
        PinnedRange::new(self.pages.into_owned())
    }
}

impl<L: Lender, B: RunBuffer> PinnedRange<L, Write, B> {
    /// Copies bytes to `offset` of the range. Only a write pin can.
    ///
    /// ```
    /// # use pagepin::pin::{Lender, PhysRun, PinnedRange, Write};
    /// # fn right<L: Lender>(pinned: &PinnedRange<L, Write, [PhysRun; 1]>) {
    /// pinned.copy_from(0, b"yes").unwrap();
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0599
    /// # use pagepin::pin::{Lender, PhysRun, PinnedRange, Read};
    /// # fn wrong<L: Lender>(pinned: &PinnedRange<L, Read, [PhysRun; 1]>) {
    /// pinned.copy_from(0, b"no").unwrap(); // pinned for reading: no method named `copy_from`
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OutOfRange`]: nothing was copied.
    pub fn copy_from(&self, offset: u64, from: &[u8]) -> Result<(), OutOfRange> {
        let mut left = from;
        self.each_piece(offset, left.len() as u64, |bytes, length| {
            let (from, rest) = left.split_at(length);
            // SAFETY: `each_piece` vouches for the bytes; `from` is as long, and memory of its own.
            unsafe { arch::write_bytes(from, bytes) };
            left = rest;
        })
    }

    /// A writable view of the byte at `offset`.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
    /// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// let pinned = space.pin(Write, space.range(0x10000, 16)?, [PhysRun::default(); 1])?;
    /// // SAFETY: nobody else in the kernel accesses it.
    /// unsafe { pinned.byte_mut(3) }?.write(7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OutOfRange`].
    ///
    /// # Safety
    /// While it is used, no other part of the kernel accesses the byte; see [`PinnedRange::byte`].
    pub unsafe fn byte_mut(&self, offset: u64) -> Result<VolatilePtr<'_, u8, ReadWrite>, OutOfRange> {
        self.view(offset)
    }
}

impl<L: Lender, A: PinAccess, B: RunBuffer> fmt::Debug for PinnedRange<L, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PinnedRange").field(&self.pages).finish()
    }
}
