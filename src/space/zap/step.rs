//! [`Zap`]: what of an unmap is done with the mm lock held, step by step.

use super::release::{Taken, release_leaves};
use super::{EmptyTables, Unmapped};
use crate::addr::{PAGE_SIZE, PageAddr};
use crate::arch::{ENTRIES, Entry, EntryChange, Level};
use crate::env::{EntryAddr, Env, FlushRange, FreedRun, PhysMap, bug_caught};
use crate::paging::{Chunk, Cursor, Table, Tables, Upper};
use crate::primitive::safeguard;
use crate::space::MOST_PLACES;

/// One unmap: its range, of whole leaves, and how far it is.
pub(in crate::space) struct Zap {
    first: PageAddr,
    end: PageAddr,
    /// In front of this nothing is left.
    next: PageAddr,
    empty: EmptyTables,
}

impl Zap {
    pub(in crate::space) fn new(first: PageAddr, end: PageAddr, empty: EmptyTables) -> Self {
        Self { first, end, next: first, empty }
    }

    pub(in crate::space) fn is_done(&self) -> bool {
        self.next >= self.end
    }

    /// In front of this nothing is left.
    #[cfg(feature = "alloc")]
    pub(in crate::space) fn reached(&self) -> PageAddr {
        self.next
    }

    /// Takes as much out of the tables, from where the last step ended, as can be done while others wait for the mm lock, which
    /// is held exclusively. What comes back is released without it, to the same kernel.
    pub(in crate::space) fn step<'k, K: Env>(&mut self, tables: &Tables<'_, K>, env: &'k K) -> Taken<'k, K> {
        let mut taken = Taken::new(env);
        let detached = self.detach(tables, &mut taken);
        let leaves = self.break_leaves(tables, detached.complete_to);
        let any_tables = !taken.is_empty();
        if safeguard!(FlushBeforeRelease => leaves.were.is_present() || any_tables) {
            let (first, pages) = (self.next, self.next.pages_to(leaves.end.max(detached.end)));
            let range =
                if any_tables { FlushRange::Pages { first, pages } } else { FlushRange::Leaves { first, pages } };
            tables.flush(range);
        }
        if !leaves.were.is_empty() {
            taken.unmapped = release_in_place(tables, self.next, leaves.end);
        }
        self.next = leaves.end;
        taken
    }

    /// Empties the entries of tables that go as a whole, the highest first.
    fn detach<K: Env>(&self, tables: &Tables<'_, K>, taken: &mut Taken<'_, K>) -> Detached {
        let mut detached = Detached { complete_to: self.end, end: self.next };
        if self.empty == EmptyTables::Keep {
            return detached;
        }
        let mut level = tables.mm().levels().top();
        while level != Level::LOWEST {
            let mut cursor = Cursor::new(self.next, detached.complete_to);
            while let Some(table) = next(|| cursor.next_table(tables, level), tables.env()) {
                if !self.goes(tables, &table) {
                    continue;
                }
                if taken.is_full() {
                    detached.complete_to = table.page.max(self.next);
                    break;
                }
                // SAFETY: the mm lock is held exclusively, and the place was found under it.
                unsafe { tables.env().phys_map().change_entry(table.above, EntryChange::Clear(u64::MAX)) };
                taken.push(table.frame, table.level, table.page);
                detached.end = detached.end.max(table.page.offset(ENTRIES * pages_of(table.level)));
            }
            level = level.below();
        }
        detached
    }

    /// Whether a table has nothing for pages outside the range. Those in front of `next` are in it, too.
    fn goes<K: Env>(&self, tables: &Tables<'_, K>, table: &Table) -> bool {
        let each = pages_of(table.level);
        let (from, to) = (table.page.pages_to(self.first), table.page.pages_to(self.end).min(ENTRIES * each));
        let entry = |index| tables.load(EntryAddr::new(table.frame, index));
        let goes_in_part = |index| match Upper::of(entry(index), table.level) {
            Upper::Empty => true,
            Upper::Table(frame) => {
                let below = Table {
                    above: table.above,
                    frame,
                    level: table.level.below(),
                    page: table.page.offset(index * each),
                };
                self.goes(tables, &below)
            }
            _ => false,
        };
        // What is most likely not empty comes first: what lies nearest to the range.
        (from % each == 0 || goes_in_part(from / each))
            && (to % each == 0 || goes_in_part(to / each))
            && (to.div_ceil(each)..ENTRIES).chain((0..from / each).rev()).all(|index| entry(index).is_empty())
    }

    /// Breaks leaves in tables that stay, and large ones, in front of `end`.
    fn break_leaves<K: Env>(&self, tables: &Tables<'_, K>, end: PageAddr) -> Leaves {
        let mut leaves = Leaves { were: Entry::EMPTY, end };
        let (mut cursor, mut places) = (Cursor::new(self.next, end), 0);
        while let Some(chunk) = next(|| cursor.next_chunk(tables), tables.env()) {
            leaves.were = leaves.were.mixed_with(break_leaves(tables.env().phys_map(), &chunk));
            places += chunk.cost();
            if places >= MOST_PLACES {
                leaves.end = chunk.end();
                break;
            }
        }
        leaves
    }
}

/// What [`Zap::detach`] has done.
struct Detached {
    /// In front of this no table is left that goes as a whole.
    complete_to: PageAddr,
    /// The end of the last table that was taken out.
    end: PageAddr,
}

/// What [`Zap::break_leaves`] has done.
struct Leaves {
    /// All of them, mixed.
    were: Entry,
    /// How far it came.
    end: PageAddr,
}

/// Pages that an entry of `level` covers.
fn pages_of(level: Level) -> u64 {
    level.span() / PAGE_SIZE
}

/// What a cursor finds next. Malformed entries were refused before; one that has come since ends the search, and is left.
fn next<T, E, K: Env>(find: impl FnOnce() -> Result<Option<T>, E>, env: &K) -> Option<T> {
    find().unwrap_or_else(|_| {
        bug_caught(env);
        None
    })
}

/// Breaks the leaves of a chunk: all that it had, mixed. The mm lock is held exclusively.
///
/// Outlined: see `take_entries` of the walker. The maps' fields stay in registers across the loop only if the maps are arguments.
#[inline(never)]
fn break_leaves<P: PhysMap>(map: &P, chunk: &Chunk) -> Entry {
    let mut were = Entry::EMPTY;
    for i in 0..chunk.count {
        let at = chunk.at(i);
        // SAFETY: the mm lock is held exclusively, so the table is alive; a chunk lies within one table.
        unsafe {
            let entry = map.load_entry(at);
            were = were.mixed_with(entry);
            if entry.is_present() {
                map.change_entry(at, Entry::BREAK);
            }
        }
    }
    were
}

/// Releases what was broken in `first..end`, and pages without rights.
fn release_in_place<K: Env>(tables: &Tables<'_, K>, first: PageAddr, end: PageAddr) -> Unmapped {
    let (mut unmapped, mut freed) = (Unmapped::default(), FreedRun::new(tables.env()));
    let mut cursor = Cursor::through_broken(first, end);
    while let Some(chunk) = next(|| cursor.next_chunk(tables), tables.env()) {
        // SAFETY: the mm lock is held exclusively, and what was present in the chunk is broken and flushed.
        unsafe { release_leaves((chunk.at(0), chunk.page_at(0)), chunk.count, chunk.size, &mut freed, &mut unmapped) };
    }
    unmapped
}
