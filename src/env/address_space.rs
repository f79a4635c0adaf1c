//! [`AddressSpace`] and [`Vmas`]: what a kernel with VMAs of its own tells about an mm.

use core::fmt;

use super::{Env, Mm, PinBudget};
use crate::addr::PageAddr;
use crate::arch::KeyRights;
use crate::errno::{EACCES, EAGAIN, EDEADLK, EFAULT, ENOMEM};
use crate::rights::Access;
use crate::vma::Vma;

/// What a page waits for: a number of the kernel's own, such as a request, a slot or the address of a wait queue. The crate
/// hands it on from [`Vmas`] to whoever asked for the page, and waits for nothing itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NotReady(pub u64);

impl NotReady {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        EAGAIN
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the page is not there yet")
    }
}

impl core::error::Error for NotReady {}

/// The mm lock was asked for by a CPU that is inside a section of one: by a hook that calls back, a fault or a copy to user
/// memory in a section, or an interrupt handler. It would wait for itself. Found where the kernel has
/// [`CpuReaders`](crate::CpuReaders); elsewhere the caller waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reentered;

impl Reentered {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        EDEADLK
    }
}

impl fmt::Display for Reentered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this CPU is inside a section of an mm lock")
    }
}

impl core::error::Error for Reentered {}

/// Why a page of a foreign VMA stays without an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForeignFault {
    /// There is nothing to map.
    NotMapped,
    /// No memory for a table or for what is to be mapped.
    NoMemory,
    /// Not yet. Whoever touched the page waits, with nothing held, and tries again.
    NotReady(NotReady),
}

impl ForeignFault {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::NotMapped => EFAULT,
            Self::NoMemory => ENOMEM,
            Self::NotReady(_) => EAGAIN,
        }
    }
}

impl fmt::Display for ForeignFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMapped => "foreign memory that nothing maps",
            Self::NoMemory => "out of memory",
            Self::NotReady(_) => "the page is not there yet",
        })
    }
}

impl core::error::Error for ForeignFault {}

/// Why no VMA grew down to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrowError {
    /// None above grows.
    NoVma,
    /// The one above does not permit the access.
    AccessDenied,
    /// Too little would lie between it and what is below.
    GuardGap,
    /// It would have more pages than it may.
    Limit,
    /// The mm lock cannot be taken here.
    Reentered(Reentered),
}

impl GrowError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::NoVma | Self::GuardGap => EFAULT,
            Self::AccessDenied => EACCES,
            Self::Limit => ENOMEM,
            Self::Reentered(error) => error.errno(),
        }
    }
}

impl fmt::Display for GrowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoVma => "no VMA contains the address, and none grows down to it",
            Self::AccessDenied => "the VMA that would grow does not permit the access",
            Self::GuardGap => "the VMA that would grow comes too near to the one below",
            Self::Limit => "the VMA that would grow has as many pages as it may",
            Self::Reentered(error) => return error.fmt(f),
        })
    }
}

impl core::error::Error for GrowError {}

impl From<Reentered> for GrowError {
    fn from(error: Reentered) -> Self {
        Self::Reentered(error)
    }
}

/// The VMAs of an address space, looked at with its mm lock held.
///
/// # Implementation safety
/// The VMA returned for a page contains it, VMAs do not overlap and lie in the mm's user half, and pages outside every
/// VMA have no entries, but for those that are being unmapped, in whose place there comes no VMA before they have gone.
pub unsafe trait Vmas {
    /// The VMA that contains `page`.
    fn vma_at(&self, page: PageAddr) -> Option<Vma>;

    /// A page of a [`Backing::Foreign`](crate::Backing::Foreign) VMA was touched with `access` and has no entry: fill it, with a leaf of the VMA's memory type,
    /// or say why not.
    ///
    /// # Errors
    /// [`ForeignFault::NotMapped`] unless the kernel maps such pages on demand.
    fn fault_foreign(&self, page: PageAddr, access: Access) -> Result<(), ForeignFault> {
        let _ = (page, access);
        Err(ForeignFault::NotMapped)
    }
}

/// One address space, as the pin family and the fault handler see it. Object-safe.
///
/// # Implementation safety
/// `mm` and `budget` are always the same values. `with_vmas` runs its argument exactly once, or says why it cannot, with a lock held that excludes changes
/// to the VMAs and to what pages map (unmap, protect, fork), but not other callers of `with_vmas`. `with_vma_at` does the
/// same for the VMA that contains the page; if none does, no VMA comes to be there meanwhile. Whoever frees tables excludes the
/// sections of all VMAs, since one table may hold pages of several. The locks are not taken
/// anywhere inside the crate's other traits.
pub unsafe trait AddressSpace: Sync {
    /// The kernel, or a reference to it, as its mms hold it.
    type Kernel: Env;
    /// Who pays for pins; [`Unlimited`](crate::Unlimited) if nobody counts.
    type Budget: PinBudget;

    /// The tables, and through them the kernel.
    fn mm(&self) -> &Mm<Self::Kernel>;

    /// Runs `look` with the mm lock held for reading. `look` must not call it again: a fair lock lets a writer that has
    /// come meanwhile go first, and that waits for `look`.
    ///
    /// # Errors
    /// [`Reentered`]: `look` did not run.
    fn with_vmas(&self, look: &mut dyn FnMut(&dyn Vmas)) -> Result<(), Reentered>;

    /// Runs `look` with a lock held that keeps the VMA which contains `page`, and what its pages map, as they are. Faults and
    /// slow pins ask for no more at a time, one VMA after another. A kernel that has a lock for each VMA takes that one
    /// here; `look` asks about pages of this VMA only.
    ///
    /// # Errors
    /// [`Reentered`]: `look` did not run.
    #[inline]
    fn with_vma_at(&self, page: PageAddr, look: &mut dyn FnMut(&dyn Vmas)) -> Result<(), Reentered> {
        let _ = page;
        self.with_vmas(look)
    }

    /// A thread accessed `page`, and no VMA contains it. A stack that ends above may grow down to it, if that permits the access
    /// ([`VmaFlags::GROWS_DOWN`](crate::VmaFlags::GROWS_DOWN)). Called with no lock held, and the fault looks once more afterwards.
    ///
    /// # Errors
    /// [`GrowError`], and nothing is changed. [`GrowError::NoVma`] where no VMA ever grows.
    fn grow(&self, page: PageAddr, access: Access) -> Result<(), GrowError> {
        let _ = (page, access);
        Err(GrowError::NoVma)
    }

    /// What protection keys deny to the thread on whose behalf the call is made.
    #[inline]
    fn key_rights(&self) -> KeyRights {
        KeyRights::ALLOW_ALL
    }

    /// Who pays for pins.
    fn budget(&self) -> &Self::Budget;

    /// Whom a [`PinLedger`](crate::PinLedger) names for the pins of this address space: a process, a guest, in a number of the
    /// kernel's own.
    #[inline(always)]
    fn tag(&self) -> u64 {
        0
    }
}
