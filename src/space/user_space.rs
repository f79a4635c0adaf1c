//! [`UserSpace`]: VMAs, mm lock, tables and all operations of one address space, ready to use.

use core::fmt;

use super::growth::Growth;
use super::mm_lock::MmLock;
use super::objects::{tell_mapped, tell_unmapped};
use super::protect::refuses;
use super::vma_map::{Looked, VmaMap};
use super::{Advice, ForkError, KernelHalfError, SpaceError, SpaceOptions, Unmapped, fork_vmas, free_tables};
use crate::addr::{PageAddr, Pfn, RangeError, UserRange};
use crate::arch::{Entry, KeyRights, LeafSize, MemoryType};
use crate::env::{AddressSpace, GrowError, Mm, Reentered, Shootdown, Vmas};
use crate::env::{EntryAddr, Env, ExtraParts, FrameTable, OwnedFrame, PhysMap, release};
use crate::env::{PinBudget, PinLedger, ReaderSlot, SpaceEnd, Unlimited};
use crate::fault::{Fault, FaultError, FaultOutcome, fault_in_vma};
use crate::frame::FrameKind;
use crate::pin::{PinAccess, PinError, PinFlags, PinnedRange, RunBuffer, pin_user_pages_fast};
use crate::primitive::{AtomicU64, Ordering, RwLock};
use crate::rights::{Access, Rights};
use crate::vma::{Backing, MapOptions, Vma};

/// One process's address space.
///
/// All methods take `&self` and may be called from any CPU; map, unmap, protect and fork exclude each other and
/// everything that faults. Dropping it unmaps everything and frees the tables: no CPU may be running on them.
///
/// `K` is the kernel, or rather a reference to it that all spaces hold; `C` is what the pins are charged to.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// // A kernel half goes in, where a processor is to run it: `SpaceOptions::new`.
/// let parent = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// parent.set_tag(1); // for the kernel's ledger
/// parent.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let write = Fault { address: 0x10123, access: Access::Write, key_denied: false, malformed_table: false };
/// parent.fault(write)?; // the first touch
/// let child = parent.fork()?; // from here on copied on write
///
/// let pinned = child.pin(Write, child.range(0x10100, 14)?, [PhysRun::default(); 1])?;
/// pinned.copy_from(0, b"of the child's")?;
/// drop(pinned);
/// child.protect(0x10000, 0x4000, Rights::READ)?;
/// assert_eq!(child.fault(write), Err(FaultError::AccessDenied));
///
/// parent.advise(0x10000, 0x1000, Advice::DontFork)?;
/// parent.discard(0x10000, 0x1000)?; // zeroes again
/// parent.unmap(0x10000, 0x4000)?;
/// assert_eq!(parent.fault(write), Err(FaultError::NoVma));
/// assert_eq!(parent.check_root(), Err(KernelHalfError::NoKernel));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UserSpace<K: Env, C = Unlimited> {
    pub(super) mm: Mm<K>,
    pub(super) vmas: MmLock<RwLock<VmaMap, K::Relax>>,
    options: SpaceOptions,
    budget: C,
    tag: AtomicU64,
    /// How far VMAs may grow.
    pub(super) growth: AtomicU64,
    /// How often an unmap was deferred since none waited.
    pub(super) deferrals: AtomicU64,
    ended: bool,
}

impl<K: Env> UserSpace<K> {
    /// An empty address space of `kernel`, whose pins nobody counts.
    ///
    /// # Errors
    /// [`SpaceError::NoMemory`].
    pub fn new(kernel: K, options: SpaceOptions) -> Result<Self, SpaceError> {
        Self::with_budget(kernel, options, Unlimited)
    }
}

impl<K: Env, C> UserSpace<K, C> {
    /// An empty address space of `kernel`, whose pins are charged to `budget`.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// let limit = PinLimit::new(1);
    /// let space = UserSpace::with_budget(&kernel, SpaceOptions::without_kernel_half(Levels::Four), &limit)?;
    /// space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// let pinned = space.pin(Write, space.range(0x10000, 1)?, [PhysRun::default(); 1])?;
    /// assert_eq!(limit.used(), 1);
    /// assert!(space.pin(Write, space.range(0x11000, 1)?, [PhysRun::default(); 1]).is_err());
    /// # drop(pinned);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::NoMemory`].
    pub fn with_budget(kernel: K, options: SpaceOptions, budget: C) -> Result<Self, SpaceError> {
        Self::with_vma_map(kernel, options, budget, VmaMap::default())
    }

