//! Visiting the leaf entries of a range, a table at a time.

use core::ops::ControlFlow;

use super::{TableError, Tables};
use crate::addr::{PageAddr, Pfn};
use crate::arch::{self, LeafSize};
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
}

/// The first stretch of `first..end` that [`for_each_chunk`] would visit.
///
/// # Errors
/// [`TableError::Malformed`].
pub(crate) fn first_chunk<K: Env>(
    tables: &Tables<'_, K>,
    first: PageAddr,
    end: PageAddr,
) -> Result<Option<Chunk>, TableError> {
    enum Found {
        Chunk(Chunk),
        Error(TableError),
    }
    impl From<TableError> for Found {
        fn from(error: TableError) -> Self {
            Self::Error(error)
        }
    }
    match for_each_chunk(tables, first, end, |chunk| ControlFlow::Break(Found::Chunk(chunk))) {
        Ok(()) => Ok(None),
        Err(Found::Chunk(chunk)) => Ok(Some(chunk)),
        Err(Found::Error(error)) => Err(error),
    }
}

/// Calls `visit` for every stretch of `first..end` that has a leaf table or a large leaf; what has neither is skipped a
/// table at a time.
///
/// # Errors
/// [`TableError::Malformed`], or what `visit` breaks with.
pub(crate) fn for_each_chunk<K: Env, E: From<TableError>>(
    tables: &Tables<'_, K>,
    first: PageAddr,
    end: PageAddr,
    mut visit: impl FnMut(Chunk) -> ControlFlow<E>,
) -> Result<(), E> {
    let mut page = first;
    while page < end {
        let (mut table, mut level) = (tables.mm().root(), tables.mm().levels().top());
        let chunk = loop {
            let index = level.index(page.address());
            let size = level.leaf_size();
            if let Some(LeafSize::Size4KiB) = size {
                let count = (arch::ENTRIES - index).min(page.pages_to(end));
                break Some(Chunk { table, index, count, page, size: LeafSize::Size4KiB });
            }
            let entry = tables.load(EntryAddr::new(table, index));
            if !entry.has_frame() {
                break None;
            }
            if entry.is_leaf_at(level) {
                let size = size.ok_or(TableError::Malformed)?;
                let page = PageAddr::containing(page.address() & !(size.bytes() - 1));
                break Some(Chunk { table, index, count: 1, page, size });
            }
            (table, level) = (entry.table_frame(), level.below());
        };
        page = match chunk {
            Some(chunk) => {
                if let ControlFlow::Break(error) = visit(chunk) {
                    return Err(error);
                }
                chunk.page_at(chunk.count)
            }
            None => {
                // At the end of the address space this passes `end`, never wraps: the user half is the lower one.
                PageAddr::containing((page.address() | (level.span() - 1)) + 1)
            }
        };
    }
    Ok(())
}
