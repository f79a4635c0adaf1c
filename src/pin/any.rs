//! [`AnyPinned`]: a pinned range whose access is a value, for queues of requests and foreign ABIs.

use super::{
    ByteRun, Lender, OutOfRange, Owner, PhysRun, PinError, PinFlags, PinnedRange, Read, RunBuffer, Write,
    pin_user_pages_fast,
};
use crate::addr::UserRange;
use crate::env::AddressSpace;
use crate::rights::Access;

/// A range that is pinned for reading or for writing, as a request says. What only a write pin can do is found by a
/// `match`, so a device cannot be told to write where only reading was asked for.
///
/// ```
/// # use pagepin::{Access, AddressSpace, UserRange, pin::*};
/// # struct Disk;
/// # impl Disk { fn read(&self, _: u64, _: u64) {} fn write(&self, _: u64, _: u64) {} }
/// # fn example<S: AddressSpace>(space: &S, disk: &Disk, access: Access, range: UserRange) -> Result<(), PinError> {
/// let pinned = AnyPinned::pin(space, access, range, PinFlags::empty(), [PhysRun::default(); 8])?;
/// for run in pinned.byte_runs() {
///     match &pinned {
///         AnyPinned::Read(_) => disk.write(run.address, run.length), // from memory to the disk
///         AnyPinned::Write(_) => disk.read(run.address, run.length),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let range = space.range(0x10000, 16)?;
/// let pinned = AnyPinned::pin(&space, Access::Write, range, PinFlags::empty(), [PhysRun::default(); 1])?.into_owned();
/// let mut bytes = [1; 16];
/// pinned.copy_to(0, &mut bytes)?;
/// assert_eq!((pinned.access(), bytes), (Access::Write, [0; 16]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it unpins the pages at once"]
#[derive(Debug)]
pub enum AnyPinned<L: Lender, B: RunBuffer> {
    /// The holder only reads.
    Read(PinnedRange<L, Read, B>),
    /// The holder writes, and may read.
    Write(PinnedRange<L, Write, B>),
}

impl<'s, S: AddressSpace + ?Sized, B: RunBuffer> AnyPinned<&'s S, B> {
    /// Pins all of `range`, as [`pin_user_pages_fast`] does, for what the holder will do.
    ///
    /// # Errors
    /// [`PinError`]: nothing is pinned. [`PinError::InvalidFlags`]: nobody pins for [`Access::Execute`].
    pub fn pin(space: &'s S, access: Access, range: UserRange, flags: PinFlags, buffer: B) -> Result<Self, PinError> {
        match access {
            Access::Read => pin_user_pages_fast(space, Read, range, flags, buffer)?.complete().map(Self::Read),
            Access::Write => pin_user_pages_fast(space, Write, range, flags, buffer)?.complete().map(Self::Write),
            Access::Execute => Err(PinError::InvalidFlags),
        }
    }
}

/// The same of both.
macro_rules! of_both {
    ($this:expr, $pinned:ident => $value:expr) => {
        match $this {
            Self::Read($pinned) => $value,
            Self::Write($pinned) => $value,
        }
    };
}

impl<L: Lender, B: RunBuffer> AnyPinned<L, B> {
    /// What the holder may do.
    #[must_use]
    pub fn access(&self) -> Access {
        match self {
            Self::Read(_) => Access::Read,
            Self::Write(_) => Access::Write,
        }
    }

    /// The range that is pinned.
    #[must_use]
    pub fn range(&self) -> UserRange {
        of_both!(self, pinned => pinned.range())
    }

    /// The pinned frames.
    #[must_use]
    pub fn runs(&self) -> &[PhysRun] {
        of_both!(self, pinned => pinned.runs())
    }

    /// The bytes of the range in physical memory, in order: see [`PinnedRange::byte_runs`].
    pub fn byte_runs(&self) -> impl Iterator<Item = ByteRun> + '_ {
        let (range, runs) = (self.range(), self.runs());
        ByteRun::of(range, runs)
    }

    /// Copies bytes from `offset` of the range out: see [`PinnedRange::copy_to`].
    ///
    /// # Errors
    /// [`OutOfRange`]: nothing was copied.
    pub fn copy_to(&self, offset: u64, to: &mut [u8]) -> Result<(), OutOfRange> {
        of_both!(self, pinned => pinned.copy_to(offset, to))
    }

    /// Unpins the pages and hands back the parts: see [`PinnedRange::release`].
    pub fn release(self) -> (L, B) {
        of_both!(self, pinned => pinned.release())
    }

    /// Independent of the address space: see [`PinnedRange::into_owned`].
    pub fn into_owned(self) -> AnyPinned<Owner<L::Kernel, L::Budget>, B>
    where
        L::Kernel: Clone,
        L::Budget: Clone,
    {
        match self {
            Self::Read(pinned) => AnyPinned::Read(pinned.into_owned()),
            Self::Write(pinned) => AnyPinned::Write(pinned.into_owned()),
        }
    }
}
