//! Relocation: private pages get other frames, with the same bytes, the same rights and the same dirty bits.
//!
//! Up to 32 base pages side by side at a time: the new frames are taken with nothing owned, the entries are owned by trying alone, each
//! old frame is frozen in the step that sees that its entry has the only reference, one flush goes out for all, and then the bytes
//! are copied and the new frames published. Whoever meets the entries meanwhile waits for that; so no entry says "moving", and a
//! page that is pinned, or that anybody else refers to, keeps its frame, and its entry comes back.

use crate::addr::{PageAddr, Pfn};
use crate::arch::{Entry, LeafSize};
use crate::env::{Env, FrameRequest, FrameTable, FreedRun, Mm, OwnedFrame, PhysMap, Zone, bug_caught};
use crate::frame::{CountError, FrameKind};
use crate::paging::{Cursor, TableError, Tables};

/// The most pages for which others wait at a time: fewer than where nothing is copied meanwhile.
const MOST: usize = 32;

/// What a relocation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Relocated {
    /// Pages that have another frame now.
    pub pages: u64,
    /// Pages that keep theirs since they are pinned.
    pub pinned_pages: u64,
    /// Pages that keep theirs since somebody else refers to it: another address space, a slot, a get, a walk or a fault of this moment.
    pub shared_pages: u64,
}

/// What a page is to a relocation, as far as can be seen before its entry is owned.
enum Look {
    /// It can go.
    Moves,
    Pinned,
    Shared,
    /// No private page, or one that stays.
    Other,
}

/// Gives the first pages of a part of a private VMA that `leave` frames in `zone` instead; where to go on.
///
/// # Errors
/// [`TableError::NoMemory`]: there is no frame for the next such page, and none was moved by this call. [`TableError::Malformed`].
///
/// # Safety
/// The part lies in a private VMA of this mm, whose mm lock the caller holds, shared at least.
#[cold]
#[inline(never)]
pub(crate) unsafe fn relocate_some<K: Env>(
    mm: &Mm<K>,
    (first, end): (PageAddr, PageAddr),
    zone: Zone,
    leave: impl Fn(Pfn) -> bool,
    out: &mut Relocated,
) -> Result<PageAddr, TableError> {
    // SAFETY: the caller holds the mm lock.
    let mut tables = unsafe { Tables::under_mm_lock(mm) };
    let Some(chunk) = Cursor::new(first, end).next_chunk(&tables)? else { return Ok(end) };
    if chunk.size != LeafSize::Size4KiB {
        return Ok(chunk.end());
    }
    let mut moving = Moving::new(mm.env());
    let mut from = 0;
    for i in 0..chunk.count {
        let entry = tables.load(chunk.at(i));
        match look(mm.env(), entry, &leave) {
            Look::Moves if moving.count < MOST => {
                if !moving.prepare(entry, zone) {
                    break;
                }
            }
            _ if moving.count != 0 => break,
            Look::Moves | Look::Other => {}
            Look::Pinned => out.pinned_pages += 1,
            Look::Shared => out.shared_pages += 1,
        }
        if moving.count == 0 {
            from = i + 1;
        }
    }
    if moving.count == 0 {
        return if from == chunk.count { Ok(chunk.end()) } else { Err(TableError::NoMemory) };
    }
    let count = moving.count;
    // SAFETY: the places were found under this lock, in one table, and held leaves; published below.
    let broken = unsafe { tables.break_run(chunk.at(from), chunk.page_at(from), &mut moving.entries[..count]) };
    let taken = broken.count();
    moving.freeze(taken, out);
    let settled = broken.flush();
    moving.copy(taken);
    // SAFETY: each is the leaf that was taken, with its reference, or the same leaf of a frame of its own, which is exclusive.
    unsafe { settled.publish(&moving.new) };
    out.pages += moving.finish(taken);
    if taken == 0 {
        // Another CPU has changed it, and may be about to again: that is left to whoever comes next.
        out.shared_pages += 1;
    }
    Ok(chunk.page_at(from + taken.max(1) as u64))
}

