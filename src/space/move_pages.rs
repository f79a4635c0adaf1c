//! Move: pages change their addresses and keep their frames (`mremap` on Linux).
//!
//! An entry is taken out of its place by one exchange, which takes what hardware has set with it, and put where it goes. Its frame
//! keeps the reference, so pins and gets follow, and no frame's word is touched. It is the same frame with the same rights, so
//! nothing is flushed between; one flush at the end of each step, before anybody else has the mm lock, ends the use of the old
//! addresses.
//!
//! All tables that the pages need are made first, and what cannot be is refused while everything is where it was. Then the pages go in
//! steps, from the lowest up, each together with its VMA: at any moment a page is at one of its two addresses, as a child that is
//! forked between two steps finds it.

use super::objects::is_objects_page;
use super::steps::{Held, MOST_VMAS, end_of_some};
use super::vma_map::VmaMap;
use super::{SpaceError, UserSpace};
use crate::addr::{PageAddr, UserRange};
use crate::arch::{self, Entry, EntryChange, LeafSize, Level};
use crate::env::{EntryAddr, Env, ExtraParts, FlushRange, FrameTable, Objects, PhysMap, bug_caught, release};
use crate::frame::Dirty;
use crate::paging::{Chunk, Cursor, TableError, Tables};
use crate::primitive::safeguard;
use crate::vma::Vma;

/// Where pages go.
#[derive(Clone, Copy)]
struct Route {
    from: PageAddr,
    to: PageAddr,
}

impl Route {
    fn target(self, page: PageAddr) -> PageAddr {
        self.to.offset(self.from.pages_to(page))
    }

    fn back(self) -> Self {
        Self { from: self.to, to: self.from }
    }

    /// Whether a leaf of this size that begins at `page` begins with a leaf's place where it goes.
    fn is_aligned(self, page: PageAddr, size: LeafSize) -> bool {
        self.target(page).address() % size.bytes() == 0
    }
}

