//! [`Placement`]: memory at an address that the library chooses, and what is mapped where.

use super::{SpaceError, UserSpace};
use crate::addr::{PAGE_SIZE, PageAddr, RangeError, UserRange};
use crate::env::{Env, Reentered};
use crate::vma::{Backing, MapOptions, Vma};

/// The lowest address that is chosen. Below, a null pointer with an offset faults.
const LOWEST: u64 = 64 * 1024;

/// Where to look for free addresses.
///
/// ```
/// use pagepin::space::Placement;
/// // A stack: on a boundary of 2 MiB, with 16 pages free on either side.
/// let stack = Placement::new().near(0x7f00_0000_0000).aligned(2 << 20).guarded(16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    hint: u64,
    align: u64,
    guard_pages: u64,
}

impl Placement {
    /// Anywhere from 64 KiB on, the lowest first.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "const, as the options of a mapping")]
    pub const fn new() -> Self {
        Self { hint: LOWEST, align: PAGE_SIZE, guard_pages: 0 }
    }

    /// From this address upwards, and if all is taken there, below it. It need not be one of a page.
    #[must_use]
    pub const fn near(self, hint: u64) -> Self {
        Self { hint, ..self }
    }

    /// At a multiple of `bytes`, a power of two.
    #[must_use]
    pub const fn aligned(self, bytes: u64) -> Self {
        Self { align: if bytes < PAGE_SIZE { PAGE_SIZE } else { bytes }, ..self }
    }

    /// With so many pages before and behind it in which there is nothing now. Later mappings with a hint or an address of
    /// their own may lie there.
    #[must_use]
    pub const fn guarded(self, pages: u64) -> Self {
        Self { guard_pages: pages, ..self }
    }
}

impl<K: Env, C> UserSpace<K, C> {
    /// As [`UserSpace::map`], at free addresses of the library's choice (`mmap` without `MAP_FIXED`). `length` is rounded up
    /// to whole pages.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// let heap = space.map_anywhere(10_000, Placement::new(), Rights::READ | Rights::WRITE)?;
    /// let next = space.map_anywhere(4096, Placement::new().guarded(1), Rights::READ)?;
    /// assert_eq!((heap.start(), heap.length()), (0x1_0000, 12288));
    /// assert_eq!(next.start(), heap.end() + 4096);
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::NoRoom`]: no free stretch is that long. `Range` (a length of 0, or an alignment that is no power of two), and
    /// the others of `map`.
    pub fn map_anywhere(
        &self,
        length: u64,
        placement: Placement,
        options: impl Into<MapOptions>,
    ) -> Result<UserRange, SpaceError> {
        if length == 0 {
            return Err(RangeError::Empty.into());
        }
        if !placement.align.is_power_of_two() {
            return Err(RangeError::Unaligned.into());
        }
        let half = self.range_of_user_half();
        let end = PageAddr::containing(half.end());
        let hint = PageAddr::containing(placement.hint.clamp(LOWEST, half.end()));
        let lowest = PageAddr::containing(LOWEST);
        let pages = length.div_ceil(PAGE_SIZE);
        let gap = Gap { pages, align: placement.align, guard_pages: placement.guard_pages };

        let mut vmas = self.vmas.write(self.env().extras())?;
        let found = vmas.find_gap(hint, end, gap).or_else(|| vmas.find_gap(lowest, end, gap));
        let start = found.ok_or(SpaceError::NoRoom)?;
        let range = UserRange::of_pages(start, start.offset(pages));
        let vma = Vma::new(range, Backing::Anonymous, options)?;
        vmas.make_room(&vma)?;
        vmas.insert(vma);
        Ok(range)
    }

    /// The VMA that contains `address`.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
    /// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// assert_eq!(space.vma_at(0x12345)?.map(|vma| vma.start().address()), Some(0x10000));
    /// assert_eq!(space.vma_at(0x20000)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Reentered`].
    pub fn vma_at(&self, address: u64) -> Result<Option<Vma>, Reentered> {
        Ok(self.vmas.read(self.env().extras())?.vma(PageAddr::containing(address)).copied())
    }

    /// All VMAs, in order. The lock is taken for each step and not kept, so the loop may do anything; what others map or unmap
    /// meanwhile is seen or not. [`Reentered`] ends it.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// const STACK: u16 = 1;
    /// space.map(0x10000, 8192, Rights::READ)?;
    /// space.map(0x12000, 4096, MapOptions::new(Rights::READ).data(STACK))?;
    /// let seen = space.vmas().map(|vma| vma.map(|vma| (vma.start().address(), vma.pages(), vma.data())));
    /// assert_eq!(seen.collect::<Result<Vec<_>, _>>()?, [(0x10000, 2, 0), (0x12000, 1, STACK)]);
    /// # Ok::<(), SpaceError>(())
    /// ```
    pub fn vmas(&self) -> impl Iterator<Item = Result<Vma, Reentered>> + '_ {
        let end = PageAddr::containing(self.range_of_user_half().end());
        let mut next = PageAddr::containing(0);
        core::iter::from_fn(move || {
            if next >= end {
                return None;
            }
            let vma = self.vmas.read(self.env().extras()).map(|vmas| vmas.touching(next, end).next().copied());
            next = vma.ok().flatten().map_or(end, |vma| vma.end());
            vma.transpose()
        })
    }

    fn range_of_user_half(&self) -> UserRange {
        self.mm.levels().user_half().range()
    }
}

/// What a stretch of free pages must have room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    pub(super) pages: u64,
    /// A power of two, in bytes.
    pub(super) align: u64,
    /// Free pages before and behind it.
    pub(super) guard_pages: u64,
}