fn look<K: Env>(env: &K, entry: Entry, leave: &impl Fn(Pfn) -> bool) -> Look {
    if entry.is_owned() {
        return Look::Shared;
    }
    let pfn = entry.leaf_frame(LeafSize::Size4KiB);
    let Some(frame) = env.frames().frame(pfn).filter(|_| entry.is_ordinary() && leave(pfn)) else { return Look::Other };
    let word = frame.word.snapshot();
    match (word.kind, word.pins, word.refs) {
        (FrameKind::Anonymous, 0, 1) if word.order == 0 => Look::Moves,
        (FrameKind::Anonymous, 0, _) => Look::Shared,
        (FrameKind::Anonymous, ..) => Look::Pinned,
        _ => Look::Other,
    }
}

/// Pages on their way. Dropped, the new frames that were not published are given back.
struct Moving<'k, K: Env> {
    env: &'k K,
    /// What the entries were, and are to be.
    entries: [Entry; MOST],
    new: [Entry; MOST],
    copies: [Option<OwnedFrame<'k, K>>; MOST],
    count: usize,
}

impl<'k, K: Env> Moving<'k, K> {
    fn new(env: &'k K) -> Self {
        let copies = [const { None }; MOST];
        Self { env, entries: [Entry::EMPTY; MOST], new: [Entry::EMPTY; MOST], copies, count: 0 }
    }

    /// A frame for the page of `entry`. False: there is none.
    fn prepare(&mut self, entry: Entry, zone: Zone) -> bool {
        let Some(copy) = OwnedFrame::allocate(self.env, FrameRequest { order: 0, zone }) else { return false };
        self.entries[self.count] = entry;
        self.copies[self.count] = Some(copy);
        self.count += 1;
        true
    }

    /// Freezes the first `taken` frames, whose entries are owned; one that is not the entry's alone stays.
    fn freeze(&mut self, taken: usize, out: &mut Relocated) {
        for ((entry, new), copy) in self.entries.iter().zip(&mut self.new).zip(&self.copies).take(taken) {
            *new = *entry;
            let Some(frame) = self.env.frames().frame(entry.leaf_frame(LeafSize::Size4KiB)) else { continue };
            match (frame.word.try_freeze(1), copy) {
                (Ok(()), Some(copy)) => *new = entry.with_frame(copy.frame(), LeafSize::Size4KiB),
                (Err(CountError::Pinned), _) => out.pinned_pages += 1,
                _ => out.shared_pages += 1,
            }
        }
    }

    /// The pages that move, of the first `taken`, which no CPU can reach any more: their old and their new frames.
    fn moved(&self, taken: usize) -> impl Iterator<Item = (Pfn, Pfn)> + '_ {
        let frames =
            |(old, new): (&Entry, &Entry)| (old.leaf_frame(LeafSize::Size4KiB), new.leaf_frame(LeafSize::Size4KiB));
        self.entries.iter().zip(&self.new).take(taken).map(frames).filter(|(old, new)| old != new)
    }

    /// Gives the new frames what the old ones have: their bytes, and whether they were written.
    fn copy(&self, taken: usize) {
        let env = self.env;
        for (old, new) in self.moved(taken) {
            // SAFETY: the old frame is frozen, with the reference of the entry, which is owned; the new one is nobody's yet.
            unsafe { env.phys_map().copy_frames(old, new, 0) };
            let word = |pfn| env.frames().frame(pfn).map(|frame| &frame.word);
            if word(old).is_some_and(|word| word.snapshot().dirty) {
                _ = word(new).map(|word| word.mark_dirty());
            }
        }
    }

    /// Leaves the new frames, which are published, to their entries, and gives the old ones back. How many they were.
    fn finish(mut self, taken: usize) -> u64 {
        let mut pages = 0;
        let mut freed = FreedRun::new(self.env);
        for (old, _) in self.moved(taken) {
            pages += 1;
            match self.env.frames().frame(old).map(|frame| frame.word.unfreeze(1).and_then(|()| frame.word.put())) {
                Some(outcome) => _ = freed.release(old, outcome),
                None => bug_caught(self.env),
            }
        }
        for ((old, new), copy) in self.entries.iter().zip(&self.new).zip(&mut self.copies).take(taken) {
            if old != new {
                _ = copy.take().map(OwnedFrame::into_entry);
            }
        }
        pages
    }
}
