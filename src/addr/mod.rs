//! Addresses in the crate's own words: frame numbers, user pages, user ranges.
//!
//! A [`UserRange`] is the only way into the pin calls, and its constructor is the only place where an address that
//! came from user space is checked: for wrap-around, for the canonical hole, for the kernel half.

#![forbid(unsafe_code)]

mod run;

use core::fmt;

use crate::errno::{EFAULT, EINVAL, EOVERFLOW};

pub(crate) use run::MAX_RUN_PAGES;
pub use run::PhysRun;

/// log2 of the base page size.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a base page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// A physical frame number: the physical address divided by [`PAGE_SIZE`].
///
/// ```
/// use pagepin::Pfn;
/// assert_eq!(Pfn::containing(0x12345), Pfn::new(0x12));
/// assert_eq!(Pfn::new(0x12).offset(3).address(), 0x15000);
/// assert_eq!(Pfn::new(0x2ff).block_start(9), Pfn::new(0x200)); // of 2 MiB
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Pfn(u64);

impl Pfn {
    /// The frame with number `number`.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The frame that contains the physical address `address` (in bytes).
    #[must_use]
    pub const fn containing(address: u64) -> Self {
        Self(address >> PAGE_SHIFT)
    }

    /// The frame number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The physical address of the frame's first byte.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.0 << PAGE_SHIFT
    }

    /// The frame `frames` further on.
    #[must_use]
    pub const fn offset(self, frames: u64) -> Self {
        Self(self.0.wrapping_add(frames))
    }

    /// The first frame of the naturally aligned block of `1 << order` frames that contains this one.
    #[must_use]
    pub const fn block_start(self, order: u8) -> Self {
        Self(self.0 & !((1u64 << order) - 1))
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pfn({:#x})", self.0)
    }
}

/// The address of a user page: page-aligned, in the user half.
///
/// ```
/// use pagepin::PageAddr;
/// let page = PageAddr::containing(0x1234);
/// assert_eq!(page.address(), 0x1000);
/// assert_eq!(page.pages_to(page.offset(3)), 3);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PageAddr(u64);

impl PageAddr {
    /// The page that contains `address`. The address is taken as it is; use [`UserRange`] for anything that came
    /// from user space.
    #[must_use]
    pub const fn containing(address: u64) -> Self {
        Self(address & !(PAGE_SIZE - 1))
    }

    /// The virtual address of the page's first byte.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.0
    }

    /// The page `pages` further on.
    #[must_use]
    pub const fn offset(self, pages: u64) -> Self {
        Self(self.0.wrapping_add(pages << PAGE_SHIFT))
    }

    /// Pages from this one up to `end` (0 if `end` is not above).
    #[must_use]
    pub const fn pages_to(self, end: PageAddr) -> u64 {
        end.0.saturating_sub(self.0) >> PAGE_SHIFT
    }
}

impl fmt::Debug for PageAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageAddr({:#x})", self.0)
    }
}

/// The part of the virtual address space that user code may have, as plain numbers: what the page-table format makes of
/// its number of levels. See `Levels::user_half`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserHalf {
    end: u64,
    kernel_start: u64,
}

impl UserHalf {
    /// User addresses lie below `end`; the kernel's begin at `kernel_start`.
    pub(crate) const fn new(end: u64, kernel_start: u64) -> Self {
        Self { end, kernel_start }
    }

    /// First address that a user page cannot have.
    #[must_use]
    #[inline(always)]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// First address of the kernel's half.
    #[must_use]
    pub const fn kernel_start(self) -> u64 {
        self.kernel_start
    }

    /// All of it, as a range.
    #[must_use]
    pub const fn range(self) -> UserRange {
        UserRange { start: 0, length: self.end }
    }
}

/// Why a pair (start, length) is not a range of user memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// The length is zero.
    Empty,
    /// `start + length` passes the end of the 64-bit address space.
    Wraps,
    /// Some byte lies outside both canonical halves, or in the guard page under the hole.
    NonCanonical,
    /// Some byte lies in the kernel's half.
    KernelHalf,
    /// The operation works on whole pages and start or length is not a multiple of [`PAGE_SIZE`].
    Unaligned,
}

impl RangeError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Wraps => EOVERFLOW,
            Self::Empty | Self::Unaligned => EINVAL,
            Self::NonCanonical | Self::KernelHalf => EFAULT,
        }
    }
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the range is empty",
            Self::Wraps => "start + length wraps around",
            Self::NonCanonical => "the range leaves the canonical user half",
            Self::KernelHalf => "the range lies in the kernel half",
            Self::Unaligned => "start or length is not page aligned",
        })
    }
}

