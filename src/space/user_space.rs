//! [`UserSpace`]: areas, mm lock, tables and all operations of one address space, ready to use.

use core::fmt;

use super::area_map::AreaMap;
use super::zap::reject_split_leaves;
use super::{
    ForkError, KernelHalf, ProtectPolicy, SpaceError, Unmapped, fork_areas, free_tables, protect_pages, zap_pages,
};
use crate::addr::{Pfn, RangeError, UserRange};
use crate::arch::{ENTRIES, Entry, KeyRights, LeafSize, Levels};
use crate::area::{Area, Backing, Rights};
use crate::env::{EntryAddr, Env, FrameTable, OwnedFrame, PhysMap, release};
use crate::fault::{Fault, FaultError, FaultOutcome, fault_in_areas};
use crate::frame::FrameKind;
use crate::mm::{AddressSpace, Areas, Mm};
use crate::paging::Tables;
use crate::pin::{PinBudget, PinLimit};
use crate::primitive::RwLock;

/// Choices that hold for an address space and its children.
#[derive(Clone, Copy, Debug)]
pub struct SpaceOptions {
    /// Levels of the page tables.
    pub levels: Levels,
    /// The kernel half that every new root gets, if there is one.
    pub kernel_half: Option<KernelHalf>,
    /// What protect does about pinned pages.
    pub protect_policy: ProtectPolicy,
    /// Most base pages that may be pinned at a time.
    pub pin_limit: u64,
    /// Reads the rights of the running thread's protection keys (the PKRU register), where keys are in use.
    pub key_rights: Option<fn() -> KeyRights>,
}

impl Default for SpaceOptions {
    fn default() -> Self {
        Self {
            levels: Levels::Four,
            kernel_half: None,
            protect_policy: ProtectPolicy::Allow,
            pin_limit: u64::MAX,
            key_rights: None,
        }
    }
}

/// One process's address space.
///
/// All methods take `&self` and may be called from any CPU; map, unmap, protect and fork exclude each other and
/// everything that faults. Dropping it unmaps everything and frees the tables: no CPU may be running on them.
pub struct UserSpace<'k, K: Env> {
    env: &'k K,
    mm: Mm<K>,
    areas: RwLock<AreaMap, K::Relax>,
    options: SpaceOptions,
    budget: PinLimit,
}

impl<'k, K: Env> UserSpace<'k, K> {
    /// An empty address space.
    ///
    /// # Errors
    /// [`SpaceError::NoMemory`].
    pub fn new(env: &'k K, options: SpaceOptions) -> Result<Self, SpaceError> {
        let root = OwnedFrame::zeroed(env, FrameKind::Table, 0).ok_or(SpaceError::NoMemory)?.into_entry();
        if let Some(kernel) = options.kernel_half {
            for index in options.levels.user_root_entries()..ENTRIES {
                // SAFETY: the kernel's root lives as long as the kernel; nobody else knows the new one; the index lies
                // within both.
                unsafe {
                    let entry = env.phys_map().load_entry(EntryAddr::new(kernel.root(), index));
                    env.phys_map().store_entry(EntryAddr::new(root, index), entry);
                }
            }
        }
        // SAFETY: the root was just made, cleared but for the kernel half, of which `KernelHalf` says that it is not for
        // user code; it is freed only by `drop`, and its user half is reached only through `mm`.
        let mm = unsafe { Mm::new(root, options.levels) };
        let budget = PinLimit::new(options.pin_limit);
        Ok(Self { env, mm, areas: RwLock::new(AreaMap::default()), options, budget })
    }

