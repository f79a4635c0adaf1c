//! [`Cursor`]: visiting the leaves or the tables of a range, in order, while they may be changed behind it.

use super::{Slot, TableError, Tables, Upper};
use crate::addr::{PageAddr, Pfn};
use crate::arch::{self, Entry, LeafSize, Level};
use crate::env::{EntryAddr, Env};

/// Consecutive places of leaf entries in one table: up to 512 of 4 KiB, or one large leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub(crate) table: Pfn,
    /// Index of the first place.
    pub(crate) index: u64,
    /// Number of places.
    pub(crate) count: u64,
    /// The page the first place maps (the leaf's first, even if the range begins inside it).
    pub(crate) page: PageAddr,
    pub(crate) size: LeafSize,
}

impl Chunk {
    /// Place `i` of the chunk.
    #[inline(always)]
    pub(crate) fn at(&self, i: u64) -> EntryAddr {
        EntryAddr::new(self.table, self.index + i)
    }

    /// The page that place `i` maps.
    pub(crate) fn page_at(&self, i: u64) -> PageAddr {
        self.page.offset(i * self.size.pages())
    }

    /// What it costs to visit it, in places: to find it costs some, however few there are.
    pub(crate) fn cost(&self) -> u64 {
        self.count.max(arch::ENTRIES / 8)
    }

    /// The page after the last place's.
    pub(crate) fn end(&self) -> PageAddr {
        self.page_at(self.count)
    }

    /// The first of its entries side by side that are `wanted`, from the place of the first. Each is loaded once: what was judged is what is
    /// owned then, or nothing.
    #[cfg(feature = "alloc")]
    pub(crate) fn first_run<K: Env>(
        &self,
        tables: &Tables<'_, K>,
        wanted: impl Fn(Entry) -> bool,
    ) -> Option<(u64, impl Iterator<Item = Entry>)> {
        let wanted = move |i: u64| Some(tables.load(self.at(i))).filter(|entry| wanted(*entry));
        let (from, first) = (0..self.count).find_map(|i| Some((i, wanted(i)?)))?;
        Some((from, core::iter::once(first).chain((from + 1..self.count).map_while(wanted))))
    }
}

/// A table below the root, found by way of the entry that leads to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    /// The entry that leads to it.
    pub(crate) above: EntryAddr,
    pub(crate) frame: Pfn,
    pub(crate) level: Level,
    /// The page its first entry stands for.
    pub(crate) page: PageAddr,
}

/// Which entries a [`Cursor`] follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// Those in use.
    Live,
    /// Those that an unmap has broken, too, as what they were before.
    Broken,
}

/// The place in a range of pages up to which its entries were visited.
///
/// It keeps no table across steps: each begins at the root. So what was visited may be changed, and taken away, before the
/// next step.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    next: PageAddr,
    end: PageAddr,
    follow: Follow,
}

impl Cursor {
    /// At the beginning of `first..end`.
    pub(crate) fn new(first: PageAddr, end: PageAddr) -> Self {
        Self { next: first, end, follow: Follow::Live }
    }

    /// The same, following broken entries as well.
    pub(crate) fn through_broken(first: PageAddr, end: PageAddr) -> Self {
        Self { next: first, end, follow: Follow::Broken }
    }

    /// What comes next.
    #[cfg(feature = "alloc")]
    pub(crate) fn reached(&self) -> PageAddr {
        self.next
    }

    /// The next stretch that has a leaf table or a large leaf; what has neither is skipped a table at a time.
    ///
    /// # Errors
    /// [`TableError::Malformed`]: the cursor stays in front of it.
    pub(crate) fn next_chunk<K: Env>(&mut self, tables: &Tables<'_, K>) -> Result<Option<Chunk>, TableError> {
        while self.next < self.end {
            let slot = self.descend(tables, Level::LOWEST)?;
            if slot.level == Level::LOWEST {
                let index = slot.level.index(slot.page.address());
                let count = (arch::ENTRIES - index).min(slot.page.pages_to(self.end));
                let size = LeafSize::Size4KiB;
                let chunk = Chunk { table: slot.at.table(), index, count, page: slot.page, size };
                self.next = chunk.end();
                return Ok(Some(chunk));
            }
            let first = self.pass(&slot);
            if let Upper::Leaf(size) = self.meaning(&slot) {
                let index = slot.level.index(slot.page.address());
                return Ok(Some(Chunk { table: slot.at.table(), index, count: 1, page: first, size }));
            }
            self.pass_empty(tables, &slot);
        }
        Ok(None)
    }

    /// The next table to which an entry of `level` leads.
    ///
    /// # Errors
    /// As [`Cursor::next_chunk`].
    pub(crate) fn next_table<K: Env>(
        &mut self,
        tables: &Tables<'_, K>,
        level: Level,
    ) -> Result<Option<Table>, TableError> {
        while self.next < self.end {
            let slot = self.descend(tables, level)?;
            let page = self.pass(&slot);
            match self.meaning(&slot) {
                Upper::Table(frame) if slot.level == level => {
                    return Ok(Some(Table { above: slot.at, frame, level: level.below(), page }));
                }
                _ => self.pass_empty(tables, &slot),
            }
        }
        Ok(None)
    }

    fn descend<K: Env>(&self, tables: &Tables<'_, K>, floor: Level) -> Result<Slot, TableError> {
        let slot = tables.descend(self.next, floor, self.follow);
        let malformed = slot.level != floor && self.meaning(&slot) == Upper::Malformed;
        if malformed { Err(TableError::Malformed) } else { Ok(slot) }
    }

    fn meaning(&self, slot: &Slot) -> Upper {
        self.follow.meaning(slot.entry, slot.level)
    }

    /// Moves behind all that the entry stands for; the first page of that.
    fn pass(&mut self, slot: &Slot) -> PageAddr {
        let span = slot.level.span();
        let first = slot.page.address() & !(span - 1);
        // At the end of the address space this passes `end`, never wraps: the user half is the lower one.
        self.next = PageAddr::containing(first + span);
        PageAddr::containing(first)
    }

    /// Moves behind the empty entries that come next in the table of `slot`, which was passed. A search from the root for
    /// each of them would make the end of an mm cost what its address space is large.
    fn pass_empty<K: Env>(&mut self, tables: &Tables<'_, K>, slot: &Slot) {
        let mut index = slot.level.index(slot.page.address()) + 1;
        while index < arch::ENTRIES && self.next < self.end {
            if !tables.load(EntryAddr::new(slot.at.table(), index)).is_empty() {
                return;
            }
            self.next = PageAddr::containing(self.next.address() + slot.level.span());
            index += 1;
        }
    }
}

impl Follow {
    #[inline(always)]
    pub(super) fn meaning(self, entry: Entry, level: Level) -> Upper {
        Upper::of(if self == Self::Broken { entry.unbroken() } else { entry }, level)
    }
}
