//! Fork: share what is not pinned, copy what is, or leave everything as it was.
//!
//! One pass over the parent's entries. Sharing a frame is one atomic step that refuses if the frame is pinned at that
//! moment, so a lockless pinner that comes in the middle either is seen, and the child gets a copy, or finds the frame
//! shared and goes to the slow path, where it waits for the mm lock that fork holds.
//!
//! When memory runs out the pass is undone exactly (INV-14). The child's own tables are the log: each entry says what
//! the share found. Undoing cannot fail: the child has never run, and nobody else can have changed the parent's entries
//! while fork holds the mm lock. This is instead of planning first: a plan is out of date as soon as a pinner races with it.

use core::fmt;

use crate::addr::Pfn;
use crate::arch::{Entry, LeafSize};
use crate::env::{
    EntryAddr, Env, ExtraParts, FlushRange, FrameRequest, FrameTable, Mm, OwnedFrame, PhysMap, Reentered,
};
use crate::env::{TokenError, Tokens, bug_caught, counted_frame, is_part, release};
use crate::errno::{EAGAIN, EDEADLK, EFAULT, ENOMEM};
use crate::frame::{CountError, FrameKind};
use crate::paging::{Chunk, Cursor, TableError, Tables};
use crate::primitive::safeguard;
use crate::vma::Vma;

/// What fork did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Forked {
    /// Base pages shared with the child.
    pub shared_pages: u64,
    /// Base pages copied for the child at once, because they are pinned.
    pub copied_pages: u64,
}

/// Why fork failed. The parent has every right and every frame it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForkError {
    /// No memory for a table, a copy or a VMA.
    NoMemory,
    /// A frame's reference count is at its limit.
    CountOverflow,
    /// A frame is frozen by a migration or split; retry.
    Frozen,
    /// This CPU is inside a section of an mm lock: a bug in the kernel.
    Reentered,
    /// Somebody else damaged the tables.
    MalformedTable,
}

impl ForkError {
    /// The nearest Linux error number (positive).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::NoMemory | Self::CountOverflow => ENOMEM,
            Self::Frozen => EAGAIN,
            Self::Reentered => EDEADLK,
            Self::MalformedTable => EFAULT,
        }
    }
}

impl fmt::Display for ForkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMemory => "out of memory",
            Self::Reentered => return Reentered.fmt(f),
            Self::CountOverflow => "a frame's reference count is at its limit",
            Self::Frozen => "a frame is being migrated",
            Self::MalformedTable => "the page tables are malformed",
        })
    }
}

impl core::error::Error for ForkError {}

impl From<Reentered> for ForkError {
    fn from(_: Reentered) -> Self {
        Self::Reentered
    }
}

impl From<TableError> for ForkError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::NoMemory => Self::NoMemory,
            TableError::Malformed | TableError::LargeLeaf => Self::MalformedTable,
        }
    }
}

impl From<TokenError> for ForkError {
    fn from(_: TokenError) -> Self {
        Self::NoMemory
    }
}

impl From<CountError> for ForkError {
    fn from(error: CountError) -> Self {
        match error {
            CountError::Overflow => Self::CountOverflow,
            CountError::Frozen => Self::Frozen,
            _ => Self::MalformedTable,
        }
    }
}