    /// The same with VMAs, whose pages are not there yet.
    fn with_vma_map(kernel: K, options: SpaceOptions, budget: C, vmas: VmaMap) -> Result<Self, SpaceError> {
        let env = &kernel;
        let root = OwnedFrame::staying(env, FrameKind::Table).ok_or(SpaceError::NoMemory)?.into_entry();
        for (index, entry) in options.kernel_half.entries(env.phys_map()) {
            // SAFETY: nobody else knows the new root; the index lies within it.
            unsafe { env.phys_map().store_entry(EntryAddr::new(root, index), entry) };
        }
        // SAFETY: the root was just made, cleared but for the kernel half, whose entries are not for user
        // code; it is freed only by `drop`, and its user half is reached only through `mm`.
        let mm = unsafe { Mm::new(kernel, root, options.levels()) };
        let (vmas, tag, deferrals) = (MmLock::new(RwLock::new(vmas)), AtomicU64::new(0), AtomicU64::new(0));
        let growth = AtomicU64::new(Growth::DEFAULT.packed());
        Ok(Self { mm, vmas, options, budget, tag, growth, deferrals, ended: false })
    }

    /// The kernel.
    #[must_use]
    pub fn env(&self) -> &K {
        self.mm.env()
    }

    /// The top table: what goes into `CR3`.
    #[must_use]
    pub fn root(&self) -> Pfn {
        self.mm.root()
    }

    /// Whether the root maps the kernel, so that it can be loaded.
    #[must_use]
    pub fn has_kernel_half(&self) -> bool {
        self.options.kernel_half.root().is_some()
    }

    /// Whether the root can be loaded: it has a kernel half, with all that the kernel's root has by now. For an assertion where
    /// roots are loaded.
    ///
    /// # Errors
    /// [`KernelHalfError`]: [`NoKernel`](KernelHalfError::NoKernel) or [`Outdated`](KernelHalfError::Outdated).
    pub fn check_root(&self) -> Result<(), KernelHalfError> {
        self.options.kernel_half.compare(self.env().phys_map(), self.root())
    }

    /// `length` bytes from `start`, checked against this address space.
    ///
    /// # Errors
    /// [`RangeError`].
    #[inline]
    pub fn range(&self, start: u64, length: u64) -> Result<UserRange, RangeError> {
        UserRange::new(self.options.levels().user_half(), start, length)
    }

    /// Zero-filled private memory, present on first use. `options` are its [`Rights`], or [`MapOptions`] that say more.
    ///
    /// # Errors
    /// [`SpaceError::Range`], `AccessDenied` (more rights than it may ever be given), `InvalidKey`, `Overlap`,
    /// `TooManyVmas`, `NoMemory`.
    pub fn map(&self, start: u64, length: u64, options: impl Into<MapOptions>) -> Result<(), SpaceError> {
        let range = UserRange::pages_only(self.options.levels().user_half(), start, length)?;
        let vma = Vma::new(range, Backing::Anonymous, options)?;
        let mut vmas = self.vmas.write(self.env().extras())?;
        vmas.make_room(&vma)?;
        vmas.insert(vma);
        Ok(())
    }

    /// Maps `length` bytes from physical frame `first` on: device registers or other memory that is not the crate's
    /// to count. It is never pinned, and fork shares it. Accesses are of the type `memory`.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
    /// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// // SAFETY: nothing is at these physical addresses but the device's registers, which the process may have.
    /// unsafe { space.map_foreign(0x8000_0000, 0x1000, Pfn::new(0xfe000), MemoryType::UNCACHED, Rights::READ | Rights::WRITE) }?;
    /// assert_eq!(space.resident()?.foreign, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`UserSpace::map`]. Tables in the range that had nothing in them before may be gone.
    ///
    /// # Safety
    /// User code may access those frames with `rights` for as long as they are mapped. `memory` is fit for what they are, and
    /// nobody accesses them by another type meanwhile, the kernel's direct map included: a processor need not keep the two
    /// apart. What [`MemoryType`] asks of the kernel for this type has been done.
    pub unsafe fn map_foreign(
        &self,
        start: u64,
        length: u64,
        first: Pfn,
        memory: MemoryType,
        rights: Rights,
    ) -> Result<(), SpaceError> {
        let range = UserRange::pages_only(self.options.levels().user_half(), start, length)?;
        let vma = Vma::new(range, Backing::Foreign(memory), MapOptions::new(rights).max_rights(rights))?;
        let entry = |index| {
            let entry = Entry::leaf(first.offset(index), LeafSize::Size4KiB, rights, 0);
            let entry = entry.with_memory_type(LeafSize::Size4KiB, memory).special();
            if rights.is_empty() { entry.prot_none() } else { entry }
        };
        // SAFETY: special entries of 4 KiB, for whose rights and type the caller vouches.
        unsafe { self.map_in_steps(vma, entry) }
    }

