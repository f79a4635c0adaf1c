//! Looking at address spaces as a whole: what is resident, what is mapped where, and whether all of it agrees with the frames'
//! words. For shells, for panics, and for who wonders where memory went. Each visits every entry, with the mm lock held
//! exclusively: counts and dumps in steps, between which others have it; the audit from beginning to end, since what it compares
//! must all be true at one moment.

mod audit;
mod dump;
mod resident;

pub use audit::{Audited, Finding, audit};
pub use dump::Dump;
pub use resident::Resident;

use crate::addr::{PageAddr, Pfn};
use crate::arch::{Entry, LeafSize, Level};
use crate::env::{Env, counted_frame};
use crate::frame::Snapshot;
use crate::paging::{Chunk, Cursor, TableError, Tables};

/// A leaf, present or prot-none, or a token.
#[derive(Clone, Copy)]
struct Leaf {
    page: PageAddr,
    entry: Entry,
    size: LeafSize,
}

impl Leaf {
    fn frame(&self) -> Pfn {
        self.entry.leaf_frame(self.size)
    }

    fn is_writable(&self) -> bool {
        self.entry.is_present() && self.entry.is_writable()
    }
}

/// The leaves of a chunk.
fn leaves_of<K: Env>(tables: &Tables<'_, K>, chunk: Chunk) -> impl Iterator<Item = Leaf> {
    let leaf = move |i| Leaf { page: chunk.page_at(i), entry: tables.load(chunk.at(i)), size: chunk.size };
    (0..chunk.count).map(leaf).filter(|leaf| leaf.entry.has_frame() || leaf.entry.is_token())
}

/// Calls `look` with each leaf.
fn leaves<K: Env>(tables: &Tables<'_, K>, mut look: impl FnMut(Leaf)) -> Result<(), TableError> {
    let (first, end) = user_half(tables);
    let mut cursor = Cursor::new(first, end);
    while let Some(chunk) = cursor.next_chunk(tables)? {
        leaves_of(tables, chunk).for_each(&mut look);
    }
    Ok(())
}

/// Calls `look` with each table, the root first.
fn tables_of<K: Env>(tables: &Tables<'_, K>, mut look: impl FnMut(Pfn)) -> Result<(), TableError> {
    let (first, end) = user_half(tables);
    look(tables.mm().root());
    let mut level = tables.mm().levels().top();
    while level != Level::LOWEST {
        let mut cursor = Cursor::new(first, end);
        while let Some(table) = cursor.next_table(tables, level)? {
            look(table.frame);
        }
        level = level.below();
    }
    Ok(())
}

fn user_half<K: Env>(tables: &Tables<'_, K>) -> (PageAddr, PageAddr) {
    let half = tables.mm().levels().user_half().range();
    (half.first_page(), half.end_page())
}

/// The frame whose word counts what a leaf holds, and that word: of a part of a block that is borrowed, the block's.
fn counted<K: Env>(tables: &Tables<'_, K>, leaf: &Leaf) -> (Pfn, Option<Snapshot>) {
    match counted_frame(tables.env(), leaf.entry, leaf.size) {
        Some((frame, word)) => (frame, Some(word.snapshot())),
        None => (leaf.frame(), None),
    }
}
