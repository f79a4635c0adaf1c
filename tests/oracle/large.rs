//! Large leaves. The library makes none of its own accord; an embedding puts them in.

use pagepin::frame::Layout;
use pagepin::paging::Tables;
use pagepin::{AddressSpace, Entry, LeafSize, PageAddr, Pfn, PhysMap, Rights};

use super::contents::Block;
use super::{Effect, World};
use crate::machine::PAGE;

const SIZE: LeafSize = LeafSize::Size2MiB;

impl<L: Layout> World<'_, L> {
    /// Maps a VMA of one large leaf at `start`, with bytes that tell its pages apart, if there is memory for it.
    pub(super) fn map_large(&mut self, who: usize, start: u64, rights: Rights, seed: u8) -> Effect {
        let (process, reference) = &mut self.processes[who];
        let (first, rights) = (start / PAGE, rights | Rights::READ);
        if reference.touching(&(first..first + SIZE.pages())).next().is_some() {
            return Effect::Nothing;
        }
        // Tables of pages that were there before stay empty in its place after a discard.
        process.unmap(start, SIZE.bytes()).unwrap();
        // SAFETY: there is one thread, and it is in no operation; the page lies in the user half, as unmap has checked.
        let place = unsafe { Tables::under_mm_lock(process.mm()).place(PageAddr::containing(start), SIZE) };
        let Some(frame) = place.ok().and_then(|_| self.machine.try_block(SIZE)) else { return Effect::EmptyTables };
        let blocks: Vec<_> = (0..SIZE.pages() as usize).map(|page| Block::patterned(page, seed)).collect();
        for (page, block) in (0..).zip(&blocks) {
            let (block, to) = (block.borrow(), self.machine.frame_ptr(frame.offset(page)));
            // SAFETY: the block was just allocated and nobody knows it.
            unsafe { to.copy_from_nonoverlapping(block.bytes().as_ptr(), PAGE as usize) };
        }
        process.map(start, SIZE.bytes(), rights).unwrap();
        self.machine.install(process, start, SIZE, frame, Entry::leaf(Pfn::new(0), SIZE, rights, 0).bits());
        reference.map_blocks(first, rights, blocks.into_iter());
        Effect::Anything
    }
}
