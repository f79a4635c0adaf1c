//! [`UserVec`] and [`PinnedVec`]: several ranges of user memory as one buffer (`struct iovec`), checked and pinned together.

#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::fmt;

use super::{ByteRun, Lender, OutOfRange, Owner, PhysRun, PinAccess, PinError, PinFlags, PinnedRange, Write};
use super::{PinnedPages, pin_user_pages_fast};
use crate::addr::{PAGE_SIZE, RangeError, UserHalf, UserRange};
use crate::env::AddressSpace;
use crate::errno::{EINVAL, ENOMEM};

/// Ranges of user memory, each checked, one after the other a buffer of [`length`](Self::length) bytes.
///
/// ```
/// use pagepin::{Levels, RangeError, pin::{UserVec, UserVecError}};
/// let half = Levels::Four.user_half();
/// let vec = UserVec::new(half, [(0x1000, 100), (0x5000, 0), (0x9000, 28)])?;
/// assert_eq!((vec.ranges().len(), vec.length()), (2, 128)); // an empty range is none
/// let beyond = UserVec::new(half, [(0x1000, 1), (u64::MAX, 2)]);
/// assert_eq!(beyond.err(), Some(UserVecError::Range { index: 1, error: RangeError::Wraps }));
/// # Ok::<(), UserVecError>(())
/// ```
#[derive(Clone, Debug)]
pub struct UserVec {
    ranges: Vec<UserRange>,
    length: u64,
}

/// Why pairs (start, length) are no [`UserVec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserVecError {
    /// More than [`UserVec::MAX_RANGES`].
    TooManyRanges,
    /// More than [`UserVec::MAX_LENGTH`] bytes in all.
    TooLong,
    /// One is no range of user memory.
    Range {
        /// Which, from 0.
        index: usize,
        /// Why.
        error: RangeError,
    },
    /// No memory for the list.
    NoMemory,
}

impl UserVecError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::TooManyRanges | Self::TooLong => EINVAL,
            Self::Range { error, .. } => error.errno(),
            Self::NoMemory => ENOMEM,
        }
    }
}

impl fmt::Display for UserVecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyRanges => f.write_str("more ranges than one call may have"),
            Self::TooLong => f.write_str("more bytes than one call may have"),
            Self::Range { index, error } => write!(f, "range {index}: {error}"),
            Self::NoMemory => f.write_str("out of memory for the list of ranges"),
        }
    }
}

impl core::error::Error for UserVecError {}

impl UserVec {
    /// The most ranges (Linux's `UIO_MAXIOV`).
    pub const MAX_RANGES: usize = 1024;
    /// The most bytes (Linux's `MAX_RW_COUNT`).
    pub const MAX_LENGTH: u64 = 0x7fff_f000;

    /// Checks pairs (start, length) against the user half of an address space. Empty ones are left out.
    ///
    /// # Errors
    /// [`UserVecError`].
    pub fn new(half: UserHalf, pairs: impl IntoIterator<Item = (u64, u64)>) -> Result<Self, UserVecError> {
        let mut vec = Self { ranges: Vec::new(), length: 0 };
        for (index, (start, length)) in pairs.into_iter().enumerate() {
            if index == Self::MAX_RANGES {
                return Err(UserVecError::TooManyRanges);
            }
            if length == 0 {
                continue;
            }
            let range = UserRange::new(half, start, length).map_err(|error| UserVecError::Range { index, error })?;
            // Below the limit by the check, and a range is shorter than the user half: no overflow.
            vec.length += length;
            if vec.length > Self::MAX_LENGTH {
                return Err(UserVecError::TooLong);
            }
            vec.ranges.try_reserve(1).map_err(|_| UserVecError::NoMemory)?;
            vec.ranges.push(range);
        }
        Ok(vec)
    }

    /// The ranges, in order.
    #[must_use]
    pub fn ranges(&self) -> &[UserRange] {
        &self.ranges
    }

    /// Bytes in all.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }
}

/// Runs for the first attempt; twice as many for each that did not have enough.
const FIRST_RUNS: u64 = 16;

/// Pins all of `range`, as [`pin_user_pages_fast`] does, into as many runs as it takes. At most the memory for one run of each page
/// is asked of the heap.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let pinned = pin_user_pages_in_vec(&space, Write, space.range(0x10000, 0x4000)?, PinFlags::empty())?;
/// assert_eq!(pinned.runs().iter().map(PhysRun::pages).sum::<u64>(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`PinError`]: nothing is pinned. [`PinError::NoMemory`] also if there is none for the runs.
pub fn pin_user_pages_in_vec<S: AddressSpace + ?Sized, A: PinAccess>(
    space: &S,
    access: A,
    range: UserRange,
    flags: PinFlags,
) -> Result<PinnedRange<&S, A, Vec<PhysRun>>, PinError> {
    let mut room = FIRST_RUNS.min(range.pages());
    loop {
        let mut runs = Vec::new();
        runs.try_reserve_exact(room as usize).map_err(|_| PinError::NoMemory)?;
        runs.resize(room as usize, PhysRun::default());
        let pinned = pin_user_pages_fast(space, access, range, flags, runs).and_then(PinnedPages::complete);
        match pinned {
            Err(PinError::BufferTooSmall) if room < range.pages() => room = (2 * room).min(range.pages()),
            done => return done,
        }
    }
}

