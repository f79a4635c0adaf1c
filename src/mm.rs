//! [`Mm`], the tables of one address space, and [`AddressSpace`], what a kernel with areas of its own tells about it.
//!
//! Lock order: mm lock (the kernel's, or `UserSpace`'s) -> table lock ([`Mm`]) -> the frame source's own.

use crate::addr::{PageAddr, Pfn};
use crate::arch::{KeyRights, Levels};
use crate::area::{Area, Rights};
use crate::env::{Env, PinBudget, Unlimited};
use crate::primitive::{SpinMutex, SpinMutexGuard, const_fn};

/// The page tables of one address space and the lock under which they change.
pub struct Mm<K: Env> {
    root: Pfn,
    levels: Levels,
    table_lock: SpinMutex<(), K::Relax>,
}

impl<K: Env> Mm<K> {
    const_fn! {
        /// # Safety
        /// `root` is a valid top table for `levels`, reachable through the kernel's `PhysMap`, and lives as long as this
        /// value; from now on the user half below it changes only through the crate. Its entries of the other half are not
        /// for user code (`US` is clear): a walk that is led there ends there.
        #[must_use]
        pub const unsafe fn new(root: Pfn, levels: Levels) -> Self {
            Self { root, levels, table_lock: SpinMutex::new(()) }
        }
    }

    /// The top table: what goes into `CR3`.
    #[must_use]
    #[inline(always)]
    pub const fn root(&self) -> Pfn {
        self.root
    }

    /// The number of levels.
    #[must_use]
    #[inline(always)]
    pub const fn levels(&self) -> Levels {
        self.levels
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> SpinMutexGuard<'_, (), K::Relax> {
        self.table_lock.lock()
    }
}

impl<K: Env> core::fmt::Debug for Mm<K> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mm").field("root", &self.root).field("levels", &self.levels).finish_non_exhaustive()
    }
}

/// Why a page of a foreign area stays without an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForeignFault {
    /// There is nothing to map.
    NotMapped,
    /// No memory for a table or for what is to be mapped.
    NoMemory,
}

/// The areas of an address space, looked at with its mm lock held.
///
/// # Implementation safety
/// The area returned for a page contains it, areas do not overlap and lie in the mm's user half, and pages outside every
/// area have no entries.
pub unsafe trait Areas {
    /// The area that contains `page`.
    fn area_at(&self, page: PageAddr) -> Option<Area>;

    /// A page of a [`Backing::Foreign`](crate::Backing::Foreign) area was touched with `access` and has no entry: fill it,
    /// or say why not.
    ///
    /// # Errors
    /// [`ForeignFault::NotMapped`] unless the kernel maps such pages on demand.
    fn fault_foreign(&self, page: PageAddr, access: Rights) -> Result<(), ForeignFault> {
        let _ = (page, access);
        Err(ForeignFault::NotMapped)
    }
}

/// One address space, as the pin family and the fault handler see it. Object-safe.
///
/// # Implementation safety
/// `mm` is always the same value. `with_areas` runs its argument exactly once, with a lock held that excludes changes
/// to the areas and to what pages map (unmap, protect, fork), but not other callers of `with_areas`. The lock is not
/// taken anywhere inside the crate's other traits.
pub unsafe trait AddressSpace<K: Env>: Sync {
    /// The tables.
    fn mm(&self) -> &Mm<K>;

    /// Runs `look` with the mm lock held for reading.
    fn with_areas(&self, look: &mut dyn FnMut(&dyn Areas));

    /// What protection keys deny to the thread on whose behalf the call is made.
    #[inline]
    fn key_rights(&self) -> KeyRights {
        KeyRights::ALLOW_ALL
    }

    /// Who pays for pins.
    #[inline]
    fn budget(&self) -> &dyn PinBudget {
        &Unlimited
    }
}
