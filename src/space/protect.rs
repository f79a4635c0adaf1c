//! Changing the rights of mapped pages.

use core::fmt;

use super::pinned::first_pinned;
#[cfg(feature = "alloc")]
use super::steps::end_of_some;
use super::zap::prepare;
use crate::addr::{PageAddr, UserRange};
use crate::arch::{Entry, LeafSize, NewRights};
use crate::env::{Env, FlushRange, FrameTable, Mm, PhysMap};
use crate::errno::{EBUSY, EFAULT, EINVAL, ENOMEM};
use crate::paging::{Chunk, Cursor, TableError, Tables};
use crate::primitive::safeguard;
use crate::rights::Rights;
use crate::vma::{Vma, VmaFlags};

/// Why rights were not changed. Nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtectError {
    /// The range begins or ends inside a large leaf that cannot be split: an object's or a driver's block, or none, or one whose count is at
    /// its limit.
    LargeLeaf,
    /// There is no memory for a table, where a large leaf is to be split.
    NoMemory,
    /// The page is pinned and its VMA refuses that ([`VmaFlags::REFUSE_PROTECT_PINNED`]).
    Pinned(PageAddr),
    /// Somebody else damaged the tables.
    MalformedTable,
}

impl ProtectError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::LargeLeaf => EINVAL,
            Self::NoMemory => ENOMEM,
            Self::Pinned(_) => EBUSY,
            Self::MalformedTable => EFAULT,
        }
    }
}

impl fmt::Display for ProtectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LargeLeaf => f.write_str("the range begins or ends inside a large leaf that cannot be split"),
            Self::NoMemory => f.write_str("out of memory"),
            Self::Pinned(page) => write!(f, "the page at {:#x} is pinned", page.address()),
            Self::MalformedTable => f.write_str("the page tables are malformed"),
        }
    }
}

impl core::error::Error for ProtectError {}

impl From<TableError> for ProtectError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::LargeLeaf => Self::LargeLeaf,
            TableError::NoMemory => Self::NoMemory,
            TableError::Malformed => Self::MalformedTable,
        }
    }
}

/// Gives the mapped pages of `range`, all of which lie in `vmas`, the rights `rights`; their protection keys stay. When
/// this returns, every CPU obeys.
///
/// The right to write is put into an entry at once only where the frame is `EXCLUSIVE` (INV-1); elsewhere the first
/// write faults and decides.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// # space.fault(Fault { address: 0x10123, access: Access::Write, key_denied: false, malformed_table: false })?;
///
/// let range = space.range(0x10000, 0x4000)?;
/// let vma = Vma::new(range, Backing::Anonymous, Rights::READ | Rights::WRITE)?;
/// // SAFETY: one thread; nobody else has the space, and this is its VMA.
/// unsafe { protect_pages(space.mm(), range, [&vma], Rights::READ) }?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ProtectError`]: nothing was changed.
///
/// # Safety
/// The VMAs are those of this mm ([`Vmas`](crate::Vmas)), and the caller holds its mm lock exclusively.
pub unsafe fn protect_pages<'a, K: Env>(
    mm: &Mm<K>,
    range: UserRange,
    vmas: impl IntoIterator<Item = &'a Vma, IntoIter: Clone> + Clone,
    rights: Rights,
) -> Result<(), ProtectError> {
    let (first, end) = (range.first_page(), range.end_page());
    // SAFETY: the caller holds the mm lock.
    let mut tables = unsafe { Tables::under_mm_lock(mm) };
    prepare(&mut tables, first, end)?;
    reject_pinned(&tables, vmas.clone().into_iter(), (first, end), rights)?;
    change_rights(&mut tables, vmas, (first, end), rights)?;
    Ok(())
}

/// Refuses to take rights from pinned pages in `first..end` of those `vmas` that say so.
fn reject_pinned<'a, K: Env>(
    tables: &Tables<'_, K>,
    vmas: impl Iterator<Item = &'a Vma>,
    (first, end): (PageAddr, PageAddr),
    rights: Rights,
) -> Result<(), ProtectError> {
    let parts = vmas.filter(|vma| refuses(vma, rights)).map(|vma| (vma.start().max(first), vma.end().min(end)));
    first_pinned(tables, parts)?.map_or(Ok(()), |page| Err(ProtectError::Pinned(page)))
}

/// Whether `vma` refuses these rights to pages that are pinned.
pub(super) fn refuses(vma: &Vma, rights: Rights) -> bool {
    // The right is the VMA's. An entry may be read-only where the VMA is not: a read pin leaves it so.
    let writes = vma.rights().contains(Rights::WRITE) && !rights.contains(Rights::WRITE);
    let loses = writes || (rights.is_empty() && !vma.rights().is_empty());
    loses && vma.flags().contains(VmaFlags::REFUSE_PROTECT_PINNED)
}

