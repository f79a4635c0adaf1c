//! Pages that are wanted before they are touched (`MAP_POPULATE`), and the parts of objects that a range shows (`msync`).

#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Range;

use super::vma_map::Looked;
use super::{SpaceError, UserSpace};
use crate::addr::{PageAddr, UserRange};
use crate::env::{Env, ReaderSlot};
use crate::fault::{Fault, FaultError, fault_in_vmas};
use crate::rights::Access;
use crate::vma::ObjectId;

/// Pages that are made ready while the mm lock is held.
const MOST: u64 = 64;

/// Where a range could not be populated any further. What comes before is there, unless somebody has taken it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpopulated {
    /// The first page that is missing.
    pub page: PageAddr,
    /// Why.
    pub reason: FaultError,
}

impl Unpopulated {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        self.reason.errno()
    }
}

impl fmt::Display for Unpopulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the page at {:#x}: {}", self.page.address(), self.reason)
    }
}

impl core::error::Error for Unpopulated {}

impl<K: Env, C> UserSpace<K, C> {
    /// Makes the pages of a range ready for an access (`MAP_POPULATE`, `MADV_POPULATE_READ`, `MADV_POPULATE_WRITE`), from the lowest up, as if each was
    /// touched once: what a thread does next takes no fault, unless others take a page again meanwhile. Nothing waits: a page that
    /// has to be read ends it, and the call can be made again when that is done; so each gets further.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.map(0x10000, 16384, Rights::READ | Rights::WRITE)?;
    /// assert_eq!(space.populate(0x10000, 16384, Access::Write), Ok(()));
    /// assert_eq!(space.resident()?.exclusive, 4);
    /// let stopped = space.populate(0x10000, 20480, Access::Read).unwrap_err();
    /// assert_eq!((stopped.page.address(), stopped.reason), (0x14000, FaultError::NoVma));
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`Unpopulated`]: the first page that is missing, and why.
    pub fn populate(&self, start: u64, length: u64, access: Access) -> Result<(), Unpopulated> {
        let at = |page| move |reason| Unpopulated { page, reason };
        let range = UserRange::pages_only(self.mm.levels().user_half(), start, length);
        let range = range.map_err(FaultError::Address).map_err(at(PageAddr::containing(start)))?;
        let (mut next, end) = (range.first_page(), range.end_page());
        while next < end {
            let section = self.vmas.read(self.env().extras()).map_err(FaultError::from).map_err(at(next))?;
            let vmas = Looked { vmas: &section, found: section.slot().map(ReaderSlot::found) };
            for _ in 0..MOST.min(next.pages_to(end)) {
                let fault = Fault { address: next.address(), access, key_denied: false, malformed_table: false };
                fault_in_vmas(&self.mm, &vmas, fault).map_err(at(next))?;
                next = next.offset(1);
            }
        }
        Ok(())
    }

    /// What a range shows of objects that are shared here, part by part: what a kernel writes back for `msync`. Holes end in an error after the
    /// last part, as on Linux. The lock is taken for each step and not kept, so the loop may do anything.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.map(0x10000, 8192, Rights::READ)?;
    /// for part in space.shared_parts(0x10000, 16384)? {
    ///     match part {
    ///         Ok((id, pages)) => panic!("{id:?} {pages:?} to write back, and no object is mapped"),
    ///         Err(error) => assert_eq!(error, SpaceError::NoVma), // half of it is a hole
    ///     }
    /// }
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::Range`]. The iterator ends with [`SpaceError::NoVma`] if there are holes, or with [`SpaceError::Reentered`].
    pub fn shared_parts(
        &self,
        start: u64,
        length: u64,
    ) -> Result<impl Iterator<Item = Result<(ObjectId, Range<u32>), SpaceError>> + '_, SpaceError> {
        let range = UserRange::pages_only(self.mm.levels().user_half(), start, length)?;
        let (mut next, end) = (range.first_page(), range.end_page());
        let mut holes = false;
        Ok(core::iter::from_fn(move || {
            while next < end {
                let vma = match self.vmas.read(self.env().extras()) {
                    Ok(vmas) => vmas.touching(next, end).next().copied(),
                    Err(error) => {
                        next = end;
                        holes = false;
                        return Some(Err(error.into()));
                    }
                };
                holes |= vma.is_none_or(|vma| vma.start() > next);
                let Some(vma) = vma else {
                    next = end;
                    break;
                };
                let (first, stop) = (vma.start().max(next), vma.end().min(end));
                next = stop;
                if let Some((id, page)) = vma.object_page(first).filter(|_| vma.backing().is_shared()) {
                    // A VMA ends before the last page that an object can have.
                    return Some(Ok((id, page..page + first.pages_to(stop) as u32)));
                }
            }
            core::mem::take(&mut holes).then_some(Err(SpaceError::NoVma))
        }))
    }
}
