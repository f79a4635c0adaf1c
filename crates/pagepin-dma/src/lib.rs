//! Transfers between pinned user memory and a device that does not reach all of it.
//!
//! [`Device::prepare`] makes a scatter list of a pinned range. What of it lies at or above the device's limit is replaced by a frame
//! below, a *bounce buffer*. All that can fail has failed or succeeded before the device is told of an address: a `Hal` of
//! `virtio-drivers`, whose `share` cannot fail, has nothing left to do but to subtract the direct map's offset.
//!
//! - A bounce buffer has the user's bytes first, also where the device is to write: a transfer that ends early leaves what it
//!   did not write as it was, and shows the process no byte of anybody else.
//! - Only what the device says that it has written is copied back, so what threads wrote behind that is not undone.
//! - What lies in a bounce buffer beyond the range is zero, and never comes back.
//! - A [`Transfer`] that is given up, dropped, keeps the frames: a device that is late writes into nobody's memory.
#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;
use core::slice;

use pagepin::pin::{Lender, Lent, PinAccess, PinError, PinnedRange, Read, RunBuffer, Write};
use pagepin::{BuddySource, FrameSource, PAGE_SIZE, Pfn, PhysMap, Reach};

/// Where bounce buffers come from.
///
/// # Implementation safety
/// A frame that was taken is used by nobody else until it comes back, and the kernel's [`PhysMap`] has it.
pub unsafe trait BounceFrames {
    /// A frame that devices reach; `None`: there is none.
    fn take(&self) -> Option<Pfn>;

    /// Takes one back.
    ///
    /// # Safety
    /// It was taken here, and nobody uses it.
    unsafe fn give_back(&self, frame: Pfn);
}

/// Frames of the kernel's frame source that this reaches.
#[derive(Clone, Copy, Debug)]
pub struct Within<'a, 's>(pub &'a BuddySource<'s>, pub Reach);

// SAFETY: as the frame source says.
unsafe impl BounceFrames for Within<'_, '_> {
    fn take(&self) -> Option<Pfn> {
        self.0.allocate_within(self.1, 0)
    }

    unsafe fn give_back(&self, frame: Pfn) {
        // SAFETY: it is from `allocate_within`, a single frame.
        unsafe { self.0.free(frame, 0) }
    }
}

/// No bounce buffer is left, or no memory for the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoBounceFrame;

impl NoBounceFrame {
    /// The nearest Linux error number (positive): `ENOMEM`.
    #[must_use]
    pub const fn errno(self) -> i32 {
        PinError::NoMemory.errno()
    }
}

impl fmt::Display for NoBounceFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no frame that the device reaches")
    }
}

impl core::error::Error for NoBounceFrame {}

/// What a device reaches, and where its bounce buffers come from.
#[derive(Debug)]
pub struct Device<'k, P, F> {
    map: &'k P,
    frames: F,
    limit: u64,
}

/// A part of the range, in one frame.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    address: u64,
    memory: NonNull<[u8]>,
    /// From the start of the range.
    offset: u64,
    bounce: Option<Pfn>,
}

impl Piece {
    /// Where the device has it.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.memory.len() as u64
    }

    /// Where the kernel has what the device accesses. While the device does, nobody may make a reference of it.
    #[must_use]
    pub fn memory(&self) -> NonNull<[u8]> {
        self.memory
    }

    /// Whether it is a bounce buffer.
    #[must_use]
    pub fn is_bounced(&self) -> bool {
        self.bounce.is_some()
    }
}

/// A pinned range that the device may be using.
///
/// Dropping it gives up the transfer, not the memory: the pins go to the kernel's `Quarantine`, bounce buffers stay where they are.
#[must_use = "dropping it keeps its memory for ever"]
pub struct Transfer<'d, L: Lender, A: PinAccess, B: RunBuffer, F: BounceFrames> {
    lent: Lent<L, A, B>,
    pieces: Vec<Piece>,
    frames: &'d F,
}

/// What `prepare` comes to: the transfer, or the range as it was.
pub type Prepared<'d, L, A, B, F> = Result<Transfer<'d, L, A, B, F>, (PinnedRange<L, A, B>, NoBounceFrame)>;

impl<'k, P: PhysMap, F: BounceFrames> Device<'k, P, F> {
    /// A device that reaches physical addresses below `limit`. `map` is the kernel's.
    pub const fn new(map: &'k P, frames: F, limit: u64) -> Self {
        Self { map, frames, limit }
    }