/// Gives the empty `child` the pages of `vmas` of `parent`, copied on write, except where their
/// [flags](crate::VmaFlags) say that it gets none.
///
/// When this returns, every CPU has acknowledged that the parent's entries are write-protected.
///
/// ```
/// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
/// # use pagepin::{*, fault::*, frame::*, paging::*, pin::*, space::*};
/// # let kernel = doc_kernel::kernel();
/// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// # space.map(0x10000, 0x4000, Rights::READ | Rights::WRITE)?;
/// # space.fault(Fault { address: 0x10123, access: Access::Write, key_denied: false, malformed_table: false })?;
///
/// let child = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four))?;
/// let vma = Vma::new(space.range(0x10000, 0x4000)?, Backing::Anonymous, Rights::READ | Rights::WRITE)?;
/// // SAFETY: one thread; nobody else has the spaces, the VMA is the parent's, and the child is empty.
/// let forked = unsafe { fork_vmas(space.mm(), child.mm(), [&vma]) }?;
/// assert_eq!(child.resident()?.shared, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ForkError`]: the parent is as it was; the child may have empty tables.
///
/// # Safety
/// The VMAs are those of the parent ([`Vmas`](crate::Vmas)), each once, and the caller holds the parent's mm lock
/// exclusively until this returns. The child has as many levels, maps nothing, and is in no CPU yet.
pub unsafe fn fork_vmas<'a, K: Env>(
    parent: &Mm<K>,
    child: &Mm<K>,
    vmas: impl IntoIterator<Item = &'a Vma> + Clone,
) -> Result<Forked, ForkError> {
    // SAFETY: the caller holds the parent's mm lock, and is the only one who has the child.
    let (tables, child) = unsafe { (Tables::under_mm_lock(parent), Tables::under_mm_lock(child)) };
    let mut fork = Fork { env: parent.env(), parent: tables, child, protected: false, forked: Forked::default() };
    for vma in vmas.clone().into_iter().filter(|vma| vma.pages_are_inherited()) {
        if let Err(error) = fork.share_vma(vma) {
            // VMAs after the failed one have nothing in the child.
            for vma in vmas.into_iter().filter(|vma| vma.pages_are_inherited()) {
                fork.undo_vma(vma);
            }
            return Err(error);
        }
    }
    if safeguard!(FlushAfterFork => fork.protected) {
        fork.parent.flush(FlushRange::Everything);
    }
    Ok(fork.forked)
}

struct Fork<'a, K: Env> {
    env: &'a K,
    parent: Tables<'a, K>,
    child: Tables<'a, K>,
    /// Some entry of the parent lost its W bit.
    protected: bool,
    forked: Forked,
}

