//! Pages whose contents user space has given up (`MADV_FREE`): they stay until the kernel wants their frames, unless somebody writes to them first.
//!
//! *Giving up* marks the entry and makes it clean, and its frame with it: from the flush on, what user code writes sets the entry's dirty
//! bit again, and what the holder of a pin writes is noted in the frame when the pin ends. *Taking* owns the entry, freezes the frame in
//! the step that sees that nobody else refers to it, and looks at both notes then, when neither can change. So there is no fault on a page that is
//! used again, and no list of those that were given up: both operations go over a range, under the shared mm lock, up to 64 pages at a time.

use super::private_pages::is_private;
use super::{SpaceError, UserSpace};
use crate::addr::PageAddr;
use crate::arch::{Entry, LeafSize};
use crate::env::{Env, ExtraParts, FrameTable, FreedRun, Mm, Tokens, bug_caught};
use crate::frame::{CountError, FrameKind};
use crate::paging::{Cursor, TableError, Tables};
use crate::primitive::safeguard;
use crate::vma::{Backing, Vma};

/// The most pages for which others wait at a time.
const MOST: usize = 64;

/// What was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LazilyFreed {
    /// Pages that the kernel may take, those that were elsewhere and have gone at once among them.
    pub pages: u64,
    /// Pages that stay as they are, since somebody else refers to the frame: another address space, or a slot.
    pub shared_pages: u64,
}

/// What became of pages that had been given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reclaimed {
    /// Pages that are gone: the next access finds zeroes.
    pub pages: u64,
    /// Pages that are their process's again, since they were written.
    pub written_pages: u64,
    /// Pages that stay since they are pinned.
    pub pinned_pages: u64,
    /// Pages that stay since somebody else refers to the frame: another address space, a get, a walk of this moment.
    pub shared_pages: u64,
}

impl<K: Env, C> UserSpace<K, C> {
    /// Gives up the contents of a range (`MADV_FREE`): until it is written, each page may at any time read as zeroes. What is pinned stays
    /// for as long as it is, and what its holder writes is kept. Pages that are shared with another address space stay as
    /// they are, and so do large leaves, those that have no rights at the moment, memory that is not anonymous, and holes. Faults and pins
    /// of other threads go on beside it.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, pin::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.map(0x10000, 16384, Rights::READ | Rights::WRITE)?;
    /// drop(space.pin(Write, space.range(0x10000, 16384).unwrap(), [PhysRun::default(); 4]).unwrap()); // four pages are there
    /// assert_eq!(space.free_lazily(0x10000, 16384)?.pages, 4);
    /// drop(space.pin(Write, space.range(0x10000, 4096).unwrap(), [PhysRun::default(); 1]).unwrap()); // and one is used again
    /// let taken = space.reclaim_freed(0x10000, 16384)?; // under memory pressure
    /// assert_eq!((taken.pages, taken.written_pages), (3, 1));
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::Range`], `MalformedTable`, `Reentered`.
    pub fn free_lazily(&self, start: u64, length: u64) -> Result<LazilyFreed, SpaceError> {
        let mut freed = LazilyFreed::default();
        self.for_parts((start, length), is_anonymous, |mm, part| {
            // SAFETY: such a part, in such a section.
            Ok(Some(unsafe { free_some(mm, part, &mut freed) }?))
        })?;
        Ok(freed)
    }

    /// Takes the frames of those pages of a range that were given up and not written since. What a kernel does first when it runs out of memory: nothing
    /// has to be written anywhere.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, fault::*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.map(0x10000, 16384, Rights::READ | Rights::WRITE)?;
    /// let write = Fault { address: 0x10000, access: Access::Write, key_denied: false, malformed_table: false };
    /// space.fault(write).unwrap();
    /// assert_eq!(space.reclaim_freed(0x10000, 16384)?, Reclaimed::default(), "nobody gave it up");
    /// space.free_lazily(0x10000, 4096)?;
    /// assert_eq!(space.reclaim_freed(0x10000, 16384)?.pages, 1);
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::Range`], `MalformedTable`, `Reentered`.
    pub fn reclaim_freed(&self, start: u64, length: u64) -> Result<Reclaimed, SpaceError> {
        let mut reclaimed = Reclaimed::default();
        self.for_parts((start, length), is_anonymous, |mm, part| {
            // SAFETY: such a part, in such a section.
            Ok(Some(unsafe { reclaim_some(mm, part, &mut reclaimed) }?))
        })?;
        Ok(reclaimed)
    }
}

fn is_anonymous(vma: &Vma) -> bool {
    vma.backing() == Backing::Anonymous && is_private(vma)
}

/// Gives up some of the pages of a part of an anonymous VMA, from its first on; where to go on.
///
/// # Safety
/// The part lies in a VMA of this mm, whose mm lock the caller holds, shared at least.
unsafe fn free_some<K: Env>(
    mm: &Mm<K>,
    part: (PageAddr, PageAddr),
    freed: &mut LazilyFreed,
) -> Result<PageAddr, TableError> {
    let env = mm.env();
    let is_wanted = |entry: Entry| entry.is_token() || is_own(env, entry);
    let mut run = Run::new(part);
    // SAFETY: forwarded from the caller; an entry becomes the same leaf, which may be written no more than before, or nothing, and what it
    // held is given back.
    unsafe {
        run.replace(mm, is_wanted, |entry| {
            let frame = env.frames().frame(entry.leaf_frame(LeafSize::Size4KiB));
            match frame {
                _ if entry.is_token() => Entry::EMPTY,
                // Of what others have, too, nothing can be said in this entry.
                Some(frame) if frame.word.is_own_or_claimed() && frame.word.take_dirty().is_ok() => {
                    entry.lazily_freed()
                }
                _ => entry,
            }
        })?;
    }
    for (old, new) in run.replaced() {
        match old.as_token() {
            Some(token) => env.extras().tokens().release(env, token),
            None if new.is_lazily_freed() => {}
            None => {
                freed.shared_pages += 1;
                continue;
            }
        }
        freed.pages += 1;
    }
    Ok(run.reached)
}