    /// The pinned range as the device may have it, lent to it from now on. On an error nothing is lent, and no frame taken.
    ///
    /// # Errors
    /// [`NoBounceFrame`], with the range.
    pub fn prepare<L: Lender, A: PinAccess, B: RunBuffer>(
        &self,
        pinned: PinnedRange<L, A, B>,
    ) -> Prepared<'_, L, A, B, F> {
        let mut pieces = Vec::new();
        match self.fill(&pinned, &mut pieces) {
            Ok(()) => Ok(Transfer { lent: pinned.lend(), pieces, frames: &self.frames }),
            Err(error) => {
                // SAFETY: taken here, and no device was told.
                pieces
                    .iter()
                    .filter_map(|piece| piece.bounce)
                    .for_each(|frame| unsafe { self.frames.give_back(frame) });
                Err((pinned, error))
            }
        }
    }

    fn fill<L: Lender, A: PinAccess, B: RunBuffer>(
        &self,
        pinned: &PinnedRange<L, A, B>,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), NoBounceFrame> {
        let pages = pinned.runs().iter().map(|run| run.pages()).sum::<u64>();
        pieces.try_reserve_exact(pages as usize).map_err(|_| NoBounceFrame)?;
        let mut views = pinned.views();
        let mut offset = 0;
        for run in pinned.byte_runs() {
            let (mut address, end) = (run.address, run.address + run.length);
            while address < end {
                // Views and runs have the same bytes in the same order.
                let memory = views.next().ok_or(NoBounceFrame)?;
                let length = memory.len() as u64;
                let piece = match address + length <= self.limit {
                    true => Piece { address, memory, offset, bounce: None },
                    false => self.bounce(pinned, offset, length)?,
                };
                pieces.push(piece);
                (address, offset) = (address + length, offset + length);
            }
        }
        Ok(())
    }

    /// A frame with the bytes of the range, and zero behind them.
    fn bounce<L: Lender, A: PinAccess, B: RunBuffer>(
        &self,
        pinned: &PinnedRange<L, A, B>,
        offset: u64,
        length: u64,
    ) -> Result<Piece, NoBounceFrame> {
        let frame = self.frames.take().ok_or(NoBounceFrame)?;
        let start = self.map.frame_ptr(frame);
        // SAFETY: the frame is this function's, and the map has all of it.
        let page = unsafe { slice::from_raw_parts_mut(start, PAGE_SIZE as usize) };
        let (bytes, rest) = page.split_at_mut(length as usize);
        rest.fill(0);
        let copied = pinned.copy_to(offset, bytes);
        if copied.is_err() || frame.address() + PAGE_SIZE > self.limit {
            // SAFETY: it was just taken.
            unsafe { self.frames.give_back(frame) };
            return Err(NoBounceFrame);
        }
        Ok(Piece { address: frame.address(), memory: NonNull::from(bytes), offset, bounce: Some(frame) })
    }
}

impl<L: Lender, A: PinAccess, B: RunBuffer, F: BounceFrames> Transfer<'_, L, A, B, F> {
    /// The scatter list: all bytes of the range, in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The range back, of which the first `written` bytes are copied by `copy` where they are in bounce buffers.
    ///
    /// # Safety
    /// As for [`Lent::complete`].
    unsafe fn end(self, written: u64, copy: impl Fn(&PinnedRange<L, A, B>, u64, &[u8])) -> PinnedRange<L, A, B> {
        // SAFETY: forwarded from the caller.
        let pinned = unsafe { self.lent.complete() };
        for piece in &self.pieces {
            let Some(frame) = piece.bounce else { continue };
            let count = written.saturating_sub(piece.offset).min(piece.length());
            // SAFETY: the frame is this transfer's, and the device has stopped.
            copy(&pinned, piece.offset, unsafe { &piece.memory.as_ref()[..count as usize] });
            // SAFETY: it was taken for this piece, and the device has stopped.
            unsafe { self.frames.give_back(frame) };
        }
        pinned
    }
}

impl<L: Lender, B: RunBuffer, F: BounceFrames> Transfer<'_, L, Write, B, F> {
    /// The device has stopped, and has written the first `written` bytes of the list: after an error, none. The range is the
    /// caller's again, with these bytes in it.
    ///
    /// # Safety
    /// As for [`Lent::complete`]: the device does not access the pieces any more.
    pub unsafe fn complete(self, written: u64) -> PinnedRange<L, Write, B> {
        let copy = |pinned: &PinnedRange<L, Write, B>, offset, bytes: &[u8]| {
            let copied = pinned.copy_from(offset, bytes);
            debug_assert!(copied.is_ok(), "a piece is a part of the range");
        };
        // SAFETY: forwarded from the caller.
        unsafe { self.end(written, copy) }
    }
}

impl<L: Lender, B: RunBuffer, F: BounceFrames> Transfer<'_, L, Read, B, F> {
    /// The device has stopped. The range is the caller's again.
    ///
    /// # Safety
    /// As for [`Lent::complete`]: the device does not access the pieces any more.
    pub unsafe fn complete(self) -> PinnedRange<L, Read, B> {
        // SAFETY: forwarded from the caller.
        unsafe { self.end(0, |_, _, _| {}) }
    }
}

impl<L: Lender, A: PinAccess, B: RunBuffer, F: BounceFrames> fmt::Debug for Transfer<'_, L, A, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("lent", &self.lent).field("pieces", &self.pieces).finish_non_exhaustive()
    }
}