    /// Unmaps whole pages; holes are fine. Pages that are pinned go, too, and are reported, unless their VMA
    /// [refuses](crate::VmaFlags::REFUSE_UNMAP_PINNED) or [defers](crate::VmaFlags::DEFER_UNMAP_PINNED) that.
    ///
    /// Nobody finds a VMA there from the beginning on, and nobody maps anything there before all of it has gone. The pages of a long range go
    /// step by step, and others have the mm lock between: a thread may use a page until its step; a child that is forked
    /// meanwhile gets none of them.
    ///
    /// # Errors
    /// [`SpaceError::Range`], `Pinned` (by policy), `LargeLeaf`, `TooManyVmas`, `NoMemory`.
    pub fn unmap(&self, start: u64, length: u64) -> Result<Unmapped, SpaceError> {
        let range = UserRange::pages_only(self.options.levels().user_half(), start, length)?;
        self.unmap_in_steps(range)
    }

    /// Forgets the contents of whole pages of private memory (`MADV_DONTNEED`): the next access finds zeroes. Foreign
    /// memory and holes are left alone. A long range is discarded step by step, from its lowest page up, and others have the mm lock between.
    ///
    /// # Errors
    /// [`SpaceError::Range`], `Pinned` (a VMA that [refuses](crate::VmaFlags::REFUSE_UNMAP_PINNED) or
    /// [defers](crate::VmaFlags::DEFER_UNMAP_PINNED) the unmap), `LargeLeaf`.
    pub fn discard(&self, start: u64, length: u64) -> Result<Unmapped, SpaceError> {
        let range = UserRange::pages_only(self.options.levels().user_half(), start, length)?;
        self.discard_in_steps(range)
    }

    /// Gives whole pages other rights.
    ///
    /// A long range (thousands of pages with entries, or of VMAs) is changed step by step, from its lowest page up, and others have the
    /// mm lock between: they see the old rights or the new ones page by page. If they unmap some of it meanwhile, or take the last room for VMAs,
    /// the error says so, and what came before stays changed.
    ///
    /// # Errors
    /// [`SpaceError::Range`], `NoVma` (a hole), `AccessDenied`, `Pinned` (by policy), `LargeLeaf`, `TooManyVmas`,
    /// `NoMemory`.
    pub fn protect(&self, start: u64, length: u64, rights: Rights) -> Result<(), SpaceError> {
        let range = UserRange::pages_only(self.options.levels().user_half(), start, length)?;
        self.change_in_steps(range, Some(rights), |vma| refuses(vma, rights), |vma| vma.with_rights(rights))
    }

    /// Says what fork is to do with whole pages (`madvise` on Linux). Of thousands of VMAs step by step, as [`UserSpace::protect`].
    ///
    /// # Errors
    /// [`SpaceError::Range`], `NoVma` (a hole), `InvalidFlags` (wiping what is not private memory), `LargeLeaf`, `TooManyVmas`, `NoMemory`.
    pub fn advise(&self, start: u64, length: u64, advice: Advice) -> Result<(), SpaceError> {
        let range = UserRange::pages_only(self.options.levels().user_half(), start, length)?;
        let advised = |vma: Vma| vma.with_flags(advice.applied_to(vma.flags()));
        self.change_in_steps(range, None, |_| false, advised)
    }

    /// A child with the same VMAs, their memory copied on write but for what [`VmaFlags`](crate::VmaFlags) say, its pins charged to the same budget.
    ///
    /// # Errors
    /// [`ForkError`]: this address space is as it was.
    pub fn fork(&self) -> Result<Self, ForkError>
    where
        K: Clone,
        C: Clone,
    {
        self.fork_with_budget(self.budget.clone())
    }

    /// As [`UserSpace::fork`], with a budget of the child's own.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// let (parents, childs) = (PinLimit::new(8), PinLimit::new(2));
    /// let parent = UserSpace::with_budget(&kernel, SpaceOptions::without_kernel_half(Levels::Four), &parents)?;
    /// let child = parent.fork_with_budget(&childs)?;
    /// assert_eq!(child.budget().used(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`UserSpace::fork`].
    pub fn fork_with_budget(&self, budget: C) -> Result<Self, ForkError>
    where
        K: Clone,
    {
        let vmas = self.vmas.write(self.env().extras())?;
        let inherited = vmas.try_fork().map_err(|_| ForkError::NoMemory)?;
        let child = Self::with_vma_map(self.env().clone(), self.options, budget, inherited);
        let child = child.map_err(|_| ForkError::NoMemory)?;
        child.set_growth(self.growth());
        {
            let inherited = child.vmas.write_beside(self.env().extras(), &vmas);
            tell_mapped(self.env(), inherited.iter());
        }
        // SAFETY: all VMAs of this mm, whose mm lock is held for writing; the child is new, with the same options.
        unsafe { fork_vmas(&self.mm, &child.mm, vmas.iter()) }?;
        Ok(child)
    }