/// Takes some of the pages of a part of an anonymous VMA that were given up; where to go on.
///
/// # Safety
/// As [`free_some`].
unsafe fn reclaim_some<K: Env>(
    mm: &Mm<K>,
    part: (PageAddr, PageAddr),
    reclaimed: &mut Reclaimed,
) -> Result<PageAddr, TableError> {
    let env = mm.env();
    let word = |entry: Entry| env.frames().frame(entry.leaf_frame(LeafSize::Size4KiB)).map(|frame| &frame.word);
    let is_wanted = |entry: Entry| entry.is_lazily_freed() && is_own(env, entry);
    let mut run = Run::new(part);
    // SAFETY: forwarded from the caller; an entry becomes nothing, and its frame, which is frozen, is given back; or it is the same leaf.
    unsafe {
        run.replace(mm, is_wanted, |entry| {
            let Some(word) = word(entry) else { return entry };
            match word.try_freeze(1) {
                // Neither note can change any more: the one was taken with the entry, and the frame is nobody's.
                Ok(()) if !entry.is_dirty() && !safeguard!(FreedAsksItsFrame => word.snapshot().dirty) => {
                    return Entry::EMPTY;
                }
                Ok(()) => {
                    if word.unfreeze(1).is_err() {
                        bug_caught(env);
                    }
                    reclaimed.written_pages += 1;
                    return entry.kept();
                }
                Err(CountError::Pinned) => reclaimed.pinned_pages += 1,
                Err(_) => reclaimed.shared_pages += 1,
            }
            entry
        })?;
    }
    let mut freed = FreedRun::new(env);
    for (old, _) in run.replaced().filter(|(_, new)| new.is_empty()) {
        reclaimed.pages += 1;
        match word(old).map(|word| word.unfreeze(1).and_then(|()| word.put())) {
            Some(outcome) => _ = freed.release(old.leaf_frame(LeafSize::Size4KiB), outcome),
            None => bug_caught(env),
        }
    }
    Ok(run.reached)
}

/// Whether an entry maps a base page of private memory, as far as it and its frame's kind say.
fn is_own<K: Env>(env: &K, entry: Entry) -> bool {
    let word = || env.frames().frame(entry.leaf_frame(LeafSize::Size4KiB)).map(|frame| frame.word.snapshot());
    entry.is_ordinary() && word().is_some_and(|word| word.order == 0 && word.kind == FrameKind::Anonymous)
}

/// Entries side by side that are replaced together.
struct Run {
    part: (PageAddr, PageAddr),
    /// What they were, and are now.
    old: [Entry; MOST],
    new: [Entry; MOST],
    taken: usize,
    /// Where to go on.
    reached: PageAddr,
}

impl Run {
    fn new(part: (PageAddr, PageAddr)) -> Self {
        Self { part, old: [Entry::EMPTY; MOST], new: [Entry::EMPTY; MOST], taken: 0, reached: part.1 }
    }

    /// Owns the first entries side by side that are wanted, and replaces each by what `judge` says of it, with one flush for all.
    ///
    /// # Safety
    /// As [`free_some`]. What `judge` returns is the same leaf, with at most its rights, or nothing; then the caller has the reference, or the token.
    unsafe fn replace<K: Env>(
        &mut self,
        mm: &Mm<K>,
        is_wanted: impl Fn(Entry) -> bool,
        judge: impl FnMut(Entry) -> Entry,
    ) -> Result<(), TableError> {
        // SAFETY: the caller holds the mm lock.
        let mut tables = unsafe { Tables::under_mm_lock(mm) };
        let Some(chunk) = Cursor::new(self.part.0, self.part.1).next_chunk(&tables)? else { return Ok(()) };
        self.reached = chunk.end();
        if chunk.size != LeafSize::Size4KiB {
            return Ok(());
        }
        let Some((from, entries)) = chunk.first_run(&tables, is_wanted) else { return Ok(()) };
        let mut count = 0;
        for (place, entry) in self.old.iter_mut().zip(entries) {
            *place = entry;
            count += 1;
        }
        // SAFETY: the places were found under this lock, in one table, and held these; published below.
        let broken = unsafe { tables.break_run(chunk.at(from), chunk.page_at(from), &mut self.old[..count]) };
        self.taken = broken.count();
        self.old[..self.taken].iter().copied().map(judge).zip(&mut self.new).for_each(|(new, place)| *place = new);
        let settled = broken.flush();
        // SAFETY: the caller says so.
        unsafe { settled.publish(&self.new) };
        // An entry that another CPU has changed is left to the next round, or to whoever comes next.
        self.reached = chunk.page_at(from + self.taken.max(1) as u64);
        Ok(())
    }

    fn replaced(&self) -> impl Iterator<Item = (Entry, Entry)> + '_ {
        self.old.iter().copied().zip(self.new.iter().copied()).take(self.taken)
    }
}
