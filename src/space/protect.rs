//! Changing the rights of mapped pages.

use core::fmt;

use super::zap::reject_split_leaves;
use crate::addr::{PageAddr, UserRange};
use crate::arch::{Entry, LeafSize};
use crate::env::{Env, FlushRange, FrameTable, Mm, ReadSide};
use crate::errno::{EBUSY, EFAULT, EINVAL};
use crate::paging::{Chunk, Cursor, TableError, Tables};
use crate::primitive::safeguard;
use crate::rights::Rights;
use crate::vma::{Backing, Vma};

/// What protect does about pinned pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ProtectPolicy {
    /// Rights are user code's; a device keeps what it was given (as on Linux).
    #[default]
    Allow,
    /// Taking the right to write, or all rights, from a VMA's page that is pinned, for reading or writing, is refused. A pin
    /// that is being taken at the same moment may come before or after; what a walker of another mm holds for a moment
    /// does not count.
    RefusePinned,
}

/// Why rights were not changed. Nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtectError {
    /// The range begins or ends inside a large leaf.
    LargeLeaf,
    /// The page is pinned and the policy says no.
    Pinned(PageAddr),
    /// Somebody else damaged the tables.
    MalformedTable,
}

impl ProtectError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::LargeLeaf => EINVAL,
            Self::Pinned(_) => EBUSY,
            Self::MalformedTable => EFAULT,
        }
    }
}

impl fmt::Display for ProtectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LargeLeaf => f.write_str("the range begins or ends inside a large leaf"),
            Self::Pinned(page) => write!(f, "the page at {:#x} is pinned", page.address()),
            Self::MalformedTable => f.write_str("the page tables are malformed"),
        }
    }
}

impl core::error::Error for ProtectError {}

impl From<TableError> for ProtectError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::LargeLeaf => Self::LargeLeaf,
            TableError::Malformed | TableError::NoMemory => Self::MalformedTable,
        }
    }
}

/// Gives the mapped pages of `range`, all of which lie in `vmas`, the rights `rights`; their protection keys stay. When
/// this returns, every CPU obeys.
///
/// The right to write is put into an entry at once only where the frame is `EXCLUSIVE` (INV-1); elsewhere the first
/// write faults and decides.
///
/// # Errors
/// [`ProtectError`]: nothing was changed.
///
/// # Safety
/// The VMAs are those of this mm ([`Vmas`](crate::Vmas)), and the caller holds its mm lock exclusively.
pub unsafe fn protect_pages<'a, K: Env>(
    mm: &Mm<K>,
    range: UserRange,
    vmas: impl IntoIterator<Item = &'a Vma> + Clone,
    rights: Rights,
    policy: ProtectPolicy,
) -> Result<(), ProtectError> {
    let (first, end) = (range.first_page(), range.end_page());
    // SAFETY: the caller holds the mm lock.
    let mut tables = unsafe { Tables::under_mm_lock(mm) };
    reject_split_leaves(&tables, first, end)?;
    if policy == ProtectPolicy::RefusePinned {
        reject_pinned(&tables, (first, end), vmas.clone(), rights)?;
    }
    let mut weakened = false;
    for vma in vmas {
        let change = Change { rights, key: vma.key(), backing: vma.backing() };
        let mut cursor = Cursor::new(vma.start().max(first), vma.end().min(end));
        while let Some(chunk) = cursor.next_chunk(&tables)? {
            weakened |= change.apply(&mut tables, chunk);
        }
    }
    if safeguard!(FlushAfterProtect => weakened) {
        tables.flush(FlushRange::Leaves { first, pages: first.pages_to(end) });
    }
    Ok(())
}