    /// Resolves a page fault; see [`handle_fault`](crate::fault::handle_fault).
    ///
    /// # Errors
    /// [`FaultError`].
    #[inline]
    pub fn fault(&self, fault: Fault) -> Result<FaultOutcome, FaultError> {
        let section = self.vmas.read(self.env().extras())?;
        let vmas = Looked { vmas: &section, found: section.slot().map(ReaderSlot::found) };
        match vmas.vma_at(PageAddr::containing(fault.address)) {
            Some(vma) => fault_in_vma(&self.mm, &vmas, vma.terms(), fault),
            None => {
                drop(section);
                self.fault_outside(fault)
            }
        }
    }

    /// Whom the kernel's [`PinLedger`] names for pins of this address space from now on; 0 at first, and for a child of fork.
    pub fn set_tag(&self, tag: u64) {
        self.tag.store(tag, Ordering::Relaxed);
    }

    /// What the pins of this address space are charged to.
    #[must_use]
    pub fn budget(&self) -> &C {
        &self.budget
    }
}

impl<K: Env, C: PinBudget> UserSpace<K, C> {
    /// Pins all of `range` for [`Read`](crate::pin::Read) or [`Write`](crate::pin::Write), without locks as far as
    /// possible: [`pin_user_pages_fast`] for who wants everything or nothing.
    ///
    /// # Errors
    /// [`PinError`]: nothing is pinned.
    #[inline]
    pub fn pin<A: PinAccess, B: RunBuffer>(
        &self,
        access: A,
        range: UserRange,
        runs: B,
    ) -> Result<PinnedRange<&Self, A, B>, PinError> {
        pin_user_pages_fast(self, access, range, PinFlags::empty(), runs)?.complete()
    }
}

// SAFETY: `mm` is a field; the VMAs' lock is held around the closure, and every change of VMAs or mappings other
// than by a fault holds it exclusively.
unsafe impl<K: Env, C: PinBudget> AddressSpace for UserSpace<K, C> {
    type Kernel = K;
    type Budget = C;

    #[inline(always)]
    fn mm(&self) -> &Mm<K> {
        &self.mm
    }

    fn with_vmas(&self, look: &mut dyn FnMut(&dyn Vmas)) -> Result<(), Reentered> {
        let section = self.vmas.read(self.env().extras())?;
        look(&Looked { vmas: &section, found: section.slot().map(ReaderSlot::found) });
        Ok(())
    }

    fn grow(&self, page: PageAddr, access: Access) -> Result<(), GrowError> {
        self.grow_to(page, access)
    }

    #[inline]
    fn key_rights(&self) -> KeyRights {
        self.options.key_rights.map_or(KeyRights::ALLOW_ALL, |read| read())
    }

    #[inline]
    fn budget(&self) -> &C {
        &self.budget
    }

    #[inline]
    fn tag(&self) -> u64 {
        self.tag.load(Ordering::Relaxed)
    }
}

impl<K: Env, C> UserSpace<K, C> {
    /// Ends the address space, as dropping it does: no CPU may be running on it. What it says, the kernel's
    /// [`PinLedger`] hears as well ([`space_ends`](PinLedger::space_ends)), whichever way it ends. The policies of VMAs
    /// and unmaps that wait hold nothing up: pins keep their frames, and no process is there to see more of them.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.map(0x10000, 8192, Rights::READ | Rights::WRITE)?;
    /// let pinned = space.pin(Write, space.range(0x11000, 4096)?, [PhysRun::default(); 1]).unwrap().into_owned();
    /// let left = space.exit();
    /// assert_eq!((left.pinned_pages, left.still_pinned.runs()[0].start), (1, 0x11000));
    /// # drop(pinned);
    /// # Ok::<(), SpaceError>(())
    /// ```
    pub fn exit(mut self) -> Unmapped {
        self.end()
    }

    fn end(&mut self) -> Unmapped {
        self.ended = true;
        self.env().shootdown().leave_mm(self.root());
        // SAFETY: nobody else has the mm any more.
        let unmapped = unsafe { free_tables(&self.mm) };
        let half = self.mm.levels().user_half().range();
        tell_unmapped(self.mm.env(), self.vmas.get_mut().iter(), (half.first_page(), half.end_page()));
        let (space, tag) = (self.mm.root(), self.tag.load(Ordering::Relaxed));
        let Unmapped { pinned_pages, still_pinned, .. } = &unmapped;
        self.env().extras().ledger().space_ends(&SpaceEnd { space, tag, pinned_pages: *pinned_pages, still_pinned });
        if let Some(frame) = self.env().frames().frame(space) {
            release(self.env(), space, frame.word.put());
        }
        unmapped
    }
}

impl<K: Env, C> Drop for UserSpace<K, C> {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
    }
}

impl<K: Env, C> fmt::Debug for UserSpace<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSpace").field("mm", &self.mm).field("options", &self.options).finish_non_exhaustive()
    }
}