impl<K: Env> Fork<'_, K> {
    fn share_vma(&mut self, vma: &Vma) -> Result<(), ForkError> {
        let mut cursor = Cursor::new(vma.start(), vma.end());
        while let Some(chunk) = cursor.next_chunk(&self.parent)? {
            self.share_chunk(chunk)?;
        }
        Ok(())
    }

    /// Takes back what the child got of `vma`, and gives the parent back what it had.
    fn undo_vma(&mut self, vma: &Vma) {
        let mut cursor = Cursor::new(vma.start(), vma.end());
        // The child's tables were made by this fork, so none is malformed.
        while let Ok(Some(chunk)) = cursor.next_chunk(&self.child) {
            // What was followed in the parent was followed before.
            let Ok(Some(shared)) = Cursor::new(chunk.page, vma.end()).next_chunk(&self.parent) else { continue };
            for i in 0..chunk.count {
                let at = chunk.at(i);
                let entry = self.child.load(at);
                if entry.is_empty() {
                    continue;
                }
                // SAFETY: nobody else has the child, so its table is alive; it has never run, so no CPU knows the entry.
                unsafe { self.env.phys_map().store_entry(at, Entry::EMPTY) };
                undo_entry(self.env, shared.at(i), self.parent.load(shared.at(i)), entry, chunk);
            }
        }
    }

    fn share_chunk(&mut self, chunk: Chunk) -> Result<(), ForkError> {
        // Nothing there: the child needs no table.
        if !(0..chunk.count).any(|i| !self.parent.load(chunk.at(i)).is_empty()) {
            return Ok(());
        }
        // SAFETY: the chunk lies in a VMA of the parent, and the child has as many levels.
        let place = unsafe { self.child.place(chunk.page, chunk.size) }?;
        // A large leaf that reaches over two VMAs is met in both, and shared once.
        if chunk.size != LeafSize::Size4KiB && !self.child.load(place).is_empty() {
            return Ok(());
        }
        let table = place.table();
        let (map, frames) = (self.env.phys_map(), self.env.frames());
        let mut done = 0;
        loop {
            let shared = share_leaves(map, frames, &chunk, table, done);
            self.protected |= shared.protected;
            self.forked.shared_pages += shared.count * chunk.size.pages();
            let Some((at, refusal)) = shared.stopped else { return Ok(()) };
            match refusal {
                Unshared::Count(CountError::Pinned) => self.copy_early(&chunk, table, at)?,
                Unshared::Count(error) => return Err(error.into()),
                Unshared::NoWord => return Err(ForkError::MalformedTable),
                Unshared::Elsewhere => self.share_elsewhere(&chunk, table, at)?,
            }
            done = at + 1;
        }
    }

    /// The child holds the parent's token as well, and has as much of a block as the parent.
    #[cold]
    fn share_elsewhere(&mut self, chunk: &Chunk, table: Pfn, i: u64) -> Result<(), ForkError> {
        let (at, entry) = (EntryAddr::new(table, chunk.index + i), self.parent.load(chunk.at(i)));
        if let Some(token) = entry.as_token() {
            self.env.extras().tokens().duplicate(token)?;
        } else {
            let (_, head) = counted_frame(self.env, entry, chunk.size).ok_or(ForkError::MalformedTable)?;
            if !is_part(entry, chunk.size, head) {
                return self.share_marked(chunk, table, i);
            }
            head.word.try_get()?;
        }
        // SAFETY: nobody else has the child, so the table just found is alive; the child is empty there; a token is not present, and a part
        // of a block is read-only, with the reference just taken.
        unsafe { self.env.phys_map().store_entry(at, entry) };
        self.forked.shared_pages += chunk.size.pages();
        Ok(())
    }

    /// A page of the parent's own that nobody pins is shared as any other. One that is borrowed the child borrows when it wants it.
    fn share_marked(&mut self, chunk: &Chunk, table: Pfn, i: u64) -> Result<(), ForkError> {
        let (at, child_at) = (chunk.at(i), EntryAddr::new(table, chunk.index + i));
        let entry = self.parent.load(at);
        let frame = self.env.frames().frame(entry.leaf_frame(chunk.size)).ok_or(ForkError::MalformedTable)?;
        if frame.word.kind() != FrameKind::Anonymous {
            return Ok(());
        }
        let shared = match frame.word.try_share_with_child() {
            Ok(shared) => shared,
            // By a walk that has come too late, and will find that out.
            Err(CountError::Pinned) => return self.copy_early(chunk, table, i),
            Err(error) => return Err(error.into()),
        };
        let map = self.env.phys_map();
        if entry.is_writable() {
            self.protected = true;
            // SAFETY: the parent's mm lock is held exclusively, so its table is alive.
            unsafe { map.change_entry(at, Entry::WRITE_PROTECT) };
        }
        // SAFETY: nobody else has the child, so its table is alive; the child is empty there; the entry is read-only and owns the
        // reference just taken.
        unsafe { map.store_entry(child_at, entry.for_child(shared).borrowed()) };
        self.forked.shared_pages += chunk.size.pages();
        Ok(())
    }

    /// The parent keeps the pinned frame (INV-3); the child gets the bytes of this moment. A device may be writing
    /// them: then the copy holds a part of what it wrote.
    #[cold]
    fn copy_early(&mut self, chunk: &Chunk, table: Pfn, i: u64) -> Result<(), ForkError> {
        let entry = self.parent.load(chunk.at(i));
        let from = entry.leaf_frame(chunk.size);
        // SAFETY: the parent's entry keeps the block allocated, and it is a leaf of this size.
        let copy = unsafe { OwnedFrame::copied(self.env, from, FrameRequest::movable(chunk.size.order())) }
            .ok_or(ForkError::NoMemory)?;
        self.forked.copied_pages += chunk.size.pages();
        let marked = entry.is_borrowed();
        let entry = entry.with_frame(copy.into_entry(), chunk.size);
        let entry = if marked { entry.borrowed() } else { entry };
        self.child.before_execute(Entry::EMPTY, entry, chunk.size);
        // SAFETY: nobody else has the child, so the table just found is alive; the child is empty there; the entry owns the
        // copy, which is exclusive.
        unsafe { self.env.phys_map().store_entry(EntryAddr::new(table, chunk.index + i), entry) };
        Ok(())
    }
}

