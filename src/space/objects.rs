//! VMAs that show pages of the kernel's [`Objects`], and what an object does to the address spaces that show it.
//!
//! There is no map from frames to entries. An object knows its frames, a kernel which address spaces show an object, and an address space
//! its VMAs: so each pass here goes forward through those of one address space. It takes the mm lock shared, so it may be made
//! while others fault; who publishes a page at the same moment asks afterwards whether it still is the object's.

use core::ops::Range;

use super::private_pages::maps_anonymous;
use super::vma_map::VmaMap;
use super::{Copies, SpaceError, Unmapped, UserSpace};
use crate::addr::{PageAddr, UserRange};
use crate::arch::{Entry, LeafSize};
use crate::env::{Env, ExtraParts, FrameTable, Objects, Tokens, bug_caught, counted_frame};
use crate::frame::FrameKind;
use crate::paging::{Chunk, Cursor, Settled, Slot, Tables};
use crate::primitive::safeguard;
use crate::vma::{Backing, MapOptions, ObjectId, Vma};

use spin::relax::RelaxStrategy;

/// Whose the writes to a mapping are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The object's (`MAP_SHARED`).
    Shared,
    /// This mm's (`MAP_PRIVATE`): the first write to a page, or pin, copies it.
    Private,
}

impl<K: Env, C> UserSpace<K, C> {
    /// Shows the object `id`, from its page `page` on. Pages are mapped when they are accessed.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// // This kernel has no objects.
    /// let shown = space.map_object(0x10000, 16384, ObjectId(1), 0, Sharing::Shared, Rights::READ);
    /// assert_eq!(shown, Err(SpaceError::NoObject));
    /// ```
    ///
    /// # Errors
    /// As [`UserSpace::map`]; `NoObject`, `PageOverflow`.
    pub fn map_object(
        &self,
        start: u64,
        length: u64,
        id: ObjectId,
        page: u32,
        sharing: Sharing,
        options: impl Into<MapOptions>,
    ) -> Result<(), SpaceError> {
        let range = UserRange::pages_only(self.mm.levels().user_half(), start, length)?;
        let backing = Backing::Object { id, page, shared: sharing == Sharing::Shared };
        let vma = Vma::new(range, backing, options)?;
        let mut vmas = self.vmas.write(self.env().extras())?;
        vmas.make_room(&vma)?;
        let objects = self.env().extras().objects();
        objects.mapped(id, vma.pages()).map_err(|_| SpaceError::NoObject)?;
        vmas.insert(vma);
        Ok(())
    }

    /// Takes pages of an object out of this address space, because the object has given them up: the second half of a truncation or of a hole that is
    /// punched. What private VMAs have copied of them goes, too, or stays, as `copies` says.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// // The file was cut off after its third page, and gives the others up.
    /// let gone = space.forget_object(ObjectId(1), 3..u32::MAX, Copies::Forget)?;
    /// assert_eq!(gone.pages, 0, "it is not shown here");
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::Reentered`], `MalformedTable`.
    pub fn forget_object(&self, id: ObjectId, pages: Range<u32>, copies: Copies) -> Result<Unmapped, SpaceError> {
        let mut gone = Unmapped::default();
        self.visit_object(id, &pages, |tables, slot, vma| {
            let entry = slot.entry;
            let is_objects =
                is_objects_page(tables.env(), entry, slot.size()) || (vma.backing().is_shared() && entry.is_counted());
            if !is_objects && !(copies == Copies::Forget && (entry.is_counted() || entry.is_token())) {
                return true;
            }
            let env = tables.env();
            // SAFETY: found under this lock, and it is a leaf or a token; published here and now.
            let Some(broken) = (unsafe { tables.break_leaf(slot) }) else { return false };
            if copies == Copies::Keep && maps_anonymous(env, entry) {
                broken.restore();
                return true;
            }
            let old = broken.flush().leave_empty();
            gone.pages += 1;
            match entry.as_token() {
                Some(token) => env.extras().tokens().release(env, token),
                None => {
                    let frame = old.frame();
                    if old.release(env) {
                        gone.pinned_pages += 1;
                        gone.still_pinned.add(slot.page, frame, 0);
                    }
                }
            }
            true
        })?;
        Ok(gone)
    }

    /// Write-protects pages of an object that are shared here, and notes in their frames which were written: what write-back does when it has
    /// [closed](crate::frame::FrameWord::try_close) them. The next write asks the object again.
    ///
    /// ```
    /// # mod doc_kernel { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine/doc_kernel.rs")); }
    /// # use pagepin::{*, space::*};
    /// # let kernel = doc_kernel::kernel();
    /// # let space = UserSpace::new(&kernel, SpaceOptions::without_kernel_half(Levels::Four)).unwrap();
    /// space.write_protect_object(ObjectId(1), 0..u32::MAX)?; // what was closed is asked about again before it is written
    /// # Ok::<(), SpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpaceError::Reentered`], `MalformedTable`.
    pub fn write_protect_object(&self, id: ObjectId, pages: Range<u32>) -> Result<(), SpaceError> {
        self.visit_object(id, &pages, |tables, slot, vma| {
            let entry = slot.entry;
            let was_written = entry.is_dirty() || (entry.is_present() && entry.is_writable());
            if !vma.backing().is_shared() || !entry.is_counted() || !was_written {
                return true;
            }
            // SAFETY: found under this lock, and it is a leaf; published here and now.
            let Some(broken) = (unsafe { tables.break_leaf(slot) }) else { return false };
            let entry = broken.entry();
            let settled: Settled<'_, '_, K> = broken.flush();
            // SAFETY: the same frame, without the right to write.
            unsafe { settled.weaken(entry.write_protected().cleaned()) };
            if entry.is_dirty() {
                let frame = tables.env().frames().frame(entry.leaf_frame(LeafSize::Size4KiB));
                if frame.is_none_or(|frame| frame.word.mark_dirty().is_err()) {
                    bug_caught(tables.env());
                }
            }
            true
        })
    }

