//! Taking mappings away: unmap, DONTNEED, exit.
//!
//! Two passes over the tables with one flush between them. The first clears the present bit of every leaf, and of
//! every upper entry whose table has nothing left, and keeps the rest of the entry: the tables themselves are the list of
//! what is to be released, so nothing is allocated and the range may have any size. After the flush no CPU can use what
//! was broken (INV-8, INV-12), after the read side's wait no lockless walker is in a table that left the tree (INV-13);
//! then the second pass releases frames and tables.

use core::fmt;
use core::ops::Range;

use crate::addr::{PageAddr, Pfn, UserRange};
use crate::arch::{ENTRIES, Entry, Level};
use crate::env::Mm;
use crate::env::{EntryAddr, Env, FlushRange, FrameTable, FreedRun, PhysMap, ReadSide, bug_caught, release};
use crate::errno::{EFAULT, EINVAL};
use crate::frame::Dirty;
use crate::paging::{TableError, Tables};
use crate::primitive::safeguard;

/// What an unmap took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Unmapped {
    /// Base pages that were mapped.
    pub pages: u64,
    /// Base pages whose frames stay allocated because they are pinned: a device may still be using them, and what it
    /// writes is not seen by this mm any more.
    pub pinned_pages: u64,
}

/// Why nothing was unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ZapError {
    /// The range begins or ends inside a large leaf.
    LargeLeaf,
    /// Somebody else damaged the tables.
    MalformedTable,
}

impl ZapError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::LargeLeaf => EINVAL,
            Self::MalformedTable => EFAULT,
        }
    }
}

impl fmt::Display for ZapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LargeLeaf => "the range begins or ends inside a large leaf",
            Self::MalformedTable => "the page tables are malformed",
        })
    }
}

impl core::error::Error for ZapError {}

impl From<TableError> for ZapError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::LargeLeaf => Self::LargeLeaf,
            TableError::Malformed | TableError::NoMemory => Self::MalformedTable,
        }
    }
}

/// Unmaps every page of `range`; with `free_empty_tables`, also the tables that have nothing left.
///
/// # Errors
/// [`ZapError`]: nothing was changed.
///
/// # Safety
/// The range was checked against the levels of this mm, and the caller holds its mm lock exclusively.
pub unsafe fn zap_pages<K: Env>(mm: &Mm<K>, range: UserRange, free_empty_tables: bool) -> Result<Unmapped, ZapError> {
    let (first, end) = (range.first_page(), range.end_page());
    let tables = Tables::lock(mm);
    reject_split_leaves(&tables, first, end)?;
    let zap = Zap { tables: &tables, free_empty_tables };
    let top = Table { at: mm.root(), level: mm.levels().top(), base: 0 };
    let broken = zap.break_level(top, first.address(), end.address());
    if safeguard!(FlushBeforeRelease => broken.leaves || broken.tables) {
        tables.flush(FlushRange::Pages { first, pages: first.pages_to(end) });
    }
    if safeguard!(WaitForWalkers => broken.tables) {
        mm.env().read_side().synchronize();
    }
    let mut unmapped = Unmapped::default();
    zap.release_level(top, first.address(), end.address(), &mut unmapped);
    Ok(unmapped)
}

/// Frees every table of the user half, and what is still mapped. For the end of an mm; the root itself stays.
///
/// # Safety
/// The caller holds the mm lock exclusively, or is the last to have the mm.
pub unsafe fn free_tables<K: Env>(mm: &Mm<K>) -> Unmapped {
    let everything = mm.levels().user_half().range();
    // The whole half begins and ends at table edges, so no leaf can be split and there is nothing to refuse.
    // SAFETY: the range is of this mm's levels; the caller vouches for the lock.
    unsafe { zap_pages(mm, everything, true) }.unwrap_or_default()
}

/// Refuses a range with an edge inside a large leaf.
pub(super) fn reject_split_leaves<K: Env>(
    tables: &Tables<'_, K>,
    first: PageAddr,
    end: PageAddr,
) -> Result<(), TableError> {
    let at_start = tables.find(first)?;
    if at_start.entry.has_frame() && at_start.first_page() < first {
        return Err(TableError::LargeLeaf);
    }
    let at_end = tables.find(PageAddr::containing(end.address() - 1))?;
    if at_end.entry.has_frame() && at_end.first_page().offset(at_end.size().pages()) > end {
        return Err(TableError::LargeLeaf);
    }
    Ok(())
}

struct Zap<'t, 'a, K: Env> {
    tables: &'t Tables<'a, K>,
    free_empty_tables: bool,
}

/// A table, and the address its first entry stands for.
#[derive(Clone, Copy)]
struct Table {
    at: Pfn,
    level: Level,
    base: u64,
}

impl Table {
    #[inline(always)]
    fn entry(self, index: u64) -> EntryAddr {
        EntryAddr::new(self.at, index)
    }

    fn below(self, entry: Entry, index: u64) -> Self {
        Self { at: entry.table_frame(), level: self.level.below(), base: self.base + index * self.level.span() }
    }

