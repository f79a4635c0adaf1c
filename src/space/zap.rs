//! Taking mappings away: unmap, DONTNEED, exit.
//!
//! Two passes over the tables with one flush between them. The first clears the present bit of every leaf, and of
//! every upper entry whose table has nothing left, and keeps the rest of the entry: the tables themselves are the list of
//! what is to be released, so nothing is allocated and the range may have any size. After the flush no CPU can use what
//! was broken (INV-8, INV-12), after the read side's wait no lockless walker is in a table that left the tree (INV-13);
//! then the second pass releases frames and tables.

use core::fmt;

use crate::addr::{PAGE_SIZE, PageAddr, UserRange};
use crate::arch::{ENTRIES, Entry, EntryChange, Level, Levels};
use crate::env::{EntryAddr, Env, FlushRange, FrameTable, FreedRun, Mm, PhysMap, ReadSide, bug_caught, release};
use crate::errno::{EFAULT, EINVAL};
use crate::frame::Dirty;
use crate::paging::{Chunk, Cursor, Table, TableError, Tables};
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
/// # Errors
/// [`ZapError`]: nothing was changed.
///
/// # Safety
/// The range was checked against the levels of this mm, and the caller holds its mm lock exclusively.
pub unsafe fn zap_pages<K: Env>(mm: &Mm<K>, range: UserRange, empty: EmptyTables) -> Result<Unmapped, ZapError> {
    let (first, end) = (range.first_page(), range.end_page());
    // SAFETY: the caller holds the mm lock.
    let tables = unsafe { Tables::under_mm_lock(mm) };
    reject_split_leaves(&tables, first, end)?;
    Ok(Zap { tables: &tables, first, end }.run(empty))
}

/// Frees every table of the user half, and what is still mapped. For the end of an mm; the root itself stays.
///
/// Of tables that somebody else damaged, what is below a malformed entry is lost, and counted as a bug that was caught.
///
/// # Safety
/// The caller holds the mm lock exclusively, or is the last to have the mm.
pub unsafe fn free_tables<K: Env>(mm: &Mm<K>) -> Unmapped {
    let everything = mm.levels().user_half().range();
    let (first, end) = (everything.first_page(), everything.end_page());
    // SAFETY: the caller holds the mm lock, or is the last to have the mm.
    let tables = unsafe { Tables::under_mm_lock(mm) };
    let zap = Zap { tables: &tables, first, end };
    zap.cut_malformed();
    zap.run(EmptyTables::Free)
}

/// Refuses a range with an edge inside a large leaf, and damaged tables, before anything is changed.
pub(super) fn reject_split_leaves<K: Env>(
    tables: &Tables<'_, K>,
    first: PageAddr,
    end: PageAddr,
) -> Result<(), TableError> {
    let mut cursor = Cursor::new(first, end);
    while let Some(chunk) = cursor.next_chunk(tables)? {
        if chunk.page < first || chunk.end() > end {
            return Err(TableError::LargeLeaf);
        }
    }
    Ok(())
}

/// One unmap. The range is whole leaves and has no malformed entry.
struct Zap<'t, 'a, K: Env> {
    tables: &'t Tables<'a, K>,
    first: PageAddr,
    end: PageAddr,
}

/// The levels whose entries may lead to tables, from the lowest.
fn upper_levels(levels: Levels) -> impl Iterator<Item = Level> {
    Level::UPPER.into_iter().rev().chain(levels.extra())
}

