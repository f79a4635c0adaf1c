//! The VMAs of a [`UserSpace`](super::UserSpace): sorted, disjoint, neighbours that are alike joined.
//!
//! A sorted sequence of sorted chunks: a B+-tree of two levels, which the limit on VMAs makes deep enough. A search is two
//! binary ones, a change moves the rest of one chunk, and now and then the list of chunks: never all VMAs. The heap is
//! asked for a chunk at a time, before anything changes ([`VmaMap::reserve`] splits a full chunk in advance), and every
//! request can fail. A balanced tree would need a node for each VMA: more requests, or one table of nodes that has to be
//! moved as a whole when it grows.

mod chunk;
mod gap;
#[cfg(all(test, not(pagepin_checker)))]
mod tests;

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use self::chunk::{CAPACITY, Chunk};
use super::SpaceError;
use crate::addr::PageAddr;
use crate::env::Vmas;
use crate::primitive::{AtomicU64, Ordering};
use crate::vma::{Vma, VmaFlags};

/// Most VMAs an address space may have, as Linux's default `vm.max_map_count`: what user space can make the kernel
/// allocate is bounded.
const MAX_VMAS: usize = 65_530;

/// Neighbouring chunks become one when they have no more VMAs than this together. So there are at most four chunks for
/// `CAPACITY` VMAs, and the halves of a chunk that was just split stay apart.
const MERGE_AT: usize = CAPACITY / 2;

/// VMAs in each chunk of a copy: the copy can grow at any place before a chunk is split.
const COPY_FILL: usize = CAPACITY / 4 * 3;

#[derive(Debug, Default)]
pub(super) struct VmaMap {
    /// In order. None is empty, except for a single one.
    chunks: Vec<Chunk>,
    /// VMAs in all chunks.
    len: usize,
    /// Stretches whose VMAs are out, and whose pages are going: nobody maps anything there.
    leaving: Vec<(PageAddr, PageAddr)>,
    /// Unmaps that have deferred VMAs whose pages can be pinned yet, by entries that have their rights.
    deferring: usize,
}

/// A place in the sequence: that of a VMA, or the end of the last chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    chunk: usize,
    index: usize,
}