/// Ranges of user memory, all of them pinned, as one buffer. Dropping it unpins them; that frees memory of the heap.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let vec = UserVec::new(Levels::Four.user_half(), [(0x10ffe, 4), (0x13000, 2)])?;
/// let pinned = PinnedVec::pin(&space, Write, &vec, PinFlags::empty())?;
/// pinned.copy_from(0, b"abcdef")?;
/// let mut bytes = [0; 6];
/// pinned.copy_to(0, &mut bytes)?;
/// assert_eq!(&bytes, b"abcdef");
/// let owned = pinned.into_owned()?;
/// assert_eq!(owned.byte_runs().map(|run| run.length).sum::<u64>(), 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it unpins the pages at once"]
#[derive(Debug)]
pub struct PinnedVec<L: Lender, A: PinAccess> {
    parts: Vec<PinnedRange<L, A, Vec<PhysRun>>>,
    length: u64,
}

/// One that keeps only kernel and budget: see [`PinnedVec::into_owned`].
pub type OwnedPinnedVec<K, C, A> = PinnedVec<Owner<K, C>, A>;

impl<'s, S: AddressSpace + ?Sized, A: PinAccess> PinnedVec<&'s S, A> {
    /// Pins all of `vec`, one range after the other.
    ///
    /// ```
    /// # use pagepin::{AddressSpace, pin::*};
    /// # struct Queue;
    /// # impl Queue { fn push(&self, _: u64, _: u64) {} }
    /// # fn example<S: AddressSpace>(space: &S, vec: &UserVec, queue: &Queue) -> Result<(), PinError> {
    /// let pinned = PinnedVec::pin(space, Write, vec, PinFlags::empty())?;
    /// pinned.byte_runs().for_each(|run| queue.push(run.address, run.length)); // a scatter-gather list
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PinError`]: nothing is pinned.
    pub fn pin(space: &'s S, access: A, vec: &UserVec, flags: PinFlags) -> Result<Self, PinError> {
        let mut parts = Vec::new();
        parts.try_reserve_exact(vec.ranges.len()).map_err(|_| PinError::NoMemory)?;
        for range in &vec.ranges {
            parts.push(pin_user_pages_in_vec(space, access, *range, flags)?);
        }
        Ok(Self { parts, length: vec.length })
    }
}

impl<L: Lender, A: PinAccess> PinnedVec<L, A> {
    /// The ranges, each pinned.
    pub fn parts(&self) -> &[PinnedRange<L, A, Vec<PhysRun>>] {
        &self.parts
    }

    /// Bytes in all.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The bytes in physical memory, in order: one scatter-gather list.
    pub fn byte_runs(&self) -> impl Iterator<Item = ByteRun> + '_ {
        self.parts.iter().flat_map(PinnedRange::byte_runs)
    }

    /// Copies bytes from `offset` of the buffer out.
    ///
    /// # Errors
    /// [`OutOfRange`]: nothing was copied.
    pub fn copy_to(&self, offset: u64, to: &mut [u8]) -> Result<(), OutOfRange> {
        let mut rest = to;
        self.each_part(offset, rest.len() as u64, |part, offset, length| {
            let (to, after) = core::mem::take(&mut rest).split_at_mut(length);
            rest = after;
            part.copy_to(offset, to)
        })
    }

    /// Calls `visit` with each part that has some of `length` bytes from `offset`, and where and how many those are in it.
    fn each_part(
        &self,
        offset: u64,
        length: u64,
        mut visit: impl FnMut(&PinnedRange<L, A, Vec<PhysRun>>, u64, usize) -> Result<(), OutOfRange>,
    ) -> Result<(), OutOfRange> {
        let end = offset.checked_add(length).filter(|end| *end <= self.length).ok_or(OutOfRange)?;
        let mut first = 0;
        for part in &self.parts {
            let next = first + part.range().length();
            let (from, to) = (offset.max(first), end.min(next));
            if from < to {
                visit(part, from - first, (to - from) as usize)?;
            }
            first = next;
        }
        Ok(())
    }

    /// Independent of the address space: see [`PinnedRange::into_owned`].
    ///
    /// # Errors
    /// [`PinError::NoMemory`]: everything is unpinned.
    pub fn into_owned(self) -> Result<OwnedPinnedVec<L::Kernel, L::Budget, A>, PinError>
    where
        L::Kernel: Clone,
        L::Budget: Clone,
    {
        let mut parts = Vec::new();
        parts.try_reserve_exact(self.parts.len()).map_err(|_| PinError::NoMemory)?;
        parts.extend(self.parts.into_iter().map(PinnedRange::into_owned));
        Ok(PinnedVec { parts, length: self.length })
    }
}

impl<L: Lender> PinnedVec<L, Write> {
    /// Copies bytes to `offset` of the buffer.
    ///
    /// # Errors
    /// [`OutOfRange`]: nothing was copied.
    pub fn copy_from(&self, offset: u64, from: &[u8]) -> Result<(), OutOfRange> {
        let mut rest = from;
        self.each_part(offset, rest.len() as u64, |part, offset, length| {
            let (from, after) = rest.split_at(length);
            rest = after;
            part.copy_from(offset, from)
        })
    }
}

const _: () = assert!(UserVec::MAX_LENGTH % PAGE_SIZE == 0);
