//! Giving back what no CPU and no walker can reach any more: leaves, and tables with all below them.

use super::Unmapped;
use crate::addr::{PAGE_SIZE, PageAddr, Pfn};
use crate::arch::{ENTRIES, Entry, LeafSize, Level};
use crate::env::{
    EntryAddr, Env, ExtraParts, FrameTable, FreedRun, PhysMap, ReadSide, Tokens, bug_caught, counted_frame,
};
use crate::frame::Dirty;
use crate::paging::Upper;
use crate::primitive::safeguard;

/// Tables that one step takes out of the tree, at most: three quarters of a kilobyte on a kernel's stack.
const MOST_TABLES: usize = 32;

/// What a step of an unmap has taken out of the tables and flushed: no CPU can reach it, and no walker can find it any more.
#[must_use = "release it, or the frames are lost"]
pub(in crate::space) struct Taken<'k, K: Env> {
    env: &'k K,
    /// Tables, each with all below it, their levels and the first pages that they mapped.
    tables: [(Pfn, Level, PageAddr); MOST_TABLES],
    count: usize,
    /// What was released in place.
    pub(super) unmapped: Unmapped,
}

impl<'k, K: Env> Taken<'k, K> {
    pub(super) fn new(env: &'k K) -> Self {
        let tables = [(Pfn::new(0), Level::LOWEST, PageAddr::containing(0)); MOST_TABLES];
        Self { env, tables, count: 0, unmapped: Unmapped::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == MOST_TABLES
    }

    /// Adds a table that no entry leads to any more. It is not full.
    pub(super) fn push(&mut self, table: Pfn, level: Level, page: PageAddr) {
        self.tables[self.count] = (table, level, page);
        self.count += 1;
    }

    /// Gives all of it back, when the walkers have left that may still be in it. Then it is the caller's alone, which needs no lock.
    pub(in crate::space) fn release(mut self) -> Unmapped {
        if safeguard!(WaitForWalkers => !self.is_empty()) {
            self.env.read_side().synchronize();
        }
        let mut freed = FreedRun::new(self.env);
        for &(table, level, page) in &self.tables[..self.count] {
            release_table(table, level, page, &mut freed, &mut self.unmapped);
        }
        self.unmapped
    }
}

/// Releases a table of `level` that nobody else can reach, and what is below it. It mapped `page` and what follows.
fn release_table<K: Env>(
    table: Pfn,
    level: Level,
    page: PageAddr,
    freed: &mut FreedRun<'_, K>,
    unmapped: &mut Unmapped,
) {
    let env = freed.env();
    if level == Level::LOWEST {
        // SAFETY: nobody else can reach the table.
        unsafe { release_leaves((EntryAddr::new(table, 0), page), ENTRIES, LeafSize::Size4KiB, freed, unmapped) };
    } else {
        for index in 0..ENTRIES {
            let (at, page) = (EntryAddr::new(table, index), page.offset(index * (level.span() / PAGE_SIZE)));
            // SAFETY: nobody else can reach the table, which is freed below.
            match Upper::of(unsafe { env.phys_map().load_entry(at) }, level) {
                Upper::Empty => {}
                Upper::Table(below) => release_table(below, level.below(), page, freed, unmapped),
                // SAFETY: as above.
                Upper::Leaf(size) => unsafe { release_leaves((at, page), 1, size, freed, unmapped) },
                Upper::Owned | Upper::Malformed => bug_caught(env),
            }
        }
    }
    match env.frames().frame(table) {
        Some(frame) => _ = freed.release(table, frame.word.put()),
        None => bug_caught(env),
    }
}

/// Empties `count` places from `first`, of that page, on, and then gives up what their leaves of `size` held.
///
/// # Safety
/// The places lie in one table, which the caller alone may change. No CPU uses what is there: it is broken and flushed, or the
/// table is out of reach.
pub(super) unsafe fn release_leaves<K: Env>(
    (first, page): (EntryAddr, PageAddr),
    count: u64,
    size: LeafSize,
    freed: &mut FreedRun<'_, K>,
    unmapped: &mut Unmapped,
) {
    let (map, frames) = (freed.env().phys_map(), freed.env().frames());
    let (mut done, mut leaves) = (0, 0);
    while done < count {
        // SAFETY: forwarded from the caller.
        let run = unsafe { release_run(map, frames, (first.offset(done), count - done), size, freed.next()) };
        freed.extend(run.freed);
        (done, leaves) = (done + run.places, leaves + run.freed + u64::from(!run.other.is_empty()));
        let pfn = run.other.leaf_frame(size);
        if run.other.is_special() {
            let page = page.offset((done - 1) * size.pages());
            release_special(freed, (page, run.other, size), unmapped);
        } else if let Some(frame) = frames.frame(pfn).filter(|_| !run.other.is_empty()) {
            if freed.release(pfn, frame.word.put_mapping(Dirty::when(run.other.is_dirty()))) {
                unmapped.pinned_pages += size.pages();
                unmapped.still_pinned.add(page.offset((done - 1) * size.pages()), pfn, size.order());
            }
        }
    }
    unmapped.pages += leaves * size.pages();
}

/// Gives up what the place of a page held that pins do not take as it is: a token, or the reference to a page that was borrowed, or that nobody
/// pins by its address.
#[cold]
#[inline(never)]
fn release_special<K: Env>(
    freed: &mut FreedRun<'_, K>,
    (page, other, size): (PageAddr, Entry, LeafSize),
    unmapped: &mut Unmapped,
) {
    if let Some(token) = other.as_token() {
        return freed.env().extras().tokens().release(freed.env(), token);
    }
    if !other.was_borrowed() {
        return;
    }
    let Some((pfn, frame)) = counted_frame(freed.env(), other, size) else { return bug_caught(freed.env()) };
    // Pins by an object's number keep it as all others do.
    if freed.release(pfn, frame.word.put_mapping(Dirty::when(other.is_dirty()))) {
        unmapped.pinned_pages += size.pages();
        unmapped.still_pinned.add(page, pfn, size.order());
    }
}

/// What [`release_run`] has done.
struct Run {
    /// Places that are empty now.
    places: u64,
    /// Neighbours whose last reference went.
    freed: u64,
    /// What was in the last place, if somebody has to look closely at it; else nothing.
    other: Entry,
}

/// Empties places, and gives up what their leaves held as long as that is one frame after another from `next` on, of which each
/// leaf holds the only reference: then there is nothing to decide.
///
/// Outlined: see `take_entries` of the walker. The maps' fields stay in registers across the loop only if the maps are arguments.
///
/// # Safety
/// As [`release_leaves`].
#[inline(never)]
unsafe fn release_run<P: PhysMap, F: FrameTable>(
    map: &P,
    frames: &F,
    (first, count): (EntryAddr, u64),
    size: LeafSize,
    next: Pfn,
) -> Run {
    let (mut places, mut expected) = (0, next);
    let other = loop {
        if places == count {
            break Entry::EMPTY;
        }
        let at = first.offset(places);
        // SAFETY: forwarded from the caller.
        let entry = unsafe { map.load_entry(at) };
        places += 1;
        let pfn = entry.leaf_frame(LeafSize::Size4KiB);
        let usual = pfn == expected && !entry.is_special();
        if !usual && entry.is_empty() {
            continue;
        }
        // Before the reference goes: whoever finds the frame here looks at the place again.
        // SAFETY: as above.
        unsafe { map.store_entry(at, Entry::EMPTY) };
        let freed = usual && size == LeafSize::Size4KiB && frames.frame(pfn).is_some_and(|frame| frame.word.put_sole());
        if !freed {
            break entry;
        }
        expected = expected.offset(1);
    };
    Run { places, freed: expected.number() - next.number(), other }
}