impl core::error::Error for RangeError {}

/// A checked, non-empty range of bytes in the user half of an address space.
///
/// ```
/// use pagepin::{Levels, RangeError, UserRange};
/// let range = UserRange::new(Levels::Four.user_half(), 0x1ff0, 0x20).unwrap();
/// assert_eq!((range.first_page().address(), range.pages()), (0x1000, 2));
/// assert_eq!(UserRange::new(Levels::Four.user_half(), u64::MAX - 1, 4), Err(RangeError::Wraps));
/// assert_eq!(UserRange::new(Levels::Four.user_half(), 1 << 47, 1), Err(RangeError::NonCanonical));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UserRange {
    start: u64,
    length: u64,
}

impl UserRange {
    /// Checks `length` bytes from virtual address `start` against the user half of an address space.
    ///
    /// # Errors
    /// The first of [`RangeError::Empty`], `Wraps`, `KernelHalf`, `NonCanonical` that applies.
    #[inline]
    pub const fn new(half: UserHalf, start: u64, length: u64) -> Result<Self, RangeError> {
        if length == 0 {
            return Err(RangeError::Empty);
        }
        let Some(last) = start.checked_add(length - 1) else {
            return Err(RangeError::Wraps);
        };
        if last >= half.end {
            return Err(if start >= half.kernel_start { RangeError::KernelHalf } else { RangeError::NonCanonical });
        }
        Ok(Self { start, length })
    }

    /// As [`UserRange::new`], for operations on whole pages.
    ///
    /// ```
    /// use pagepin::{Levels, RangeError, UserRange};
    /// let half = Levels::Four.user_half();
    /// assert!(UserRange::pages_only(half, 0x1000, 0x2000).is_ok());
    /// assert_eq!(UserRange::pages_only(half, 0x1234, 0x2000), Err(RangeError::Unaligned));
    /// ```
    ///
    /// # Errors
    /// Those of `new`, and [`RangeError::Unaligned`].
    pub const fn pages_only(half: UserHalf, start: u64, length: u64) -> Result<Self, RangeError> {
        match Self::new(half, start, length) {
            Ok(range) if (start | length) % PAGE_SIZE == 0 => Ok(range),
            Ok(_) => Err(RangeError::Unaligned),
            Err(error) => Err(error),
        }
    }

    /// The pages from `start` up to `end`, both from within a checked range.
    pub(crate) const fn checked_before(start: u64, length: u64) -> Self {
        Self { start, length }
    }

    pub(crate) fn of_pages(start: PageAddr, end: PageAddr) -> Self {
        debug_assert!(start < end);
        Self { start: start.0, length: end.0 - start.0 }
    }

    /// The bytes in its first `pages` pages, at least one, and those behind.
    pub(crate) fn split_after_pages(self, pages: u64) -> (Self, Option<Self>) {
        let split = self.first_page().offset(pages).address();
        debug_assert!(pages > 0);
        if split >= self.end() {
            return (self, None);
        }
        let part = Self { start: self.start, length: split - self.start };
        (part, Some(Self { start: split, length: self.end() - split }))
    }

    /// First byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.length
    }

    /// Length in bytes; never 0.
    #[must_use]
    pub const fn length(self) -> u64 {
        self.length
    }

    /// The page that holds the first byte.
    #[must_use]
    pub const fn first_page(self) -> PageAddr {
        PageAddr::containing(self.start)
    }

    /// The page after the one that holds the last byte.
    ///
    /// ```
    /// use pagepin::{Levels, UserRange};
    /// let range = UserRange::new(Levels::Four.user_half(), 0x1ff0, 0x20).unwrap();
    /// assert_eq!((range.first_page().address(), range.end_page().address(), range.pages()), (0x1000, 0x3000, 2));
    /// ```
    #[must_use]
    pub const fn end_page(self) -> PageAddr {
        PageAddr::containing(self.start + (self.length - 1)).offset(1)
    }

    /// Number of pages touched.
    #[must_use]
    #[inline]
    pub const fn pages(self) -> u64 {
        (self.end_page().address() - self.first_page().address()) >> PAGE_SHIFT
    }

    /// Offset of the first byte within its page.
    #[must_use]
    pub const fn offset_in_page(self) -> u64 {
        self.start & (PAGE_SIZE - 1)
    }
}

impl fmt::Debug for UserRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserRange({:#x}..{:#x})", self.start, self.end())
    }
}
