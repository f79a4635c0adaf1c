//! [`PinHandle`]: pins as numbers, for C.

use core::marker::PhantomData;

use super::collected::{Acquired, Collected};
use super::{PinAccess, PinError, PinFlags, RawPins, RunBuffer};
use crate::addr::UserRange;
use crate::arch::Levels;

/// What [`RawPins`] are besides their runs, as numbers of known sizes. The runs are [`PhysRun`](super::PhysRun)s, 16 bytes each, in the
/// buffer that they were collected in.
///
/// ```
/// # use pagepin::pin::{PhysRun, PinError, PinHandle, RawPins, Write};
/// # fn give_to_c(_: PinHandle, _: [PhysRun; 4]) {}
/// # fn example(pins: RawPins<Write, [PhysRun; 4]>, from_c: (PinHandle, [PhysRun; 4])) -> Result<(), PinError> {
/// let (handle, runs) = pins.into_handle();
/// give_to_c(handle, runs); // and some day:
/// let (handle, runs) = from_c;
/// // SAFETY: C gives back what it was given, once.
/// let pins = unsafe { RawPins::<Write, _>::from_handle(handle, runs) }?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PinHandle {
    /// First byte of the range that was asked for.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Base pages pinned.
    pub pages: u64,
    /// Runs in use, from the first of the buffer on.
    pub runs: u32,
    /// [`PinFlags`].
    pub flags: u32,
    /// 1: pinned for writing, 0: for reading.
    pub writes: u32,
    /// 0.
    pub reserved: u32,
}

impl<A: PinAccess, B: RunBuffer> RawPins<A, B> {
    /// The pins as numbers, and the buffer with their runs.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
    /// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// let pinned = pin_user_pages(&space, Write, space.range(0x10000, 1)?, PinFlags::empty(), [PhysRun::default(); 1])?;
    /// let (handle, runs) = pinned.into_raw().into_handle();
    /// assert_eq!((handle.start, handle.length, handle.pages, handle.writes), (0x10000, 1, 1, 1));
    /// // SAFETY: of one `into_handle`, for the first time.
    /// let raw = unsafe { RawPins::<Write, _>::from_handle(handle, runs) }?;
    /// // SAFETY: pinned through this space.
    /// drop(unsafe { Pinned::from_raw(&space, raw) });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_handle(self) -> (PinHandle, B) {
        let Collected { buffer, range, acquired } = self.collected;
        let handle = PinHandle {
            start: range.start(),
            length: range.length(),
            pages: acquired.pages,
            // A run is 16 bytes: so many do not fit into memory.
            runs: acquired.runs as u32,
            flags: self.flags.bits(),
            writes: A::WRITES.into(),
            reserved: 0,
        };
        (handle, buffer)
    }

    /// The pins again. What can be seen to be wrong is refused; nothing is released then.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// let zero = PinHandle { start: 0x1000, length: 1, pages: 1, runs: 1, flags: 0, writes: 0, reserved: 0 };
    /// // SAFETY: it is refused, for it was pinned for reading.
    /// assert_eq!(unsafe { RawPins::<Write, _>::from_handle(zero, [PhysRun::default(); 1]) }.err(), Some(PinError::InvalidFlags));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PinError::InvalidFlags`] (flags, or pinned for the other access), [`PinError::Range`], [`PinError::BufferTooSmall`] (fewer runs
    /// than there were), [`PinError::Incomplete`] (they do not have so many pages).
    ///
    /// # Safety
    /// Handle and runs are those of one [`into_handle`](Self::into_handle), and have not come back before.
    pub unsafe fn from_handle(handle: PinHandle, buffer: B) -> Result<Self, PinError> {
        let flags = PinFlags::from_raw(handle.flags)?;
        if handle.writes != u32::from(A::WRITES) || handle.reserved != 0 {
            return Err(PinError::InvalidFlags);
        }
        // It was checked against its own address space; this is the largest there is.
        let range = UserRange::new(Levels::Five.user_half(), handle.start, handle.length)?;
        let runs = buffer.as_ref().get(..handle.runs as usize).ok_or(PinError::BufferTooSmall)?;
        let pages: u64 = runs.iter().map(super::PhysRun::pages).sum();
        if pages != handle.pages || pages > range.pages() {
            return Err(PinError::Incomplete);
        }
        let stopped = (pages < range.pages()).then_some(PinError::Incomplete);
        let collected = Collected { buffer, range, acquired: Acquired { runs: handle.runs as usize, pages, stopped } };
        Ok(Self { collected, flags, ticket: (), access: PhantomData })
    }
}

const _: () = assert!(size_of::<PinHandle>() == 40 && size_of::<super::PhysRun>() == 16);
