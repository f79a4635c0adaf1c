//! [`Tables`]: the tables of one mm, under its mm lock.

use core::fmt;
use core::marker::PhantomData;

use super::new_tables::NewTables;
use super::{Broken, Follow, Upper};
use crate::addr::{PageAddr, Pfn};
use crate::arch::{Entry, LeafSize, Level};
use crate::env::{EntryAddr, Env, FlushRange, Mm, PhysMap, Shootdown};
use crate::errno::{EFAULT, EINVAL, ENOMEM};
use crate::primitive::{Ordering, fence, safeguard};

/// Why tables could not be followed or extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// A reserved bit is set, or a kernel-only entry lies in the user half: the tables were damaged by someone else.
    Malformed,
    /// A leaf of another size maps the place.
    LargeLeaf,
    /// No memory for a table page.
    NoMemory,
}

impl TableError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Malformed => EFAULT,
            Self::LargeLeaf => EINVAL,
            Self::NoMemory => ENOMEM,
        }
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the page tables are malformed",
            Self::LargeLeaf => "a leaf of another size is in the way",
            Self::NoMemory => "no memory for a table page",
        })
    }
}

impl core::error::Error for TableError {}

/// Where the search for a page ended.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// // SAFETY: one thread; nobody else has the space.
/// let tables = unsafe { Tables::under_mm_lock(space.mm()) };
/// let slot = tables.find(PageAddr::containing(0x10123))?;
/// assert!(slot.entry.is_empty() && slot.first_page() == slot.page);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The place of the entry.
    pub at: EntryAddr,
    /// The entry: a leaf, prot-none, or empty.
    pub entry: Entry,
    /// Level of the table it lies in.
    pub level: Level,
    /// The page that was looked up.
    pub page: PageAddr,
}

impl Slot {
    /// The size of the leaf; 4 KiB if nothing is mapped.
    #[must_use]
    #[inline(always)]
    pub fn size(&self) -> LeafSize {
        if self.level == Level::LOWEST { LeafSize::Size4KiB } else { self.large_size() }
    }

    #[cold]
    fn large_size(&self) -> LeafSize {
        match self.level.leaf_size() {
            Some(size) if self.entry.has_frame() => size,
            _ => LeafSize::Size4KiB,
        }
    }

    /// The first page the leaf maps.
    #[must_use]
    pub fn first_page(&self) -> PageAddr {
        PageAddr::containing(self.page.address() & !(self.size().bytes() - 1))
    }
}

/// The tables of an mm whose mm lock is held: shared by faults, pins and hooks, exclusively by whoever unmaps, protects, moves
/// or forks.
///
/// Under the shared lock the entries arbitrate. Two changes are made by one exchange from the value that was seen: a leaf where
/// nothing was ([`Tables::fill`]), and a table where none was ([`Tables::place`]). For every other the entry is taken first
/// ([`Tables::break_leaf`]): whoever made it not present owns it, and alone may publish; only then is decided what. Whoever
/// meets an entry that is owned lets its owner go on ([`Env::Relax`]) and looks again. Owners publish before they leave
/// the lock, so who holds it exclusively meets none.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let write = Fault { address: 0x10123, access: Access::Write, key_denied: false, malformed_table: false };
/// space.fault(write)?;
/// // SAFETY: one thread; nobody else has the space.
/// let mut tables = unsafe { Tables::under_mm_lock(space.mm()) };
/// let slot = tables.find(PageAddr::containing(0x10123))?;
/// assert!(slot.first_page().address() == 0x10000 && slot.entry.is_writable());
/// // SAFETY: the slot was just found, and is published below.
/// let broken = unsafe { tables.break_leaf(slot) }.expect("nobody else changes it");
/// let old = broken.flush().leave_empty();
/// assert!(!old.release(&&kernel), "somebody pins it");
///
/// let size = LeafSize::Size4KiB;
/// // SAFETY: the page is in the user half.
/// let at = unsafe { tables.place(slot.page, size) }?;
/// let zero = Entry::leaf(kernel.source().zero_frame().unwrap(), size, Rights::READ, 0).special();
/// // SAFETY: the zero frame is not counted.
/// assert_eq!(unsafe { tables.fill(at, size, zero) }, Ok(()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "looks at nothing by itself"]
pub struct Tables<'a, K: Env> {
    mm: &'a Mm<K>,
    /// The kernel's, so that it is looked up once.
    map: &'a K::PhysMap,
    /// What is under a lock stays with the thread that holds it.
    not_send: PhantomData<*const ()>,
}