/// Looking up.
impl VmaMap {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Vma> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.vmas())
    }

    #[inline]
    pub(super) fn vma(&self, page: PageAddr) -> Option<&Vma> {
        // A VMA that contains the page begins no later than it, and so lies in the last chunk that does.
        let vmas = self.chunks.get(self.chunk_of(page))?.vmas();
        vmas.get(vmas.partition_point(|vma| vma.end() <= page)).filter(|vma| vma.start() <= page)
    }

    /// The same, with a look first where the last one was found. What is there is judged by the map, so the guess may be of
    /// another map, or of this one before it changed.
    #[inline(always)]
    fn vma_near(&self, page: PageAddr, found: &AtomicU64) -> Option<&Vma> {
        let guess = found.load(Ordering::Relaxed) as usize;
        let near = self.chunks.get(guess / CAPACITY).and_then(|chunk| chunk.vmas().get(guess % CAPACITY));
        near.filter(|vma| vma.start() <= page && page < vma.end()).or_else(|| self.find_and_note(page, found))
    }

    #[cold]
    #[inline(never)]
    fn find_and_note(&self, page: PageAddr, found: &AtomicU64) -> Option<&Vma> {
        let place = self.place(page);
        found.store((place.chunk * CAPACITY + place.index) as u64, Ordering::Relaxed);
        self.get(place).filter(|vma| vma.start() <= page)
    }

    /// The VMAs that `start..end` touches.
    pub(super) fn touching(&self, start: PageAddr, end: PageAddr) -> impl Iterator<Item = &Vma> + Clone {
        let from = self.place(start);
        let first = self.chunks.get(from.chunk).and_then(|chunk| chunk.vmas().get(from.index..)).unwrap_or(&[]);
        let others = self.chunks.get(from.chunk + 1..).unwrap_or(&[]).iter().flat_map(|chunk| chunk.vmas());
        first.iter().chain(others).take_while(move |vma| vma.start() < end)
    }

    /// The VMA that contains `page`, or else the next.
    pub(super) fn next_from(&self, page: PageAddr) -> Option<&Vma> {
        self.get(self.place(page))
    }

    /// The first stretch in `start..end` of VMAs that are `wanted`, without a hole; no more than `most` VMAs are looked at for it,
    /// where it is long.
    pub(super) fn next_part(
        &self,
        start: PageAddr,
        end: PageAddr,
        most: usize,
        wanted: impl Fn(&Vma) -> bool,
    ) -> Option<(PageAddr, PageAddr)> {
        let mut vmas = self.touching(start, end).filter(|vma| wanted(vma));
        let first = vmas.next()?;
        let mut reached = first.end();
        for vma in vmas.take(most) {
            if vma.start() != reached {
                break;
            }
            reached = vma.end();
        }
        Some((first.start().max(start), reached.min(end)))
    }

    /// Whether the pages of `start..end`, or some of them, are [leaving](Self::leave).
    pub(super) fn is_leaving(&self, start: PageAddr, end: PageAddr) -> bool {
        self.leaving.iter().any(|(first, after)| *first < end && start < *after)
    }

    /// Whether `page` may have an entry.
    pub(super) fn has_pages(&self, page: PageAddr) -> bool {
        self.vma(page).is_some() || self.is_leaving(page, page.offset(1))
    }

    /// Whether every page of `start..end` lies in a VMA that nobody has unmapped.
    pub(super) fn covers(&self, start: PageAddr, end: PageAddr) -> bool {
        let mut reached = start;
        for vma in self.touching(start, end) {
            if vma.start() > reached || vma.flags().contains(VmaFlags::UNMAP_DEFERRED) {
                return false;
            }
            reached = vma.end();
        }
        reached >= end
    }

    /// The chunk for a VMA that begins at `page`.
    #[inline(always)]
    fn chunk_of(&self, page: PageAddr) -> usize {
        // Most processes have few VMAs.
        if self.chunks.len() <= 1 {
            return 0;
        }
        self.chunks.partition_point(|chunk| chunk.start() <= page).saturating_sub(1)
    }

    /// The first VMA that ends after `page`.
    fn place(&self, page: PageAddr) -> Place {
        let chunk = self.chunk_of(page);
        let index = self.chunks.get(chunk).map_or(0, |chunk| chunk.vmas().partition_point(|vma| vma.end() <= page));
        self.settled(Place { chunk, index })
    }

    /// The same place, and at the end of a chunk the beginning of the next.
    fn settled(&self, place: Place) -> Place {
        let at_end = place.chunk + 1 < self.chunks.len() && place.index == self.chunks[place.chunk].vmas().len();
        if at_end { Place { chunk: place.chunk + 1, index: 0 } } else { place }
    }

    fn after(&self, place: Place) -> Place {
        self.settled(Place { index: place.index + 1, ..place })
    }

    /// The VMA before `place`, or `place` if there is none.
    fn before(&self, place: Place) -> Place {
        if place.index > 0 {
            return Place { index: place.index - 1, ..place };
        }
        let lower =
            place.chunk.checked_sub(1).and_then(|chunk| Some((chunk, self.chunks[chunk].vmas().len().checked_sub(1)?)));
        lower.map_or(place, |(chunk, index)| Place { chunk, index })
    }

    fn get(&self, place: Place) -> Option<&Vma> {
        self.chunks.get(place.chunk).and_then(|chunk| chunk.vmas().get(place.index))
    }
}

/// Making room: what can fail, before anything changes.
impl VmaMap {
    /// The VMAs that a child gets.
    pub(super) fn try_fork(&self) -> Result<Self, TryReserveError> {
        let mut copy = Self::default();
        copy.chunks.try_reserve_exact(self.len.div_ceil(COPY_FILL))?;
        for vma in self.iter().filter(|vma| !vma.flags().contains(VmaFlags::DONT_FORK)) {
            if copy.len % COPY_FILL == 0 {
                copy.chunks.push(Chunk::new()?);
            }
            if let Some(chunk) = copy.chunks.last_mut() {
                chunk.insert(chunk.vmas().len(), *vma);
                copy.len += 1;
            }
        }
        Ok(copy)
    }

    /// Makes room for `vma`, if there is none yet where it is to be.
    pub(super) fn make_room(&mut self, vma: &Vma) -> Result<(), SpaceError> {
        if self.touching(vma.start(), vma.end()).next().is_some() || self.is_leaving(vma.start(), vma.end()) {
            return Err(SpaceError::Overlap);
        }
        self.reserve(&[vma.start()])
    }

