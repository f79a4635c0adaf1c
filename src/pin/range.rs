//! [`PinnedRange`]: a whole range, pinned, with byte-exact bounds and access to the bytes.

use core::fmt;
use core::ptr::NonNull;

use volatile::VolatilePtr;
use volatile::access::{ReadOnly, ReadWrite};

use super::{Access, PhysRun, PinnedPages, RawPins, RunBuffer, Write};
use crate::addr::{PAGE_SIZE, Pfn, UserRange};
use crate::env::{Env, PhysMap};

/// A user range, all of it pinned.
///
/// User code and devices may touch the bytes at any time, so there are no Rust references to them, only volatile
/// pointers and copies.
#[must_use = "dropping it unpins the pages at once"]
pub struct PinnedRange<'k, K: Env, A: Access, B: RunBuffer> {
    pages: PinnedPages<'k, K, A, B>,
}

/// One page, pinned.
pub type PinnedPage<'k, K, A> = PinnedRange<'k, K, A, [PhysRun; 1]>;

/// Physically contiguous bytes: what a device's scatter list wants. Never more than the range that was pinned, so a
/// device is not shown the rest of the first and the last page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRun {
    /// Physical address of the first byte.
    pub address: u64,
    /// Number of bytes.
    pub length: u64,
}

/// An offset and length that do not lie in the pinned range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outside the pinned range")
    }
}

impl core::error::Error for OutOfRange {}

impl<'k, K: Env, A: Access, B: RunBuffer> PinnedRange<'k, K, A, B> {
    pub(super) fn new(pages: PinnedPages<'k, K, A, B>) -> Self {
        Self { pages }
    }

    /// The range that is pinned.
    #[must_use]
    pub fn range(&self) -> UserRange {
        self.pages.range()
    }

    /// The pinned frames.
    #[must_use]
    pub fn runs(&self) -> &[PhysRun] {
        self.pages.runs()
    }

    /// The bytes of the range in physical memory, in order.
    pub fn byte_runs(&self) -> impl Iterator<Item = ByteRun> + '_ {
        let mut skip = self.range().offset_in_page();
        let mut left = self.range().length();
        self.runs().iter().map(move |run| {
            let length = (run.pages() * PAGE_SIZE - skip).min(left);
            let bytes = ByteRun { address: run.first().address() + skip, length };
            left -= length;
            skip = 0;
            bytes
        })
    }

    /// Copies bytes from `offset` of the range out.
    ///
    /// # Errors
    /// [`OutOfRange`]: nothing was copied.
    pub fn copy_to(&self, offset: u64, to: &mut [u8]) -> Result<(), OutOfRange> {
        let mut to = to.iter_mut();
        self.each_byte(offset, to.len() as u64, |byte| {
            if let Some(to) = to.next() {
                *to = byte.read();
            }
        })
    }

    /// Calls `visit` with a volatile pointer to each of `length` bytes from `offset`.
    fn each_byte(
        &self,
        offset: u64,
        length: u64,
        mut visit: impl FnMut(VolatilePtr<'_, u8, ReadWrite>),
    ) -> Result<(), OutOfRange> {
        let end = offset.checked_add(length).filter(|end| *end <= self.range().length()).ok_or(OutOfRange)?;
        let mut at = 0;
        for run in self.byte_runs() {
            let (from, to) = (offset.max(at), end.min(at + run.length));
            for byte in from..to {
                // SAFETY: the run is one of this pin's.
                visit(unsafe { self.pointer(run.address + (byte - at)) });
            }
            at += run.length;
        }
        Ok(())
    }

    /// The byte at a physical address.
    ///
    /// # Safety
    /// It lies in a byte run of this pin.
    #[inline(always)]
    unsafe fn pointer(&self, address: u64) -> VolatilePtr<'_, u8, ReadWrite> {
        let frame = self.pages.env().phys_map().frame_ptr(Pfn::containing(address));
        // SAFETY: the frame is pinned for as long as `self` is borrowed, so the direct map has it mapped, and not at 0; the
        // offset lies within it. Nothing in Rust refers to the bytes; racing accesses by user code, devices and other
        // holders are what volatile access is for.
        unsafe { VolatilePtr::new(NonNull::new_unchecked(frame.add((address % PAGE_SIZE) as usize))) }
    }

    /// A read-only view of the byte at `offset`.
    ///
    /// # Errors
    /// [`OutOfRange`].
    pub fn byte(&self, offset: u64) -> Result<VolatilePtr<'_, u8, ReadOnly>, OutOfRange> {
        self.view(offset).map(VolatilePtr::read_only)
    }

    fn view(&self, offset: u64) -> Result<VolatilePtr<'_, u8, ReadWrite>, OutOfRange> {
        if offset >= self.range().length() {
            return Err(OutOfRange);
        }
        let mut at = 0;
        for run in self.byte_runs() {
            if offset < at + run.length {
                // SAFETY: the run is one of this pin's.
                return Ok(unsafe { self.pointer(run.address + (offset - at)) });
            }
            at += run.length;
        }
        Err(OutOfRange)
    }

    /// Gives the pins away; see [`PinnedPages::into_raw`].
    pub fn into_raw(self) -> RawPins<A, B> {
        self.pages.into_raw()
    }
}

impl<K: Env, B: RunBuffer> PinnedRange<'_, K, Write, B> {
    /// Copies bytes to `offset` of the range. Only a write pin can.
    ///
    /// ```
    /// # use pagepin::{Env, pin::{PhysRun, PinnedRange, Write}};
    /// # fn right<K: Env>(pinned: &PinnedRange<'_, K, Write, [PhysRun; 1]>) {
    /// pinned.copy_from(0, b"yes").unwrap();
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0599
    /// # use pagepin::{Env, pin::{PhysRun, PinnedRange, Read}};
    /// # fn wrong<K: Env>(pinned: &PinnedRange<'_, K, Read, [PhysRun; 1]>) {
    /// pinned.copy_from(0, b"no").unwrap(); // pinned for reading: no method named `copy_from`
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OutOfRange`]: nothing was copied.
    pub fn copy_from(&self, offset: u64, from: &[u8]) -> Result<(), OutOfRange> {
        let mut from = from.iter();
        self.each_byte(offset, from.len() as u64, |byte| {
            if let Some(from) = from.next() {
                byte.write(*from);
            }
        })
    }

    /// A writable view of the byte at `offset`.
    ///
    /// # Errors
    /// [`OutOfRange`].
    pub fn byte_mut(&self, offset: u64) -> Result<VolatilePtr<'_, u8, ReadWrite>, OutOfRange> {
        self.view(offset)
    }
}

impl<K: Env, A: Access, B: RunBuffer> fmt::Debug for PinnedRange<'_, K, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PinnedRange").field(&self.pages).finish()
    }
}
