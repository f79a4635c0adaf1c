//! Taking mappings away: unmap, DONTNEED, exit.
//!
//! A table that has nothing for pages outside the range is taken out of the tree as it is, with all below it, by emptying the
//! one entry that leads to it ([`step`]). Leaves of tables that stay are broken one by one and keep the rest of the entry, so
//! that the tables themselves are the list of what is to be released. Then one flush, after which no CPU can use what was
//! taken out (INV-8, INV-12). What is left needs no mm lock ([`Taken`]): one wait for the lockless walkers, after which none is in
//! a table that left the tree (INV-13), so that nobody else can reach it; then it is released, for as long as that takes.
//! Nothing is allocated, and the range may have any size.

mod release;
mod step;

use core::fmt;

use crate::addr::{PageAddr, UserRange};
use crate::arch::EntryChange;
use crate::env::{EntryAddr, Env, FlushRange, Mm, PhysMap, StillPinned, bug_caught};
use crate::errno::{EFAULT, EINVAL, ENOMEM};
use crate::paging::{Cursor, TableError, Tables, Upper};
use crate::primitive::safeguard;

use release::Taken;
pub(super) use step::Zap;

/// Tables and large leaves that one step looks at before anything is changed.
const MOST_CHUNKS: usize = 64;

/// What an unmap took away, and what it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Unmapped {
    /// Base pages that were mapped.
    pub pages: u64,
    /// Base pages whose frames stay allocated because they are pinned: a device may still be using them, and what it
    /// writes is not seen by this mm any more.
    pub pinned_pages: u64,
    /// Which.
    pub still_pinned: StillPinned,
    /// Pages whose unmap [waits](crate::VmaFlags::DEFER_UNMAP_PINNED), mapped or not.
    pub deferred_pages: u64,
}

impl Unmapped {
    /// Both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            pages: self.pages + other.pages,
            pinned_pages: self.pinned_pages + other.pinned_pages,
            still_pinned: self.still_pinned.and(&other.still_pinned),
            deferred_pages: self.deferred_pages + other.deferred_pages,
        }
    }
}

/// Why nothing was unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ZapError {
    /// The range begins or ends inside a large leaf that cannot be split: an object's or a driver's block, or none, or one whose count is at
    /// its limit.
    LargeLeaf,
    /// There is no memory for a table, where a large leaf is to be split.
    NoMemory,
    /// Somebody else damaged the tables.
    MalformedTable,
}

impl ZapError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::LargeLeaf => EINVAL,
            Self::NoMemory => ENOMEM,
            Self::MalformedTable => EFAULT,
        }
    }
}

impl fmt::Display for ZapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LargeLeaf => "the range begins or ends inside a large leaf that cannot be split",
            Self::NoMemory => "out of memory",
            Self::MalformedTable => "the page tables are malformed",
        })
    }
}

impl core::error::Error for ZapError {}

impl From<TableError> for ZapError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::LargeLeaf => Self::LargeLeaf,
            TableError::NoMemory => Self::NoMemory,
            TableError::Malformed => Self::MalformedTable,
        }
    }
}

/// What becomes of the tables of a range that is unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyTables {
    /// They stay, for the next pages there.
    Keep,
    /// Those that have nothing left are freed.
    Free,
}

/// Unmaps every page of `range`.
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
/// // SAFETY: one thread; nobody else has the space.
/// let unmapped = unsafe { zap_pages(space.mm(), range, EmptyTables::Free) }?;
/// assert_eq!(space.resident()?.exclusive, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ZapError`]: nothing was changed.
///
/// # Safety
/// The range was checked against the levels of this mm, and the caller holds its mm lock exclusively.
pub unsafe fn zap_pages<K: Env>(mm: &Mm<K>, range: UserRange, empty: EmptyTables) -> Result<Unmapped, ZapError> {
    let (first, end) = (range.first_page(), range.end_page());
    // SAFETY: the caller holds the mm lock.
    let mut tables = unsafe { Tables::under_mm_lock(mm) };
    prepare(&mut tables, first, end)?;
    let (mut zap, mut unmapped) = (Zap::new(first, end, empty), Unmapped::default());
    while !zap.is_done() {
        unmapped = unmapped.and(zap.step(&tables, mm.env()).release());
    }
    Ok(unmapped)
}

/// Frees every table of the user half, and what is still mapped. For the end of an mm; the root itself stays.
///
/// Of tables that somebody else damaged, what is below a malformed entry is lost, and counted as a bug that was caught.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// # space.fault(Fault { address: 0x10123, access: Access::Write, key_denied: false, malformed_table: false })?;
///
/// // SAFETY: one thread; nobody else has the space.
/// let unmapped = unsafe { free_tables(space.mm()) };
/// assert_eq!(space.resident()?.tables, 1); // the root
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Safety
/// The caller holds the mm lock exclusively, or is the last to have the mm.
pub unsafe fn free_tables<K: Env>(mm: &Mm<K>) -> Unmapped {
    // SAFETY: the caller holds the mm lock, or is the last to have the mm.
    let tables = unsafe { Tables::under_mm_lock(mm) };
    let (env, level) = (mm.env(), mm.levels().top());
    let place = |index| (EntryAddr::new(mm.root(), index), PageAddr::containing(index * level.span()));
    let mut places = (0..mm.levels().user_root_entries()).map(place).peekable();
    let mut unmapped = Unmapped::default();
    while places.peek().is_some() {
        let (mut taken, mut any) = (Taken::new(env), false);
        while let Some((at, page)) = places.next_if(|_| !taken.is_full()) {
            match Upper::of(tables.load(at), level) {
                Upper::Empty => continue,
                Upper::Table(table) => taken.push(table, level.below(), page),
                Upper::Leaf(_) | Upper::Owned | Upper::Malformed => bug_caught(env),
            }
            // SAFETY: the mm lock is held exclusively, and the index is one of the root's.
            unsafe { env.phys_map().change_entry(at, EntryChange::Clear(u64::MAX)) };
            any = true;
        }
        if safeguard!(FlushBeforeRelease => any) {
            tables.flush(FlushRange::Everything);
        }
        unmapped = unmapped.and(taken.release());
    }
    unmapped
}

/// Refuses damaged tables before anything is changed, and sees to it that the range begins and ends with leaves.
pub(super) fn prepare<K: Env>(tables: &mut Tables<'_, K>, first: PageAddr, end: PageAddr) -> Result<(), TableError> {
    let mut cursor = Cursor::new(first, end);
    while !reject_some(tables, &mut cursor)? {}
    split_edges(tables, first, end)
}

/// Refuses damaged tables, as far as one step looks. Whether that is all.
pub(super) fn reject_some<K: Env>(tables: &Tables<'_, K>, cursor: &mut Cursor) -> Result<bool, TableError> {
    for _ in 0..MOST_CHUNKS {
        if cursor.next_chunk(tables)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Splits large leaves that reach over an edge of a range, until none does. What is split stays so if the other edge's cannot be: nobody
/// but the tables knows.
pub(super) fn split_edges<K: Env>(
    tables: &mut Tables<'_, K>,
    first: PageAddr,
    end: PageAddr,
) -> Result<(), TableError> {
    let last = PageAddr::containing(end.address() - 1);
    tables.split_edge(first, (first, end))?;
    tables.split_edge(last, (first, end))
}
