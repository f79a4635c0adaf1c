//! [`Chunk`]: some VMAs, in order, in memory that was got in advance.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Range;

use super::{note_looks, note_moves};
use crate::addr::PageAddr;
use crate::vma::Vma;

/// Most VMAs in a chunk: 1.5 KiB. To move half of that costs about as much as one miss of the cache, of which a search
/// through many VMAs has several; and an address space at the limit has a list of about a thousand chunks.
pub(super) const CAPACITY: usize = 64;

/// At most [`CAPACITY`] VMAs, for which there is room from the beginning.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Where the first VMA begins: what a search looks at, without following the pointer.
    start: PageAddr,
    /// Where the last VMA ends: what a search for free addresses looks at.
    end: PageAddr,
    /// Bytes between two neighbours, the most there are; [`CHANGED`] until somebody asks.
    widest: u64,
    vmas: Vec<Vma>,
}

const CHANGED: u64 = u64::MAX;

impl Chunk {
    pub(super) fn new() -> Result<Self, TryReserveError> {
        let mut vmas = Vec::new();
        vmas.try_reserve_exact(CAPACITY)?;
        Ok(Self { start: PageAddr::containing(0), end: PageAddr::containing(0), widest: CHANGED, vmas })
    }

    #[inline(always)]
    pub(super) fn start(&self) -> PageAddr {
        self.start
    }

    pub(super) fn end(&self) -> PageAddr {
        self.end
    }

    /// The widest gap between two VMAs of it, in bytes. Looks at all of them, if it was changed since somebody asked.
    pub(super) fn widest_gap(&mut self) -> u64 {
        if self.widest == CHANGED {
            note_looks(self.vmas.len());
            let gaps = self.vmas.windows(2).map(|two| two[1].start().address() - two[0].end().address());
            self.widest = gaps.max().unwrap_or(0);
        }
        self.widest
    }

    #[inline(always)]
    pub(super) fn vmas(&self) -> &[Vma] {
        &self.vmas
    }

    /// Where a VMA that begins at `page` belongs.
    pub(super) fn index_of(&self, page: PageAddr) -> usize {
        self.vmas.partition_point(|vma| vma.start() < page)
    }

    /// Adds a VMA; there is room for it.
    pub(super) fn insert(&mut self, index: usize, vma: Vma) {
        debug_assert!(self.vmas.len() < CAPACITY);
        note_moves(self.vmas.len() - index + 1);
        self.vmas.insert(index, vma);
        self.note_change();
    }

    /// Replaces a VMA.
    pub(super) fn put(&mut self, index: usize, vma: Vma) {
        note_moves(1);
        self.vmas[index] = vma;
        self.note_change();
    }

    /// Takes VMAs away; how many.
    pub(super) fn remove(&mut self, range: Range<usize>) -> usize {
        note_moves(self.vmas.len() - range.start);
        self.vmas.drain(range.clone());
        self.note_change();
        range.len()
    }

    /// Moves the VMAs from `at` on to the end of `to`, which has room for them.
    pub(super) fn move_from(&mut self, at: usize, to: &mut Self) {
        debug_assert!(to.vmas.len() + self.vmas.len() - at <= CAPACITY);
        note_moves(self.vmas.len() - at);
        to.vmas.extend(self.vmas.drain(at..));
        to.note_change();
        self.note_change();
    }

    fn note_change(&mut self) {
        self.start = self.vmas.first().map_or(PageAddr::containing(0), Vma::start);
        self.end = self.vmas.last().map_or(self.start, Vma::end);
        self.widest = CHANGED;
    }
}