fn undo_entry<K: Env>(env: &K, parent_at: EntryAddr, parent: Entry, child: Entry, chunk: Chunk) {
    if let Some(token) = child.as_token() {
        env.extras().tokens().release(env, token);
    }
    if let Some((head, frame)) =
        counted_frame(env, child, chunk.size).filter(|(_, head)| is_part(child, chunk.size, head))
    {
        release(env, head, frame.word.put());
        return;
    }
    if !child.is_counted() {
        return;
    }
    let pfn = child.leaf_frame(chunk.size);
    let Some(frame) = env.frames().frame(pfn) else { return };
    if parent.leaf_frame(chunk.size) != pfn {
        // An early copy: the child's entry held its only reference.
        release(env, pfn, frame.word.put());
        return;
    }
    let (shared, writable) = child.fork_note();
    if frame.word.unshare_with_child(shared).is_err() {
        bug_caught(env);
    }
    if writable {
        // SAFETY: the place was found under the parent's mm lock, which is held exclusively, and its frame is exclusive again, as
        // it was when the entry was writable.
        unsafe { env.phys_map().change_entry(parent_at, Entry::PERMIT_WRITES) };
    }
}

/// What [`share_leaves`] did.
struct Shares {
    count: u64,
    /// Some entry of the parent lost its W bit.
    protected: bool,
    /// The first place that was not shared, and why.
    stopped: Option<(u64, Unshared)>,
}

/// Why a place is not shared like most.
enum Unshared {
    /// The frame's word refuses.
    Count(CountError),
    /// The frame has no word.
    NoWord,
    /// A token, or a page that is marked as borrowed.
    Elsewhere,
}

/// Shares the leaves of a chunk from place `first` on with the child, whose table is `table`. The parent's mm lock is held
/// exclusively, and nobody else has the child.
///
/// Outlined: see `take_entries` of the walker. The maps' fields stay in registers across the loop only if the maps are arguments.
#[inline(never)]
fn share_leaves<P: PhysMap, F: FrameTable>(map: &P, frames: &F, chunk: &Chunk, table: Pfn, first: u64) -> Shares {
    // What is usual is not counted: the places that are not shared are, and the rights of all entries are mixed.
    let (mut others, mut rights) = (0, Entry::EMPTY);
    let mut i = first;
    let stopped = loop {
        if i == chunk.count {
            break None;
        }
        let (at, child_at) = (chunk.at(i), EntryAddr::new(table, chunk.index + i));
        // SAFETY: the parent's mm lock is held exclusively, so its table is alive; a chunk lies within one table.
        let entry = unsafe { map.load_entry(at) };
        if entry.has_frame() && !entry.is_special() {
            let Some(frame) = frames.frame(entry.leaf_frame(chunk.size)) else { break Some((i, Unshared::NoWord)) };
            let shared = match frame.word.try_share_with_child() {
                Ok(shared) => shared,
                Err(error) => break Some((i, Unshared::Count(error))),
            };
            if entry.is_writable() {
                // Not a compare-and-exchange: hardware may set accessed or dirty at any time, and nothing else changes.
                // SAFETY: as above.
                unsafe { map.change_entry(at, Entry::WRITE_PROTECT) };
            }
            rights = rights.mixed_with(entry);
            // SAFETY: nobody else has the child, so its table is alive; the child is empty there; the entry is read-only and
            // owns the reference just taken.
            unsafe { map.store_entry(child_at, entry.for_child(shared)) };
        } else {
            if entry.is_token() || entry.is_borrowed() {
                break Some((i, Unshared::Elsewhere));
            }
            others += 1;
            // SAFETY: as for a counted leaf; nothing is counted for a special entry or none.
            unsafe { map.store_entry(child_at, entry) };
        }
        i += 1;
    };
    Shares { count: i - first - others, protected: rights.is_writable(), stopped }
}