/// Gives the pages in `first..end` of `vmas` these rights, and returns when every CPU obeys.
pub(super) fn change_rights<'a, K: Env>(
    tables: &mut Tables<'_, K>,
    vmas: impl IntoIterator<Item = &'a Vma>,
    (first, end): (PageAddr, PageAddr),
    rights: Rights,
) -> Result<(), TableError> {
    let mut weakened = false;
    let changed = vmas.into_iter().try_for_each(|vma| {
        let change = Change::new(rights, vma);
        change.apply_between(tables, (vma.start().max(first), vma.end().min(end)), &mut weakened)
    });
    if safeguard!(FlushAfterProtect => weakened) {
        tables.flush(FlushRange::Leaves { first, pages: first.pages_to(end) });
    }
    changed
}

/// Takes all rights from the pages of a part, which begins and ends with leaves: of as many as one step changes. How far that is.
#[cfg(feature = "alloc")]
pub(super) fn withdraw<K: Env>(tables: &mut Tables<'_, K>, first: PageAddr, end: PageAddr) -> PageAddr {
    let change = Change { rights: NewRights::new(Rights::empty(), 0), write: false, foreign: false, private: true };
    let (mut weakened, reached) = (false, end_of_some(tables, first, end));
    // What lies behind a damaged table is out of reach for whoever unmaps it as well.
    let _ = change.apply_between(tables, (first, reached), &mut weakened);
    if weakened {
        tables.flush(FlushRange::Leaves { first, pages: first.pages_to(reached) });
    }
    reached
}

/// Other rights for the pages of a VMA.
#[derive(Clone, Copy)]
struct Change {
    rights: NewRights,
    /// They may be written, where nothing is against it.
    write: bool,
    foreign: bool,
    private: bool,
}

impl Change {
    fn new(rights: Rights, vma: &Vma) -> Self {
        let (foreign, private) = (vma.backing().is_foreign(), vma.backing().is_private());
        Self { rights: NewRights::new(rights, vma.key()), write: rights.contains(Rights::WRITE), foreign, private }
    }

    /// Changes the entries between, and notes if some lost a right that a TLB may still grant.
    #[inline(always)]
    fn apply_between<K: Env>(
        self,
        tables: &mut Tables<'_, K>,
        (first, end): (PageAddr, PageAddr),
        weakened: &mut bool,
    ) -> Result<(), TableError> {
        let mut cursor = Cursor::new(first, end);
        while let Some(chunk) = cursor.next_chunk(tables)? {
            *weakened |= self.apply(tables, chunk);
        }
        Ok(())
    }

    /// Changes the entries of a chunk; whether some lost a right that a TLB may still grant.
    #[inline(always)]
    fn apply<K: Env>(self, tables: &mut Tables<'_, K>, chunk: Chunk) -> bool {
        let (map, frames) = (tables.env().phys_map(), tables.env().frames());
        // What may be fetched from now on is announced before, one by one.
        for i in (0..chunk.count).filter(|_| self.rights.permit_fetches()) {
            let old = tables.load(chunk.at(i));
            if old.has_frame() {
                tables.before_execute(old, self.rights.apply(old, false), chunk.size);
            }
        }
        let weakened = change_leaves(map, frames, &chunk, self);
        tables.added();
        weakened
    }
}

/// Changes the entries of a chunk, keeping frames and the accessed and dirty bits that hardware sets meanwhile. The mm lock is held
/// exclusively, so the table is alive, and only hardware changes entries beside this.
///
/// Outlined: see `take_entries` of the walker. The maps' fields stay in registers across the loop only if the maps are arguments.
#[inline(never)]
fn change_leaves<P: PhysMap, F: FrameTable>(map: &P, frames: &F, chunk: &Chunk, change: Change) -> bool {
    let mut taken_from = Entry::EMPTY;
    for i in 0..chunk.count {
        let at = chunk.at(i);
        // SAFETY: see above; a chunk lies within one table.
        let mut old = unsafe { map.load_entry(at) };
        if !old.has_frame() {
            continue;
        }
        let write = change.write && change.may_write(frames, old, chunk.size);
        let mut new = change.rights.apply(old, write);
        if new == old {
            continue;
        }
        taken_from = taken_from.mixed_with(old);
        // Bounded: hardware only sets two bits.
        // SAFETY: as above; the frame stays, and W is added only for an exclusive frame or one that is not counted.
        while let Err(now) = unsafe { map.exchange_entry(at, old, new) } {
            debug_assert!(now.same_mapping(old), "an entry changed under the exclusive mm lock");
            (old, new) = (now, change.rights.apply(now, write));
        }
    }
    taken_from.is_present()
}

impl Change {
    /// Whether the entry may permit writes without a fault.
    #[inline(always)]
    fn may_write<F: FrameTable>(self, frames: &F, entry: Entry, size: LeafSize) -> bool {
        if entry.is_special() {
            return self.foreign;
        }
        // Of the first write to an object's page the object is told.
        let frame = || frames.frame(entry.leaf_frame(size));
        entry.is_writable()
            || (self.private && frame().is_some_and(|frame| frame.word.exclusive_sole_and_anonymous().0))
    }
}