impl<K: Env, C> UserSpace<K, C> {
    /// Moves whole pages to free addresses (`mremap` with `MREMAP_FIXED`, to where nothing is): their contents, and their VMAs
    /// with rights, flags, key, number, and what they show of an object. Frames stay what they are, so pins and gets are of
    /// the pages at their new addresses, whatever a VMA's policy says of an unmap: no page is lost to its pin. Who has noted
    /// addresses of pins ([`PinLedger`](crate::PinLedger), [`RevocableSet`](crate::pin::RevocableSet)) knows those at which they were taken.
    ///
    /// A long range (thousands of pages with entries, or of VMAs) moves step by step, from its lowest page up, and others have the mm lock
    /// between: they find each page with its VMA at the one place or the other. If they unmap some of it meanwhile, or take the last room for tables
    /// or VMAs, the error says so, and what has moved goes back, as far as there is room for that.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
    /// let pinned = space.pin(Write, space.range(0x11000, 4096)?, [PhysRun::default(); 1]).unwrap();
    /// space.move_pages(0x10000, 0x4000, 0x80000)?;
    /// let again = space.pin(Read, space.range(0x81000, 4096)?, [PhysRun::default(); 1]).unwrap();
    /// assert_eq!(again.runs()[0].first(), pinned.runs()[0].first());
    /// assert_eq!(space.move_pages(0x10000, 0x1000, 0x90000), Err(SpaceError::NoVma));
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::Range`] (either one), `NoVma` (a hole, or an unmap that waits), `Overlap` (something is at the new addresses, or
    /// the old ones are among them), `LargeLeaf` (one that cannot be split has an edge inside, or would not be aligned), `TooManyVmas`, `NoMemory`.
    pub fn move_pages(&self, start: u64, length: u64, to: u64) -> Result<(), SpaceError> {
        let half = self.mm.levels().user_half();
        let (from, into) = (UserRange::pages_only(half, start, length)?, UserRange::pages_only(half, to, length)?);
        let (first, end) = (from.first_page(), from.end_page());
        let route = Route { from: first, to: into.first_page() };
        if first < into.end_page() && route.to < end {
            return Err(SpaceError::Overlap);
        }
        let mut held = self.hold()?;
        reject(&held, route, (first, end))?;
        held = self.checked(held, first, end)?;
        // That may have taken steps.
        reject(&held, route, (first, end))?;
        if held.is_leaving(route.to, into.end_page()) {
            return Err(SpaceError::Overlap);
        }
        held.leave(route.to, into.end_page())?;
        if let Err(error) = held.leave(first, end) {
            held.left(route.to, into.end_page());
            return Err(error.into());
        }
        let mut moved = Ok(());
        held = self.make_tables(held, route, end, &mut moved)?;
        if moved.is_ok() {
            let mut next = first;
            moved = self.move_some(&mut held, route, &mut next, end);
            while moved.is_ok() && next < end {
                held = self.step_aside(held)?;
                moved = self.move_some(&mut held, route, &mut next, end);
            }
            if moved.is_err() {
                held = self.move_back(held, route, next)?;
            }
        }
        // Nothing is left at the one place, or nothing has come to the other, but empty tables.
        let empty = if moved.is_ok() { (first, end) } else { (route.to, into.end_page()) };
        held = self.zap_in_steps_outside(held, empty)?;
        held.left(first, end);
        held.left(route.to, into.end_page());
        moved
    }

    /// Makes the tables for all that there is now, in steps. `made` says why not.
    fn make_tables<'a>(
        &'a self,
        mut held: Held<'a, K>,
        route: Route,
        end: PageAddr,
        made: &mut Result<(), SpaceError>,
    ) -> Result<Held<'a, K>, SpaceError> {
        let mut next = route.from;
        loop {
            let stop = end_of_some(&self.tables(&held), next, end);
            match place_all(&mut self.tables(&held), route, (next, stop)) {
                Ok(None) => next = stop,
                // Tables of before, which are empty.
                Ok(Some((page, size))) => held = self.zap_in_steps(held, page, page.offset(size.pages()))?.0,
                Err(error) => {
                    *made = Err(error.into());
                    return Ok(held);
                }
            }
            if next >= end {
                return Ok(held);
            }
            held = self.step_aside(held)?;
        }
    }

    /// Moves as much from `next` on as one step does.
    fn move_some(&self, held: &mut VmaMap, route: Route, next: &mut PageAddr, end: PageAddr) -> Result<(), SpaceError> {
        reject(held, route, (*next, end))?;
        let first = *next;
        let stop = end_of_some(&self.tables(held), first, end);
        // Pages may have come since the tables were made.
        while let Some((page, _)) = place_all(&mut self.tables(held), route, (first, stop))? {
            // There are entries by now, or may be: this leaf arrives in parts.
            let mut tables = self.tables(held);
            let slot = tables.find(route.back().target(page))?;
            tables.split_leaf(slot)?;
        }
        let mut was_present = false;
        let moved = (0..MOST_VMAS).try_for_each(|_| {
            let Some(part) = held.vma(*next).filter(|_| *next < stop).and_then(|vma| vma.part(*next, stop)) else {
                return Ok(());
            };
            let (first, end) = (part.start(), part.end());
            held.reserve(&[first, end, route.target(first)])?;
            was_present |= move_entries(&mut self.tables(held), route, &part)?;
            // In this order: a chunk with a VMA in it keeps its room.
            held.insert(part.moved_to(route.target(first)));
            held.take_out(first, end);
            *next = end;
            Ok::<_, SpaceError>(())
        });
        if safeguard!(FlushAfterMove => was_present) {
            self.tables(held).flush(FlushRange::Leaves { first, pages: first.pages_to(*next) });
        }
        moved
    }

    /// Moves back what was moved, up to `next`; what others have unmapped there meanwhile is left out, and what lies behind that.
    fn move_back<'a>(&'a self, mut held: Held<'a, K>, route: Route, next: PageAddr) -> Result<Held<'a, K>, SpaceError> {
        let (back, end) = (route.back(), route.target(next));
        let mut next = route.to;
        while next < end && self.move_some(&mut held, back, &mut next, end).is_ok() {
            held = self.step_aside(held)?;
        }
        Ok(held)
    }

    /// Frees tables that have become empty, of the parts of a range that are in no VMA.
    fn zap_in_steps_outside<'a>(
        &'a self,
        mut held: Held<'a, K>,
        (mut next, end): (PageAddr, PageAddr),
    ) -> Result<Held<'a, K>, SpaceError> {
        while next < end {
            let vma = held.touching(next, end).next().copied();
            let stop = vma.map_or(end, |vma| vma.start().max(next));
            if next < stop {
                held = self.zap_in_steps(held, next, stop)?.0;
            }
            next = vma.map_or(end, |vma| vma.end());
        }
        Ok(held)
    }
}

/// Refuses holes, unmaps that wait, and what is not free where the pages are to go.
fn reject(vmas: &VmaMap, route: Route, (first, end): (PageAddr, PageAddr)) -> Result<(), SpaceError> {
    if !vmas.covers(first, end) {
        return Err(SpaceError::NoVma);
    }
    let is_free = vmas.touching(route.target(first), route.target(end)).next().is_none();
    if is_free { Ok(()) } else { Err(SpaceError::Overlap) }
}

/// The places of a chunk that go to one table: the first, and how many.
fn parts(route: Route, chunk: &Chunk) -> impl Iterator<Item = (u64, u64)> + use<> {
    let (large, count) = (chunk.size != LeafSize::Size4KiB, chunk.count);
    let index = Level::LOWEST.index(route.target(chunk.page).address());
    // Of as many places as a table has, some may go to the next.
    let cut = if large { count } else { count.min(arch::ENTRIES - index) };
    [(0, cut), (cut, count - cut)].into_iter().filter(|(_, count)| *count != 0)
}

/// Makes the tables for the leaves in `first..stop`, and splits large ones that would not be aligned. Some: there, where a large leaf is to go,
/// is a table.
fn place_all<K: Env>(
    tables: &mut Tables<'_, K>,
    route: Route,
    (first, stop): (PageAddr, PageAddr),
) -> Result<Option<(PageAddr, LeafSize)>, TableError> {
    let mut cursor = Cursor::new(first, stop);
    'chunks: while let Some(chunk) = cursor.next_chunk(tables)? {
        for (from, count) in parts(route, &chunk) {
            if (from..from + count).all(|i| tables.load(chunk.at(i)).is_empty()) {
                continue;
            }
            let (page, size) = (chunk.page_at(from), chunk.size);
            if !route.is_aligned(page, size) {
                let slot = tables.find(page)?;
                tables.split_leaf(slot)?;
                cursor = Cursor::new(page.max(first), stop);
                continue 'chunks;
            }
            // SAFETY: the target range was checked against this mm's levels.
            let at = unsafe { tables.place(route.target(page), size) }?;
            if size != LeafSize::Size4KiB && !tables.load(at).is_empty() {
                return Ok(Some((route.target(page), size)));
            }
        }
    }
    Ok(None)
}

/// Moves the entries of a part of a VMA, for which there are tables. Whether one was present.
fn move_entries<K: Env>(tables: &mut Tables<'_, K>, route: Route, part: &Vma) -> Result<bool, TableError> {
    let mut were = Entry::EMPTY;
    let mut cursor = Cursor::new(part.start(), part.end());
    while let Some(chunk) = cursor.next_chunk(tables)? {
        for (from, count) in parts(route, &chunk) {
            let (page, size) = (route.target(chunk.page_at(from)), chunk.size);
            let place = match size {
                LeafSize::Size4KiB => tables.find_lowest(page).map(|slot| slot.at),
                // SAFETY: as in `place_all`.
                _ => Some(unsafe { tables.place(page, size) }?),
            };
            // Without a table there is nothing to move.
            let Some(to) = place else { continue };
            were = were.mixed_with(match part.object_page(part.start()) {
                None => move_leaves(tables.env().phys_map(), (chunk.at(from), to), count),
                Some(_) => move_shown(tables, part, &chunk, (from, to), count),
            });
        }
    }
    tables.added();
    Ok(were.is_present())
}

/// Moves the entries of `count` places, neighbours here and there: all of them, mixed. The mm lock is held exclusively.
///
/// Outlined: see `take_entries` of the walker. The maps' fields stay in registers across the loop only if the maps are arguments.
#[inline(never)]
fn move_leaves<P: PhysMap>(map: &P, (from, to): (EntryAddr, EntryAddr), count: u64) -> Entry {
    let mut were = Entry::EMPTY;
    for i in 0..count {
        // SAFETY: the mm lock is held exclusively, under which both tables were found; each stretch lies within its table. Nothing is
        // at the new places, which are in no VMA, so no CPU uses an entry there.
        unsafe {
            let seen = map.load_entry(from.offset(i));
            if !seen.is_empty() {
                let taken = map.change_entry(from.offset(i), TAKE);
                let entry = if safeguard!(TakenIsFinal => true) { taken } else { seen };
                map.store_entry(to.offset(i), entry);
                were = were.mixed_with(entry);
            }
        }
    }
    were
}

/// Takes all of an entry, and what hardware has set in it until then.
const TAKE: EntryChange = EntryChange::Clear(u64::MAX);

/// The same where pages of an object may be shown. A pass over all that shows them, for write-back or a truncation, leaves the lock between
/// tables, and may have been at the new place already. So a page that may be written is asked about again before the next write, and one
/// that was given up does not arrive. Either pass begins after the object has changed its mind: what moves before is found by it.
fn move_shown<K: Env>(
    tables: &Tables<'_, K>,
    part: &Vma,
    chunk: &Chunk,
    (first, to): (u64, EntryAddr),
    count: u64,
) -> Entry {
    let (env, map, mut were) = (tables.env(), tables.env().phys_map(), Entry::EMPTY);
    for i in 0..count {
        let (from, page) = (chunk.at(first + i), chunk.page_at(first + i));
        // SAFETY: as in `move_leaves`.
        let entry = unsafe { map.change_entry(from, TAKE) };
        let shared = part.backing().is_shared() && entry.is_counted();
        let pfn = entry.leaf_frame(chunk.size);
        let frame = if shared || is_objects_page(env, entry, chunk.size) { env.frames().frame(pfn) } else { None };
        let moved = match (frame, part.object_page(page)) {
            (Some(frame), Some((id, page_of))) if safeguard!(StillTheObjects => !env.extras().objects().still(id, page_of, pfn)) =>
            {
                tables.flush(FlushRange::Leaves { first: page, pages: chunk.size.pages() });
                release(env, pfn, frame.word.put_mapping(Dirty::when(entry.is_dirty())));
                continue;
            }
            (Some(frame), _) if safeguard!(AsksWhereItMoves => shared) => {
                if entry.is_dirty() && frame.word.mark_dirty().is_err() {
                    bug_caught(env);
                }
                entry.write_protected().cleaned()
            }
            _ => entry,
        };
        // SAFETY: as in `move_leaves`.
        unsafe { map.store_entry(to.offset(i), moved) };
        were = were.mixed_with(entry);
    }
    were
}