fn reject_pinned<'a, K: Env>(
    tables: &Tables<'_, K>,
    (first, end): (PageAddr, PageAddr),
    vmas: impl IntoIterator<Item = &'a Vma> + Clone,
    rights: Rights,
) -> Result<(), ProtectError> {
    if find_pinned(tables, (first, end), vmas.clone(), rights)?.is_none() {
        return Ok(());
    }
    // It may be no pin of this mm. A lockless walker that found the frame by an entry of its former mm holds it until it
    // has read that entry again. Such a walk began before the frame was this mm's: one that begins now cannot find the old
    // entry. So when all walks of this moment have ended, what is left are pins of those who keep them, and of walks of
    // this mm that are under way, and those may come before or after.
    safeguard!(RefusalWaits; {
        tables.flush(FlushRange::Pages { first, pages: 1 });
        tables.env().read_side().synchronize();
    });
    find_pinned(tables, (first, end), vmas, rights)?.map_or(Ok(()), |page| Err(ProtectError::Pinned(page)))
}

/// The first page of the range that is pinned and would lose a right with `rights`.
fn find_pinned<'a, K: Env>(
    tables: &Tables<'_, K>,
    (first, end): (PageAddr, PageAddr),
    vmas: impl IntoIterator<Item = &'a Vma>,
    rights: Rights,
) -> Result<Option<PageAddr>, TableError> {
    // The right is the VMA's. An entry may be read-only where the VMA is not: a read pin leaves it so.
    let loses = |vma: &&Vma| {
        let writes = vma.rights().contains(Rights::WRITE) && !rights.contains(Rights::WRITE);
        writes || (rights.is_empty() && !vma.rights().is_empty())
    };
    for vma in vmas.into_iter().filter(loses) {
        let mut cursor = Cursor::new(vma.start().max(first), vma.end().min(end));
        while let Some(chunk) = cursor.next_chunk(tables)? {
            for i in 0..chunk.count {
                let entry = tables.load(chunk.at(i));
                let frames = tables.env().frames();
                let counted = entry.has_frame() && !entry.is_special();
                let frame = counted.then(|| frames.frame(entry.leaf_frame(chunk.size))).flatten();
                if frame.is_some_and(|frame| frame.snapshot().pins != 0) {
                    return Ok(Some(chunk.page_at(i)));
                }
            }
        }
    }
    Ok(None)
}

struct Change {
    rights: Rights,
    key: u8,
    backing: Backing,
}

impl Change {
    /// Changes the entries of a chunk; whether some lost a right that a TLB may still grant.
    #[inline]
    fn apply<K: Env>(&self, tables: &mut Tables<'_, K>, chunk: Chunk) -> bool {
        let mut weakened = false;
        for i in 0..chunk.count {
            let at = chunk.at(i);
            let old = tables.load(at);
            if !old.has_frame() {
                continue;
            }
            let may_write = self.may_write(tables, old, chunk.size);
            let new = self.entry(old, may_write);
            if new != old {
                weakened |= old.is_present();
                // SAFETY: read under this lock; the frame stays, and W is added only for an exclusive frame or one
                // that is not counted.
                unsafe { tables.adjust(at, chunk.size, old, |seen| self.entry(seen, may_write)) };
            }
        }
        weakened
    }

    /// Whether the entry may permit writes without a fault.
    #[inline]
    fn may_write<K: Env>(&self, tables: &Tables<'_, K>, entry: Entry, size: LeafSize) -> bool {
        if !self.rights.contains(Rights::WRITE) {
            return false;
        }
        if entry.is_special() {
            return self.backing.is_foreign();
        }
        entry.is_writable()
            || tables.env().frames().frame(entry.leaf_frame(size)).is_some_and(|frame| frame.snapshot().exclusive)
    }

    #[inline(always)]
    fn entry(&self, old: Entry, may_write: bool) -> Entry {
        if self.rights.is_empty() {
            return old.write_protected().prot_none();
        }
        let entry = if old.is_present() { old } else { old.rights_restored() };
        entry.with_write(may_write).with_execute(self.rights.contains(Rights::EXECUTE)).with_key(self.key)
    }
}