impl<'a, K: Env> Zap<'_, 'a, K> {
    fn env(&self) -> &'a K {
        self.tables.env()
    }

    fn run(&self, empty: EmptyTables) -> Unmapped {
        let leaves = self.break_leaves();
        let tables = empty == EmptyTables::Free && self.break_empty_tables();
        if safeguard!(FlushBeforeRelease => leaves || tables) {
            let (first, pages) = (self.first, self.first.pages_to(self.end));
            let range = if tables { FlushRange::Pages { first, pages } } else { FlushRange::Leaves { first, pages } };
            self.tables.flush(range);
        }
        if safeguard!(WaitForWalkers => tables) {
            self.env().read_side().synchronize();
        }
        let unmapped = self.release_leaves();
        if tables {
            self.release_tables();
        }
        unmapped
    }

    /// Empties malformed entries. What they led to cannot be known, and is lost.
    fn cut_malformed(&self) {
        let mut cut = false;
        let mut cursor = Cursor::new(self.first, self.end);
        while let Some(at) = cursor.next_malformed(self.tables) {
            // SAFETY: the mm lock is held exclusively, and the place was found under it.
            unsafe { self.env().phys_map().change_entry(at, EntryChange::Clear(u64::MAX)) };
            bug_caught(self.env());
            cut = true;
        }
        if cut {
            // What is lost may be in TLBs and walks as well, and the tables above it are about to be freed.
            self.tables.flush(FlushRange::Everything);
            self.env().read_side().synchronize();
        }
    }

    /// First pass, leaves; whether there were any.
    fn break_leaves(&self) -> bool {
        let mut any = false;
        let mut cursor = Cursor::new(self.first, self.end);
        while let Ok(Some(chunk)) = cursor.next_chunk(self.tables) {
            any |= break_leaves(self.env().phys_map(), &chunk);
        }
        any
    }

    /// First pass, the entries of tables that have nothing left, from the lowest level up; whether there were any.
    fn break_empty_tables(&self) -> bool {
        let mut any = false;
        for level in upper_levels(self.tables.mm().levels()) {
            // Large leaves beside the tables are broken already.
            let mut cursor = Cursor::through_broken(self.first, self.end);
            while let Ok(Some(table)) = cursor.next_table(self.tables, level) {
                if self.nothing_left(&table) {
                    // SAFETY: the mm lock is held exclusively, and the place was found under it.
                    unsafe { self.env().phys_map().change_entry(table.above, Entry::BREAK) };
                    any = true;
                }
            }
        }
        any
    }

    /// Whether no entry of the table is in use after the pass over what is below it. Those in the range were broken,
    /// except upper entries whose tables stay; those outside count whatever they hold.
    fn nothing_left(&self, table: &Table) -> bool {
        let pages = table.level.span() / PAGE_SIZE;
        let inside =
            table.page.pages_to(self.first) / pages..table.page.pages_to(self.end).div_ceil(pages).min(ENTRIES);
        let entry = |index| self.tables.load(EntryAddr::new(table.frame, index));
        let gone = table.level == Level::LOWEST || inside.clone().all(|index| !entry(index).is_present());
        gone && (0..inside.start).chain(inside.end..ENTRIES).all(|index| entry(index).is_empty())
    }

    /// Second pass, leaves.
    fn release_leaves(&self) -> Unmapped {
        let mut unmapped = Unmapped::default();
        let mut cursor = Cursor::through_broken(self.first, self.end);
        while let Ok(Some(chunk)) = cursor.next_chunk(self.tables) {
            let (map, frames) = (self.env().phys_map(), self.env().frames());
            release_leaves(map, frames, self.env(), &chunk, &mut unmapped);
        }
        unmapped
    }

    /// Second pass, tables, from the lowest level up: a table is freed when those below it were.
    fn release_tables(&self) {
        for level in upper_levels(self.tables.mm().levels()) {
            let mut cursor = Cursor::through_broken(self.first, self.end);
            while let Ok(Some(table)) = cursor.next_table(self.tables, level) {
                if self.tables.load(table.above).is_present() {
                    continue;
                }
                match self.env().frames().frame(table.frame) {
                    Some(frame) => _ = release(self.env(), table.frame, frame.word.put()),
                    None => bug_caught(self.env()),
                }
                // SAFETY: the mm lock is held exclusively, and the place was found under it; the entry is not present, and flushed.
                unsafe { self.env().phys_map().store_entry(table.above, Entry::EMPTY) };
            }
        }
    }
}

/// Breaks the leaves of a chunk; whether there were any. The mm lock is held exclusively.
///
/// A function of its own, as the walker's loop is: see there.
#[inline(never)]
fn break_leaves<P: PhysMap>(map: &P, chunk: &Chunk) -> bool {
    let mut any = false;
    for i in 0..chunk.count {
        let at = chunk.at(i);
        // SAFETY: the mm lock is held exclusively, so the table is alive; a chunk lies within one table.
        unsafe {
            if map.load_entry(at).is_present() {
                map.change_entry(at, Entry::BREAK);
                any = true;
            }
        }
    }
    any
}

/// Empties the places of a chunk and gives up what their leaves held. The mm lock is held exclusively and none is present.
#[inline(never)]
fn release_leaves<K: Env>(map: &K::PhysMap, frames: &K::Frames, env: &K, chunk: &Chunk, unmapped: &mut Unmapped) {
    let size = chunk.size;
    let (mut leaves, mut pinned, mut freed) = (0, 0, FreedRun::new(env));
    for i in 0..chunk.count {
        let at = chunk.at(i);
        // SAFETY: the mm lock is held exclusively, so the table is alive; a chunk lies within one table.
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