    /// The kernel.
    #[must_use]
    pub fn env(&self) -> &'k K {
        self.env
    }

    /// The top table: what goes into `CR3`.
    #[must_use]
    pub fn root(&self) -> Pfn {
        self.mm.root()
    }

    /// `length` bytes from `start`, checked against this address space.
    ///
    /// # Errors
    /// [`RangeError`].
    #[inline]
    pub fn range(&self, start: u64, length: u64) -> Result<UserRange, RangeError> {
        UserRange::new(self.options.levels, start, length)
    }

    /// Zero-filled private memory, present on first use.
    ///
    /// # Errors
    /// [`SpaceError::Range`], `Overlap`, `TooManyAreas`, `NoMemory`.
    pub fn map(&self, start: u64, length: u64, rights: Rights) -> Result<(), SpaceError> {
        self.map_with_key(start, length, rights, Rights::all(), 0)
    }

    /// As [`UserSpace::map`], with an upper bound on later rights and with a protection key.
    ///
    /// # Errors
    /// As [`UserSpace::map`], and [`SpaceError::AccessDenied`] if `rights` exceed `may`.
    pub fn map_with_key(
        &self,
        start: u64,
        length: u64,
        rights: Rights,
        may: Rights,
        key: u8,
    ) -> Result<(), SpaceError> {
        let range = UserRange::pages_only(self.options.levels, start, length)?;
        let mut areas = self.areas.write();
        let (start, end) = (range.first_page(), range.end_page());
        let area = Area { start, end, rights, may, backing: Backing::Anonymous, key };
        areas.make_room(&area)?;
        areas.insert(area);
        Ok(())
    }

    /// Maps `length` bytes from physical frame `first` on: device registers or other memory that is not the crate's
    /// to count. It is never pinned, and fork shares it.
    ///
    /// # Errors
    /// As [`UserSpace::map`]. Tables in the range that had nothing in them before may be gone.
    ///
    /// # Safety
    /// User code may access those frames with `rights` for as long as they are mapped.
    pub unsafe fn map_foreign(&self, start: u64, length: u64, first: Pfn, rights: Rights) -> Result<(), SpaceError> {
        let range = UserRange::pages_only(self.options.levels, start, length)?;
        let (start, end) = (range.first_page(), range.end_page());
        let mut areas = self.areas.write();
        let area = Area { start, end, rights, may: rights, backing: Backing::Foreign, key: 0 };
        areas.make_room(&area)?;
        let mut tables = Tables::lock(self.env, &self.mm);
        for index in 0..range.pages() {
            // SAFETY: the range was checked against this mm's levels.
            let at = match unsafe { tables.place(start.offset(index), LeafSize::Size4KiB) } {
                Ok(at) => at,
                Err(error) => {
                    drop(tables);
                    if index > 0 {
                        let done = UserRange::of_pages(start, start.offset(index));
                        // There is nothing to refuse: the way to each of these pages was just followed.
                        // SAFETY: a part of a range that was checked; the mm lock is held for writing.
                        let _ = unsafe { zap_pages(self.env, &self.mm, done, true) };
                    }
                    return Err(error.into());
                }
            };
            let entry = Entry::leaf(first.offset(index), LeafSize::Size4KiB, rights, 0).uncached().special();
            let entry = if rights.is_empty() { entry.parked() } else { entry };
            // SAFETY: the place is of this size, under this lock, and no area contains the page, so nothing is mapped there; a
            // special entry owns no reference, and the caller vouches for the rights.
            unsafe { tables.fill(at, entry) };
        }
        areas.insert(area);
        Ok(())
    }

    /// Unmaps whole pages; holes are fine.
    ///
    /// # Errors
    /// [`SpaceError::Range`], `LargeLeaf`, `TooManyAreas`, `NoMemory`.
    pub fn unmap(&self, start: u64, length: u64) -> Result<Unmapped, SpaceError> {
        let range = UserRange::pages_only(self.options.levels, start, length)?;
        let mut areas = self.areas.write();
        let added = areas.splits(range.first_page(), range.end_page());
        areas.reserve(added)?;
        // SAFETY: the range was checked against this mm's levels; the mm lock is held for writing.
        let unmapped = unsafe { zap_pages(self.env, &self.mm, range, true) }?;
        areas.change(range.first_page(), range.end_page(), |_| None);
        Ok(unmapped)
    }

    /// Forgets the contents of whole pages of private memory (`MADV_DONTNEED`): the next access finds zeroes. Foreign
    /// memory and holes are left alone.
    ///
    /// # Errors
    /// [`SpaceError::Range`], `LargeLeaf`.
    pub fn discard(&self, start: u64, length: u64) -> Result<Unmapped, SpaceError> {
        let range = UserRange::pages_only(self.options.levels, start, length)?;
        let areas = self.areas.write();
        let (first, end) = (range.first_page(), range.end_page());
        let private = areas.touching(first, end).iter().filter(|area| area.backing == Backing::Anonymous);
        let parts = private.map(|area| UserRange::of_pages(area.start.max(first), area.end.min(end)));
        let tables = Tables::lock(self.env, &self.mm);
        for part in parts.clone() {
            reject_split_leaves(&tables, part.first_page(), part.end_page())?;
        }
        drop(tables);
        let mut total = Unmapped::default();
        for part in parts {
            // SAFETY: a part of a range that was checked; the mm lock is held for writing.
            let unmapped = unsafe { zap_pages(self.env, &self.mm, part, false) }?;
            total.pages += unmapped.pages;
            total.pinned_pages += unmapped.pinned_pages;
        }
        Ok(total)
    }

    /// Gives whole pages other rights.
    ///
    /// # Errors
    /// [`SpaceError::Range`], `NoArea` (a hole), `AccessDenied`, `Pinned` (by policy), `LargeLeaf`, `TooManyAreas`,
    /// `NoMemory`.
    pub fn protect(&self, start: u64, length: u64, rights: Rights) -> Result<(), SpaceError> {
        let range = UserRange::pages_only(self.options.levels, start, length)?;
        let (first, end) = (range.first_page(), range.end_page());
        let mut areas = self.areas.write();
        if !areas.covers(first, end) {
            return Err(SpaceError::NoArea);
        }
        if areas.touching(first, end).iter().any(|area| !area.may.contains(rights)) {
            return Err(SpaceError::AccessDenied);
        }
        let added = areas.splits(first, end);
        areas.reserve(added)?;
        let policy = self.options.protect_policy;
        // SAFETY: the areas are this mm's, whose mm lock is held for writing.
        unsafe { protect_pages(self.env, &self.mm, range, areas.touching(first, end), rights, policy) }?;
        areas.change(first, end, |area| Some(Area { rights, ..area }));
        Ok(())
    }

    /// A child with the same areas, its memory copied on write.
    ///
    /// # Errors
    /// [`ForkError`]: this address space is as it was.
    pub fn fork(&self) -> Result<Self, ForkError> {
        let areas = self.areas.write();
        let child = Self::new(self.env, self.options).map_err(|_| ForkError::NoMemory)?;
        *child.areas.write() = areas.try_clone().map_err(|_| ForkError::NoMemory)?;
        // SAFETY: all areas of this mm, whose mm lock is held for writing; the child is new, with the same options.
        unsafe { fork_areas(self.env, &self.mm, &child.mm, areas.iter()) }?;
        Ok(child)
    }

    /// Resolves a page fault; see [`handle_fault`](crate::handle_fault).
    ///
    /// # Errors
    /// [`FaultError`].
    #[inline]
    pub fn fault(&self, fault: Fault) -> Result<FaultOutcome, FaultError> {
        fault_in_areas(self.env, &self.mm, &*self.areas.read(), fault)
    }

    /// What the pins of this address space are charged to.
    #[must_use]
    pub fn pin_limit(&self) -> &PinLimit {
        &self.budget
    }
}

// SAFETY: `mm` is a field; the areas' lock is held around the closure, and every change of areas or mappings other
// than by a fault holds it exclusively.
unsafe impl<K: Env> AddressSpace<K> for UserSpace<'_, K> {
    #[inline(always)]
    fn mm(&self) -> &Mm<K> {
        &self.mm
    }

    fn with_areas(&self, look: &mut dyn FnMut(&dyn Areas)) {
        look(&*self.areas.read());
    }

    #[inline]
    fn key_rights(&self) -> KeyRights {
        self.options.key_rights.map_or(KeyRights::ALLOW_ALL, |read| read())
    }

    #[inline]
    fn budget(&self) -> &dyn PinBudget {
        &self.budget
    }
}

impl<K: Env> Drop for UserSpace<'_, K> {
    fn drop(&mut self) {
        // SAFETY: nobody else has the mm any more.
        unsafe { free_tables(self.env, &self.mm) };
        let root = self.mm.root();
        if let Some(frame) = self.env.frames().frame(root) {
            release(self.env, root, frame.put());
        }
    }
}

impl<K: Env> fmt::Debug for UserSpace<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSpace").field("mm", &self.mm).field("options", &self.options).finish_non_exhaustive()
    }
}