impl<'a, K: Env> Tables<'a, K> {
    /// The tables of `mm`.
    ///
    /// # Safety
    /// As long as this lives the caller holds the mm lock of `mm`, shared at least: it is called inside
    /// [`AddressSpace::with_vmas`](crate::AddressSpace::with_vmas) or [`with_vma_at`](crate::AddressSpace::with_vma_at), for the
    /// VMA there, or nobody else has the mm.
    #[inline(always)]
    pub unsafe fn under_mm_lock(mm: &'a Mm<K>) -> Self {
        Self { mm, map: mm.env().phys_map(), not_send: PhantomData }
    }

    /// The kernel.
    #[inline(always)]
    pub fn env(&self) -> &'a K {
        self.mm.env()
    }

    /// The mm.
    #[inline(always)]
    pub fn mm(&self) -> &'a Mm<K> {
        self.mm
    }

    /// The kernel's direct map.
    #[inline(always)]
    pub(super) fn map(&self) -> &'a K::PhysMap {
        self.map
    }

    /// The entry at `at`.
    #[inline(always)]
    pub(crate) fn load(&self, at: EntryAddr) -> Entry {
        // SAFETY: places of entries come from a descent under the mm lock that is still held, and tables leave the tree only
        // under the exclusive one, so the table is alive; each index is one of a level, or less than a table's end away from one.
        unsafe { self.map.load_entry(at) }
    }

    /// Whether the entry at `slot` maps something else than what was found. Asked after a look at the word of its frame.
    #[inline(always)]
    pub(crate) fn has_changed(&self, slot: &Slot) -> bool {
        // That look may have been a relaxed load. Pairs with the release by which the frame went, if it did: whoever let it go
        // had broken the entry.
        fence(Ordering::Acquire);
        !self.load(slot.at).same_mapping(slot.entry)
    }

    /// From the root towards `page`: its entry in a table of level `floor`, or the first on the way that leads to no table.
    #[inline(always)]
    pub(super) fn descend(&self, page: PageAddr, floor: Level, follow: Follow) -> Slot {
        let mut table = self.mm.root();
        // Apart from the three levels that are constants, so that those are unrolled.
        if let Some(level) = self.mm.levels().extra() {
            let slot = self.slot(table, level, page);
            match follow.meaning(slot.entry, level) {
                Upper::Table(below) if level != floor => table = below,
                _ => return slot,
            }
        }
        for level in Level::UPPER {
            let slot = self.slot(table, level, page);
            match follow.meaning(slot.entry, level) {
                Upper::Table(below) if level != floor => table = below,
                _ => return slot,
            }
        }
        self.slot(table, Level::LOWEST, page)
    }

    #[inline(always)]
    fn slot(&self, table: Pfn, level: Level, page: PageAddr) -> Slot {
        let at = EntryAddr::new(table, level.index(page.address()));
        Slot { at, entry: self.load(at), level, page }
    }

    /// Finds the entry that maps `page`, or the empty one where the search ends. Under the shared lock it is what was there a
    /// moment ago; it can be one that another CPU owns.
    ///
    /// # Errors
    /// [`TableError::Malformed`].
    #[inline(always)]
    pub fn find(&self, page: PageAddr) -> Result<Slot, TableError> {
        let slot = self.descend(page, Level::LOWEST, Follow::Live);
        let malformed = if slot.level == Level::LOWEST {
            slot.entry.is_present() && !slot.entry.is_user()
        } else {
            Upper::of(slot.entry, slot.level) == Upper::Malformed
        };
        if malformed { Err(TableError::Malformed) } else { Ok(slot) }
    }

    /// The entry that maps `page` in a table of the lowest level, if there is one on the way to it.
    #[inline(always)]
    pub(crate) fn find_lowest(&self, page: PageAddr) -> Option<Slot> {
        let slot = self.descend(page, Level::LOWEST, Follow::Live);
        (slot.level == Level::LOWEST).then_some(slot)
    }

    /// Finds the place of a leaf of `size` for `page`, adding the tables on the way.
    ///
    /// # Errors
    /// [`TableError::NoMemory`], [`TableError::LargeLeaf`], [`TableError::Malformed`]: no table was added.
    ///
    /// # Safety
    /// `page` lies in the user half of this mm: the tables of the other half are not under this lock.
    pub unsafe fn place(&mut self, page: PageAddr, size: LeafSize) -> Result<EntryAddr, TableError> {
        // Bounded: whoever was faster linked a table, so each round begins lower.
        loop {
            let slot = self.descend(page, size.level(), Follow::Live);
            if slot.level == size.level() {
                return Ok(slot.at);
            }
            match Upper::of(slot.entry, slot.level) {
                Upper::Empty => {
                    let new = NewTables::for_leaf(self.env(), slot.level.below(), page, size)?;
                    let seen = if safeguard!(FillsTheEmpty => true) { Entry::EMPTY } else { self.load(slot.at) };
                    if let Some(place) = new.link(slot.at, seen) {
                        return Ok(place);
                    }
                }
                Upper::Leaf(_) | Upper::Owned => return Err(TableError::LargeLeaf),
                // A descent goes on where there is a table.
                Upper::Table(_) | Upper::Malformed => return Err(TableError::Malformed),
            }
        }
    }

    /// As [`Tables::place`], from where the search for the page ended without finding anything.
    ///
    /// # Errors
    /// As [`Tables::place`].
    ///
    /// # Safety
    /// As [`Tables::place`], for the page of the slot, which was found under this lock.
    #[inline]
    pub(crate) unsafe fn place_at(&mut self, slot: &Slot, size: LeafSize) -> Result<EntryAddr, TableError> {
        if slot.level == size.level() {
            return Ok(slot.at);
        }
        // SAFETY: forwarded from the caller.
        unsafe { self.place(slot.page, size) }
    }

    /// Puts a leaf where nothing is, by one exchange.
    ///
    /// # Errors
    /// The entry that is there: another CPU was faster. The reference stays the caller's.
    ///
    /// # Safety
    /// `at` comes from [`Tables::place`] with `size` under this lock; `entry` is a leaf of that size whose frame the caller holds a
    /// reference to, which the entry now owns, and which is writable only if the frame is `EXCLUSIVE` (INV-1). All of it lies
    /// in one VMA, or in VMAs that are and stay alike: a leaf has one set of rights.
    #[inline]
    pub unsafe fn fill(&mut self, at: EntryAddr, size: LeafSize, entry: Entry) -> Result<(), Entry> {
        self.before_execute(Entry::EMPTY, entry, size);
        let seen = if safeguard!(FillsTheEmpty => true) { Entry::EMPTY } else { self.load(at) };
        // SAFETY: the mm lock is held, so the table is alive; the caller vouches for the place and for the new entry.
        unsafe { self.map.exchange_entry(at, seen, entry) }?;
        self.added();
        Ok(())
    }

    /// Sets the bits of accessed and dirty that `used` has more than what was seen, as hardware would: unless the entry has
    /// become another meanwhile.
    ///
    /// # Safety
    /// `at` was found under this lock and had `seen`; `used` differs from it in these bits alone.
    #[inline]
    pub(crate) unsafe fn note_use(&mut self, at: EntryAddr, seen: Entry, used: Entry) {
        // SAFETY: the mm lock is held, so the table is alive; the caller vouches for the place and the change.
        if unsafe { self.map.exchange_entry(at, seen, used) }.is_ok() {
            self.added();
        }
    }

    /// Some entry maps what it did not, or may permit more.
    #[inline(always)]
    pub(crate) fn added(&self) {
        self.env().shootdown().entries_added(self.mm.root());
    }

    /// A leaf of `size` is about to become `new`. Every leaf passes here before it permits fetches that `old` did not; but
    /// not those that fork shares with a child, which the parent has had.
    #[inline(always)]
    pub(crate) fn before_execute(&self, old: Entry, new: Entry, size: LeafSize) {
        if new.permits_fetches() && !old.permits_fetches() {
            self.env().shootdown().before_execute(self.mm.root(), new.leaf_frame(size), size);
        }
    }

    /// Takes the leaf at `slot`, present or prot-none, out of use and into ownership. `None`: it is not what was seen any more.
    ///
    /// The owner decides now, by what it took, and waits for nothing but the flush: it takes no lock, allocates nothing, asks
    /// the kernel nothing that may wait, and waits for no other entry, since whoever meets this one waits for it.
    ///
    /// # Safety
    /// `slot` was found under this lock and holds a leaf. What comes back is published before the lock is given up, or others
    /// wait for ever; not by unwinding either.
    #[inline(always)]
    pub unsafe fn break_leaf(&mut self, slot: Slot) -> Option<Broken<'_, 'a, K>> {
        // SAFETY: forwarded from the caller.
        unsafe { Broken::new(self, slot) }
    }

    /// Flushes `range` of this mm on all CPUs.
    #[inline]
    pub(crate) fn flush(&self, range: FlushRange) {
        self.env().shootdown().flush(self.mm.root(), range);
    }
}

impl<K: Env> fmt::Debug for Tables<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").field("mm", self.mm).finish_non_exhaustive()
    }
}
