//! VMAs that grow: a stack begins with a page or two, and gets more where a thread pushes.

use super::UserSpace;
use super::vma_map::{Looked, VmaMap};
use crate::addr::{PAGE_SIZE, PageAddr};
use crate::env::{Env, GrowError, ReaderSlot};
use crate::fault::{Fault, FaultError, FaultOutcome, Request, fault_in_vmas, no_vma, permits};
use crate::primitive::Ordering;
use crate::rights::Access;
use crate::vma::VmaFlags;

/// How far VMAs that [grow down](VmaFlags::GROWS_DOWN) may, in one address space and in the children that it forks from then on.
///
/// An access to a page in no VMA makes the next one above reach down to that page, if it is one that grows and permits the access; a pin
/// does not, nor does a copy that nobody faults for. Nothing is allocated for it. What is mapped is never in the way by accident: below what has grown,
/// so many pages are in no VMA, or it does not grow. Other memory is kept away from a stack by a
/// [`Placement`](super::Placement), or the kernel's choice of addresses.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// space.set_growth(Growth { guard_pages: 16, most_pages: 8 });
/// let stack = MapOptions::new(Rights::READ | Rights::WRITE).flags(VmaFlags::GROWS_DOWN);
/// space.map(0x7f_0000, 0x1000, stack)?; // its first page, at the top
/// let push = |address| Fault { address, access: Access::Write, key_denied: false, malformed_table: false };
/// space.fault(push(0x7e_e010))?;
/// assert_eq!(space.vma_at(0x7f_0000)?.map(|vma| vma.pages()), Some(3));
/// assert_eq!(space.fault(push(0x7e_8000)), Err(FaultError::GrowthLimit));
/// assert_eq!(space.growth().most_pages, 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Pages in no VMA that there must be below one that grows; at least one.
    pub guard_pages: u32,
    /// The most pages that it may have (`RLIMIT_STACK` on Linux).
    pub most_pages: u32,
}

impl Growth {
    /// As on Linux: 8 MiB, and 1 MiB below it.
    pub(super) const DEFAULT: Self = Self { guard_pages: 256, most_pages: 2048 };

    pub(super) const fn packed(self) -> u64 {
        (self.guard_pages as u64) << 32 | self.most_pages as u64
    }

    const fn unpacked(bits: u64) -> Self {
        Self { guard_pages: (bits >> 32) as u32, most_pages: bits as u32 }
    }
}

impl<K: Env, C> UserSpace<K, C> {
    /// How far VMAs may grow from now on; at first 8 MiB, with 1 MiB between. What has grown stays.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.set_growth(Growth { most_pages: 16, ..space.growth() });
    /// ```
    pub fn set_growth(&self, growth: Growth) {
        self.growth.store(growth.packed(), Ordering::Relaxed);
    }

    /// How far VMAs may grow.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// assert_eq!(space.growth(), Growth { guard_pages: 256, most_pages: 2048 });
    /// ```
    #[must_use]
    pub fn growth(&self) -> Growth {
        Growth::unpacked(self.growth.load(Ordering::Relaxed))
    }

    /// A fault outside of every VMA, with no lock held.
    #[cold]
    #[inline(never)]
    pub(super) fn fault_outside(&self, fault: Fault) -> Result<FaultOutcome, FaultError> {
        match no_vma(&self.mm, fault) {
            FaultError::NoVma => self.grow_to(PageAddr::containing(fault.address), fault.access)?,
            error => return Err(error),
        }
        let section = self.vmas.read(self.env().extras())?;
        fault_in_vmas(&self.mm, &Looked { vmas: &section, found: section.slot().map(ReaderSlot::found) }, fault)
    }

    /// Makes the VMA above `page` reach down to it.
    pub(super) fn grow_to(&self, page: PageAddr, access: Access) -> Result<(), GrowError> {
        // Most are accesses to nothing, which keep nobody else from the mm.
        let may = self.vmas.read(self.env().extras())?.growing_to(page, access, self.growth())?;
        match may {
            false => Ok(()),
            true => self.vmas.write(self.env().extras())?.grow_to(page, access, self.growth()),
        }
    }
}

impl VmaMap {
    /// Whether the VMA above `page` may grow down to it. `false`: there is one by now.
    fn growing_to(&self, page: PageAddr, access: Access, growth: Growth) -> Result<bool, GrowError> {
        let vma = self.next_from(page).ok_or(GrowError::NoVma)?;
        if vma.start() <= page {
            return Ok(false);
        }
        if !vma.flags().contains(VmaFlags::GROWS_DOWN) || vma.flags().contains(VmaFlags::UNMAP_DEFERRED) {
            return Err(GrowError::NoVma);
        }
        if !permits(vma.terms(), Request::of(access)) {
            return Err(GrowError::AccessDenied);
        }
        if page.pages_to(vma.end()) > growth.most_pages.into() {
            return Err(GrowError::Limit);
        }
        let guard = u64::from(growth.guard_pages.max(1)) * PAGE_SIZE;
        let lowest = PageAddr::containing(page.address().checked_sub(guard).ok_or(GrowError::GuardGap)?);
        let is_near = self.touching(lowest, page).next().is_some() || self.is_leaving(lowest, vma.start());
        if is_near { Err(GrowError::GuardGap) } else { Ok(true) }
    }

    /// Makes it do so. Neighbours are a page apart at least, so none is joined.
    fn grow_to(&mut self, page: PageAddr, access: Access, growth: Growth) -> Result<(), GrowError> {
        if self.growing_to(page, access, growth)? {
            self.extend_down(page);
        }
        Ok(())
    }
}
