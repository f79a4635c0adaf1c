//! Looking for pinned pages, for the policies that care about them.

use crate::addr::{PageAddr, UserRange};
use crate::env::{Env, FlushRange, FrameTable, Mm, ReadSide};
use crate::paging::{Cursor, TableError, Tables};
use crate::primitive::safeguard;

use super::{MOST_PLACES, ZapError};

/// The first page of `range` that is pinned: for a kernel with VMAs of its own, whose policy is to refuse an unmap or to put it
/// off. What a walker of another mm holds for a moment does not count; a pin that is being taken at the same moment may come
/// before or after.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// let pinned = space.pin(Write, space.range(0x12000, 1)?, [PhysRun::default(); 1])?;
/// let range = space.range(0x10000, 0x4000)?;
/// // SAFETY: one thread; nobody else has the space.
/// let first = unsafe { first_pinned_page(space.mm(), range) }?;
/// assert_eq!(first, Some(PageAddr::containing(0x12000)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ZapError::MalformedTable`].
///
/// # Safety
/// The range was checked against the levels of this mm, and the caller holds its mm lock exclusively.
pub unsafe fn first_pinned_page<K: Env>(mm: &Mm<K>, range: UserRange) -> Result<Option<PageAddr>, ZapError> {
    // SAFETY: the caller holds the mm lock.
    let tables = unsafe { Tables::under_mm_lock(mm) };
    Ok(first_pinned(&tables, core::iter::once((range.first_page(), range.end_page())))?)
}

/// The first page in `parts` (first page and end of each) that is pinned, and not by a walker that will find that it is not its page.
pub(super) fn first_pinned<K: Env>(
    tables: &Tables<'_, K>,
    parts: impl Iterator<Item = (PageAddr, PageAddr)>,
) -> Result<Option<PageAddr>, TableError> {
    for (first, end) in parts {
        let mut next = first;
        while next < end {
            let (page, reached) = first_pinned_of_some(tables, next, end)?;
            if page.is_some() {
                return Ok(page);
            }
            next = reached;
        }
    }
    Ok(None)
}

/// The same for as much of `first..end` as one step looks at, and how far that is.
pub(super) fn first_pinned_of_some<K: Env>(
    tables: &Tables<'_, K>,
    first: PageAddr,
    end: PageAddr,
) -> Result<(Option<PageAddr>, PageAddr), TableError> {
    let seen = find_pinned(tables, first, end)?;
    let Some(page) = seen.0 else { return Ok(seen) };
    // It may be no pin of this mm. A lockless walker that found the frame by an entry of its former mm holds it until it
    // has read that entry again. Such a walk began before the frame was this mm's: one that begins now cannot find the old
    // entry. So when all walks of this moment have ended, what is left are pins of those who keep them, and of walks of
    // this mm that are under way, and those may come before or after.
    safeguard!(RefusalWaits; wait_for_walks(tables, page));
    find_pinned(tables, first, end)
}

/// Returns when all lockless walks of this moment have ended.
pub(super) fn wait_for_walks<K: Env>(tables: &Tables<'_, K>, page: PageAddr) {
    tables.flush(FlushRange::Pages { first: page, pages: 1 });
    tables.env().read_side().synchronize();
}

/// The first page whose frame has pins of as many as one step looks at, and how far that is.
pub(super) fn find_pinned<K: Env>(
    tables: &Tables<'_, K>,
    first: PageAddr,
    end: PageAddr,
) -> Result<(Option<PageAddr>, PageAddr), TableError> {
    let (mut cursor, mut places) = (Cursor::new(first, end), 0);
    while let Some(chunk) = cursor.next_chunk(tables)? {
        for i in 0..chunk.count {
            let entry = tables.load(chunk.at(i));
            let frames = tables.env().frames();
            let counted = entry.has_frame() && !entry.is_special();
            let frame = counted.then(|| frames.frame(entry.leaf_frame(chunk.size))).flatten();
            if frame.is_some_and(|frame| frame.snapshot().pins != 0) {
                return Ok((Some(chunk.page_at(i)), chunk.page_at(i)));
            }
        }
        places += chunk.cost();
        if places >= MOST_PLACES {
            return Ok((None, chunk.end()));
        }
    }
    Ok((None, end))
}