    /// Runs `visit` for each entry that is not empty of the VMAs that show these pages of the object, with the mm lock held, shared. False: the
    /// entry is another by now.
    fn visit_object(
        &self,
        id: ObjectId,
        pages: &Range<u32>,
        mut visit: impl FnMut(&mut Tables<'_, K>, Slot, &Vma) -> bool,
    ) -> Result<(), SpaceError> {
        let half = self.mm.levels().user_half().range();
        let (mut next, end) = (half.first_page(), half.end_page());
        loop {
            let vmas = self.vmas.read(self.env().extras())?;
            let shows = |vma: &&Vma| part_of(vma, id, pages).is_some_and(|(_, stop)| stop > next);
            let Some(vma) = vmas.touching(next, end).find(shows) else { return Ok(()) };
            let Some((first, stop)) = part_of(vma, id, pages) else { return Ok(()) };
            // SAFETY: the mm lock is held, through `vmas`.
            let mut tables = unsafe { Tables::under_mm_lock(&self.mm) };
            // One table, and then others may have the lock.
            let mut cursor = Cursor::new(first.max(next), stop);
            next = match cursor.next_chunk(&tables)? {
                None => stop,
                Some(chunk) => {
                    visit_chunk(&mut tables, &chunk, vma, &mut visit);
                    chunk.end()
                }
            };
        }
    }

    /// Tells the objects that VMAs of a range are going.
    pub(super) fn tell_unmapped(&self, vmas: &VmaMap, first: PageAddr, end: PageAddr) {
        tell_unmapped(self.env(), vmas.touching(first, end), (first, end));
    }
}

/// Entries that others own are waited for: while they are, it is not known what they show.
fn visit_chunk<K: Env>(
    tables: &mut Tables<'_, K>,
    chunk: &Chunk,
    vma: &Vma,
    visit: &mut impl FnMut(&mut Tables<'_, K>, Slot, &Vma) -> bool,
) {
    for i in 0..chunk.count {
        loop {
            let entry = tables.load(chunk.at(i));
            let slot = Slot { at: chunk.at(i), entry, level: chunk.size.level(), page: chunk.page_at(i) };
            if safeguard!(OwnedIsWaitedFor => entry.is_owned()) {
                K::Relax::relax();
            } else if entry.is_empty() || chunk.size != LeafSize::Size4KiB || visit(tables, slot, vma) {
                break;
            }
        }
    }
}

/// The part of `vma` that shows these pages of the object.
fn part_of(vma: &Vma, id: ObjectId, pages: &Range<u32>) -> Option<(PageAddr, PageAddr)> {
    let (object, page) = vma.object_page(vma.start())?;
    let (from, to) = (u64::from(pages.start.max(page) - page), u64::from(pages.end.max(page) - page));
    let (first, stop) = (vma.start().offset(from.min(vma.pages())), vma.start().offset(to.min(vma.pages())));
    (object == id && first < stop).then_some((first, stop))
}

/// Tells the objects that so much of each VMA is not shown any more as lies in `first..end`.
pub(super) fn tell_unmapped<'a, K: Env>(
    env: &K,
    vmas: impl Iterator<Item = &'a Vma>,
    (first, end): (PageAddr, PageAddr),
) {
    for vma in vmas {
        if let Some((id, _)) = vma.object_page(vma.start()) {
            env.extras().objects().unmapped(env, id, vma.start().max(first).pages_to(vma.end().min(end)));
        }
    }
}

/// Tells the objects that a child shows what its parent does.
pub(super) fn tell_mapped<'a, K: Env>(env: &K, vmas: impl Iterator<Item = &'a Vma>) {
    for vma in vmas {
        if let Some((id, _)) = vma.object_page(vma.start()) {
            if env.extras().objects().mapped(id, vma.pages()).is_err() {
                bug_caught(env);
            }
        }
    }
}

/// Whether what an entry borrows is a page of an object, and no part of a block that processes share.
pub(super) fn is_objects_page<K: Env>(env: &K, entry: Entry, size: LeafSize) -> bool {
    let head = || counted_frame(env, entry, size);
    entry.is_borrowed() && head().is_some_and(|(_, head)| head.kind() != FrameKind::Anonymous)
}