    /// Makes sure that a [`change`](Self::change) of `start..end` cannot fail: each edge inside a VMA makes two of it. For
    /// whole VMAs this needs no memory.
    pub(super) fn make_room_to_change(&mut self, start: PageAddr, end: PageAddr) -> Result<(), SpaceError> {
        let inside = |page| self.vma(page).is_some_and(|vma| vma.start() < page);
        match (inside(start), inside(end)) {
            (true, true) => self.reserve(&[start, end]),
            (true, false) => self.reserve(&[start]),
            (false, true) => self.reserve(&[end]),
            (false, false) => Ok(()),
        }
    }

    /// Makes sure that a VMA that begins at each of `pages` can be added.
    pub(super) fn reserve(&mut self, pages: &[PageAddr]) -> Result<(), SpaceError> {
        if self.len + pages.len() > MAX_VMAS {
            return Err(SpaceError::TooManyVmas);
        }
        for page in pages {
            self.make_room_at(*page, pages.len())?;
        }
        Ok(())
    }

    /// Makes sure that the chunk for a VMA that begins at `page` has room for `added` VMAs.
    fn make_room_at(&mut self, page: PageAddr, added: usize) -> Result<(), TryReserveError> {
        let place = self.chunk_of(page);
        let lengths = self.chunks.get(place).map(|chunk| (chunk.vmas().len(), chunk.index_of(page)));
        if lengths.is_some_and(|(len, _)| len + added <= CAPACITY) {
            return Ok(());
        }
        self.chunks.try_reserve(1)?;
        let mut new = Chunk::new()?;
        let Some((len, index)) = lengths else {
            self.chunks.push(new);
            return Ok(());
        };
        // A run of VMAs that grows at an end of the map leaves full chunks behind.
        let last = place + 1 == self.chunks.len();
        let at = if index == 0 {
            1
        } else if index == len && last {
            len - 1
        } else {
            len / 2
        };
        self.chunks[place].move_from(at, &mut new);
        note_moves(self.chunks.len() - place);
        self.chunks.insert(place + 1, new);
        Ok(())
    }
}

/// Changing: room was made, so nothing can fail.
impl VmaMap {
    /// Adds a VMA where there is none.
    pub(super) fn insert(&mut self, vma: Vma) {
        let chunk = self.chunk_of(vma.start());
        let index = self.chunks[chunk].index_of(vma.start());
        self.chunks[chunk].insert(index, vma);
        self.len += 1;
        self.replace(vma.start(), vma.end(), Some);
    }

    /// Replaces every VMA by what `change` makes of its part in `start..end` (`None`: nothing), and joins what is alike.
    pub(super) fn change(&mut self, start: PageAddr, end: PageAddr, change: impl Fn(Vma) -> Option<Vma>) {
        self.split_at(start);
        self.split_at(end);
        self.replace(start, end, change);
    }

    /// The same for whole VMAs, in one pass. The VMAs below `write` are final and those from `read` on still to be looked
    /// at. One between them, `growing`, may be joined by what follows.
    fn replace(&mut self, start: PageAddr, end: PageAddr, change: impl Fn(Vma) -> Option<Vma>) {
        // The neighbours on both sides are passed as they are, to be joined.
        let mut read = self.before(self.place(start));
        let (mut write, mut growing) = (read, None::<Vma>);
        while let Some(&vma) = self.get(read) {
            read = self.after(read);
            let next = if start <= vma.start() && vma.start() < end { change(vma) } else { Some(vma) };
            if let Some(next) = next {
                let joined = growing.and_then(|lower| lower.try_join(next));
                if let (None, Some(done)) = (joined, growing) {
                    write = self.put(write, done);
                }
                growing = joined.or(Some(next));
            }
            if vma.start() >= end {
                break;
            }
        }
        if let Some(done) = growing {
            write = self.put(write, done);
        }
        self.remove(write, read);
    }

    /// Takes the VMAs of `start..end` out. Costs what there are chunks, not VMAs.
    pub(super) fn take_out(&mut self, start: PageAddr, end: PageAddr) {
        self.split_at(start);
        self.split_at(end);
        // What is left on both sides has a hole between, so there is nothing to join.
        self.remove(self.place(start), self.place(end));
    }

    /// Nobody may map anything in `start..end` until [`left`](Self::left) is said of it.
    pub(super) fn leave(&mut self, start: PageAddr, end: PageAddr) -> Result<(), TryReserveError> {
        self.leaving.try_reserve(1)?;
        self.leaving.push((start, end));
        Ok(())
    }