    /// The entries that `first..end` (addresses) touches.
    fn indices(self, first: u64, end: u64) -> Range<u64> {
        let span = self.level.span();
        first.saturating_sub(self.base) / span..(end - self.base).div_ceil(span).min(ENTRIES)
    }
}

/// What a pass of breaking did below some entry.
#[derive(Clone, Copy, Default)]
struct Brokenness {
    leaves: bool,
    tables: bool,
}

impl<K: Env> Zap<'_, '_, K> {
    fn load(&self, at: EntryAddr) -> Entry {
        self.tables.load(at)
    }

    /// First pass. Recursion is bounded by the number of levels.
    fn break_level(&self, here: Table, first: u64, end: u64) -> Brokenness {
        let map = self.tables.env().phys_map();
        let mut broken = Brokenness::default();
        if here.level == Level::LOWEST {
            broken.leaves = break_leaves(map, here, here.indices(first, end));
            return broken;
        }
        for index in here.indices(first, end) {
            let at = here.entry(index);
            let entry = self.load(at);
            if !entry.is_present() {
                continue;
            }
            if entry.is_leaf_at(here.level) {
                broken.leaves |= break_leaves(map, here, index..index + 1);
                continue;
            }
            let below = here.below(entry, index);
            let inside = self.break_level(below, first, end);
            broken.leaves |= inside.leaves;
            broken.tables |= inside.tables;
            if self.free_empty_tables && self.nothing_left(below, first, end) {
                // SAFETY: the table lock is held, so the table is alive; the index lies within it.
                unsafe { map.change_entry(at, Entry::BREAK) };
                broken.tables = true;
            }
        }
        broken
    }

    /// Whether no entry of the table is in use after the pass. Those in the range were broken, except upper entries
    /// whose tables stay; those outside count whatever they hold.
    fn nothing_left(&self, here: Table, first: u64, end: u64) -> bool {
        let range = here.indices(first, end);
        let inside = here.level == Level::LOWEST || range.clone().all(|i| !self.load(here.entry(i)).is_present());
        inside && (0..range.start).chain(range.end..ENTRIES).all(|i| self.load(here.entry(i)).is_empty())
    }

    /// Second pass.
    fn release_level(&self, here: Table, first: u64, end: u64, unmapped: &mut Unmapped) {
        let env = self.tables.env();
        let (map, frames) = (env.phys_map(), env.frames());
        if here.level == Level::LOWEST {
            release_leaves(map, frames, env, here, here.indices(first, end), unmapped);
            return;
        }
        for index in here.indices(first, end) {
            let at = here.entry(index);
            let entry = self.load(at);
            if entry.is_empty() {
                continue;
            }
            if entry.is_leaf_at(here.level) {
                release_leaves(map, frames, env, here, index..index + 1, unmapped);
                continue;
            }
            self.release_level(here.below(entry, index), first, end, unmapped);
            if entry.is_present() {
                continue;
            }
            let table = entry.table_frame();
            match frames.frame(table) {
                Some(frame) => _ = release(env, table, frame.word.put()),
                None => bug_caught(env),
            }
            // SAFETY: the table lock is held, so this table is alive; the entry is not present, and flushed.
            unsafe { map.store_entry(at, Entry::EMPTY) };
        }
    }
}

/// Breaks the leaves at `indices`; whether there were any. The table lock is held.
///
/// A function of its own, as the walker's loop is: see there.
#[inline(never)]
fn break_leaves<P: PhysMap>(map: &P, here: Table, indices: Range<u64>) -> bool {
    let mut any = false;
    for index in indices {
        let at = here.entry(index);
        // SAFETY: the table lock is held, so the table is alive; the index lies within it.
        unsafe {
            if map.load_entry(at).is_present() {
                map.change_entry(at, Entry::BREAK);
                any = true;
            }
        }
    }
    any
}

/// Empties the places at `indices` and gives up what their leaves held. The table lock is held and none is present.
#[inline(never)]
fn release_leaves<K: Env>(
    map: &K::PhysMap,
    frames: &K::Frames,
    env: &K,
    here: Table,
    indices: Range<u64>,
    unmapped: &mut Unmapped,
) {
    let Some(size) = here.level.leaf_size() else { return };
    let (mut leaves, mut pinned, mut freed) = (0, 0, FreedRun::new(env));
    for index in indices {
        let at = here.entry(index);
        // SAFETY: the table lock is held, so the table is alive; the index lies within it.
        let entry = unsafe { map.load_entry(at) };
        if entry.is_empty() {
            continue;
        }
        // SAFETY: as above; the entry is not present, and flushed.
        unsafe { map.store_entry(at, Entry::EMPTY) };
        leaves += 1;
        let pfn = entry.leaf_frame(size);
        let counted = if entry.is_special() { None } else { frames.frame(pfn) };
        if let Some(frame) = counted {
            pinned += u64::from(freed.release(pfn, frame.word.put_mapping(Dirty::when(entry.is_dirty()))));
        }
    }
    unmapped.pages += leaves * size.pages();
    unmapped.pinned_pages += pinned * size.pages();
}