    /// The last page of a stretch has gone. Two of the same bounds are two operations, each of which says so.
    pub(super) fn left(&mut self, start: PageAddr, end: PageAddr) {
        if let Some(index) = self.leaving.iter().position(|stretch| *stretch == (start, end)) {
            self.leaving.swap_remove(index);
        }
    }

    /// VMAs wait to be unmapped whose pages can be pinned until [`end_deferral`](Self::end_deferral).
    pub(super) fn begin_deferral(&mut self) {
        self.deferring += 1;
    }

    pub(super) fn end_deferral(&mut self) {
        self.deferring -= 1;
    }

    /// Whether pages may be pinned of VMAs that wait to be unmapped.
    pub(super) fn is_deferring(&self) -> bool {
        self.deferring != 0
    }

    /// Makes the VMA after `page` begin there, which nothing lies between.
    pub(super) fn extend_down(&mut self, page: PageAddr) {
        let place = self.place(page);
        if let Some(vma) = self.get(place).copied() {
            self.put(place, vma.extended_down(page));
        }
    }

    fn split_at(&mut self, page: PageAddr) {
        let place = self.place(page);
        if let Some((lower, upper)) = self.get(place).and_then(|vma| vma.split_at(page)) {
            self.put(place, lower);
            self.chunks[place.chunk].insert(place.index + 1, upper);
            self.len += 1;
        }
    }

    /// Replaces the VMA at `place`; the place after it.
    fn put(&mut self, place: Place, vma: Vma) -> Place {
        self.chunks[place.chunk].put(place.index, vma);
        self.after(place)
    }

    /// Takes the VMAs at `from..to` away.
    fn remove(&mut self, from: Place, to: Place) {
        if from == to {
            return;
        }
        if from.chunk == to.chunk {
            self.len -= self.chunks[from.chunk].remove(from.index..to.index);
        } else {
            self.len -= self.chunks[to.chunk].remove(0..to.index);
            let between = from.chunk + 1..to.chunk;
            self.len -= self.chunks[between.clone()].iter().map(|chunk| chunk.vmas().len()).sum::<usize>();
            let lower = &mut self.chunks[from.chunk];
            self.len -= lower.remove(from.index..lower.vmas().len());
            if !between.is_empty() {
                note_moves(self.chunks.len() - from.chunk);
                self.chunks.drain(between);
            }
        }
        self.merge_chunks_around(from.chunk);
    }

    /// Drops or merges what `chunk`, the one below and the two above have too little in. Needs no memory.
    fn merge_chunks_around(&mut self, chunk: usize) {
        for lower in (chunk.saturating_sub(1)..chunk + 2).rev() {
            let len = |at: usize| self.chunks.get(at).map(|chunk| chunk.vmas().len());
            let (Some(below), Some(above)) = (len(lower), len(lower + 1)) else { continue };
            if below == 0 {
                note_moves(self.chunks.len() - lower);
                self.chunks.remove(lower);
            } else if above == 0 || below + above <= MERGE_AT {
                note_moves(self.chunks.len() - lower);
                let mut upper = self.chunks.remove(lower + 1);
                upper.move_from(0, &mut self.chunks[lower]);
            }
        }
    }
}

/// Tells the tests, which bound it, that so many VMAs or chunks are moved.
#[cfg(not(all(test, not(pagepin_checker))))]
const fn note_moves(_: usize) {}
/// The same of VMAs and chunks that a search for free addresses looks at.
#[cfg(not(all(test, not(pagepin_checker))))]
const fn note_looks(_: usize) {}
#[cfg(all(test, not(pagepin_checker)))]
use tests::{note_looks, note_moves};

/// The VMAs as a reader looks at them.
pub(super) struct Looked<'a> {
    pub(super) vmas: &'a VmaMap,
    /// Where the CPU found one last, in a kernel that has such a place for each.
    pub(super) found: Option<&'a AtomicU64>,
}

// SAFETY: the VMAs are disjoint by construction, and `UserSpace` maps pages only inside of them.
unsafe impl Vmas for Looked<'_> {
    #[inline(always)]
    fn vma_at(&self, page: PageAddr) -> Option<Vma> {
        match self.found {
            Some(found) => self.vmas.vma_near(page, found),
            None => self.vmas.vma(page),
        }
        .copied()
    }
}
