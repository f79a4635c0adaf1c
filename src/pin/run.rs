//! Runs of physically contiguous pages, and the buffer they are collected in.

use core::fmt;

use crate::addr::Pfn;

/// Beside the order: all pins of each frame. What looks at runs of base pages passes these by without a test of its own.
const SOLE: u8 = 1 << 7;

/// Consecutive frames that were acquired in the same way.
///
/// A run of base pages (`order` 0) holds one count on each frame. A run of large leaves holds one count on the head
/// frame of each leaf it touches, however many of its pages it covers. Contiguity is what the walker saw in the
/// entries, never a guess from the frame table.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct PhysRun {
    first: u64,
    pages: u32,
    order: u8,
}

impl PhysRun {
    /// `pages` frames from `first`, in leaves of `1 << order` pages. For runs that come back through a foreign ABI.
    #[must_use]
    pub const fn from_parts(first: Pfn, pages: u32, order: u8) -> Self {
        Self { first: first.number(), pages, order }
    }

    /// The first frame.
    #[must_use]
    #[inline(always)]
    pub const fn first(&self) -> Pfn {
        Pfn::new(self.first)
    }

    /// Number of base pages; 0 only in an unused place of a buffer.
    #[must_use]
    #[inline(always)]
    pub const fn pages(&self) -> u64 {
        self.pages as u64
    }

    /// log2 of the pages in each leaf.
    #[must_use]
    #[inline(always)]
    pub const fn order(&self) -> u8 {
        self.order & !SOLE
    }

    /// Whether it holds all pins of each frame ([`PinFlags::SOLE`](super::PinFlags::SOLE)).
    #[must_use]
    #[inline(always)]
    pub const fn is_sole(&self) -> bool {
        self.order & SOLE != 0
    }

    /// The same frames, with all pins of each. For runs that come back through a foreign ABI.
    #[must_use]
    pub const fn sole(self) -> Self {
        Self { order: self.order | SOLE, ..self }
    }

    /// Whether it holds one count on each base page.
    #[inline(always)]
    pub(super) const fn is_of_base_pages(&self) -> bool {
        self.order == 0
    }

    /// The frame after the last.
    #[must_use]
    #[inline(always)]
    pub const fn end(&self) -> Pfn {
        Pfn::new(self.first + self.pages as u64)
    }

    /// The frames whose words are counted: the heads of the leaves.
    pub(super) fn heads(&self) -> impl Iterator<Item = Pfn> + use<> {
        let (step, end) = (1u64 << self.order(), self.end());
        let mut next = self.first().block_start(self.order());
        // Not `step_by`, which divides to know how often.
        core::iter::from_fn(move || {
            let head = next;
            next = head.offset(step);
            (head < end).then_some(head)
        })
    }

    /// Whether another run comes right after it. Runs of large leaves merge only at a leaf's edge; otherwise the leaf in
    /// the middle would be counted once and held twice.
    #[inline(always)]
    fn continues_with(&self, next: &PhysRun) -> bool {
        self.order == next.order
            && self.end() == next.first()
            && next.first() == next.first().block_start(next.order())
            && self.pages < MAX_RUN_PAGES
    }

    /// The part of a run of base pages after its first `pages`.
    pub(super) fn after(&self, pages: u32) -> Self {
        Self { first: self.first + u64::from(pages), pages: self.pages - pages, order: self.order }
    }
}

impl fmt::Debug for PhysRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysRun({:#x} + {}", self.first, self.pages)?;
        if self.order() != 0 {
            write!(f, ", order {}", self.order())?;
        }
        if self.is_sole() {
            f.write_str(", sole")?;
        }
        f.write_str(")")
    }
}

/// The caller's buffer, filling up.
pub(super) struct Runs<'b> {
    buffer: &'b mut [PhysRun],
    used: usize,
    pages: u64,
}

/// A run of base pages that is being extended, kept out of the buffer while it is. Only [`Runs`] makes and takes back
/// one.
pub(super) struct OpenRun {
    first: Pfn,
    next: Pfn,
}

impl OpenRun {
    /// A run that no frame continues.
    const NONE: Self = Self { first: Pfn::new(u64::MAX), next: Pfn::new(u64::MAX) };

    /// Whether `pfn` comes right after it.
    #[inline(always)]
    pub(super) fn continues_at(&self, pfn: Pfn) -> bool {
        self.next == pfn
    }

    #[inline(always)]
    pub(super) fn extend(&mut self) {
        self.next = self.next.offset(1);
    }

    fn pages(&self) -> u32 {
        (self.next.number() - self.first.number()) as u32
    }
}

/// Where a leaf goes.
#[derive(Clone, Copy)]
pub(super) enum Room {
    /// It continues the last run.
    InLast,
    /// It begins another run.
    InNext,
}

/// Runs are not merged beyond this, so that one more table's pages always fit the counter.
const MAX_RUN_PAGES: u32 = 1 << 31;

impl<'b> Runs<'b> {
    pub(super) fn new(buffer: &'b mut [PhysRun]) -> Self {
        Self { buffer, used: 0, pages: 0 }
    }

    /// With the first `used` runs of `buffer` in use, for `pages` base pages.
    pub(super) fn resumed(buffer: &'b mut [PhysRun], used: usize, pages: u64) -> Self {
        Self { buffer, used, pages }
    }

    /// Runs in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Base pages collected.
    #[inline(always)]
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    #[inline(always)]
    fn last(&self) -> Option<&PhysRun> {
        if self.used == 0 { None } else { self.buffer.get(self.used - 1) }
    }

    /// Opens the last run for base pages, or an empty one that nothing continues.
    #[inline(always)]
    pub(super) fn open(&self) -> OpenRun {
        match self.last() {
            Some(run) if run.order == 0 && run.pages < MAX_RUN_PAGES => OpenRun { first: run.first(), next: run.end() },
            _ => OpenRun::NONE,
        }
    }

    /// Stores the open run and begins another at `pfn`. False: no room, and nothing changed.
    #[inline(always)]
    pub(super) fn begin(&mut self, open: &mut OpenRun, pfn: Pfn) -> bool {
        if self.used == self.buffer.len() {
            return false;
        }
        self.store(open);
        self.used += 1;
        *open = OpenRun { first: pfn, next: pfn };
        true
    }

    #[inline(always)]
    fn store(&mut self, open: &OpenRun) {
        if let Some(run) = self.buffer.get_mut(self.used.wrapping_sub(1)).filter(|_| open.pages() != 0) {
            *run = PhysRun { first: open.first.number(), pages: open.pages(), order: 0 };
        }
    }

    /// Takes the open run back after `pages` base pages were added.
    #[inline(always)]
    pub(super) fn close(&mut self, open: OpenRun, pages: u64) {
        self.store(&open);
        if open.pages() == 0 && open.first != OpenRun::NONE.first {
            // Begun, but its first page was refused.
            self.used -= 1;
        }
        self.pages += pages;
    }

    /// Where [`Runs::push`] of a leaf's run would put it, if there is room.
    #[inline(always)]
    pub(super) fn room_for(&self, run: &PhysRun) -> Option<Room> {
        if self.last().is_some_and(|last| last.continues_with(run)) {
            Some(Room::InLast)
        } else if self.used < self.buffer.len() {
            Some(Room::InNext)
        } else {
            None
        }
    }

    /// Adds the run of one leaf.
    #[inline(always)]
    pub(super) fn push(&mut self, room: Room, run: PhysRun) {
        match room {
            Room::InLast => self.buffer[self.used - 1].pages += run.pages,
            Room::InNext => {
                self.buffer[self.used] = run;
                self.used += 1;
            }
        }
        self.pages += run.pages();
    }

    /// Forgets the base pages that were collected after the first `pages`, handing them to `give_back` in runs.
    #[cold]
    pub(super) fn roll_back(&mut self, pages: u64, mut give_back: impl FnMut(PhysRun)) {
        while self.pages > pages {
            let Some(last) = self.buffer.get_mut(self.used - 1) else { return };
            let surplus = (self.pages - pages).min(last.pages()) as u32;
            let kept = last.pages - surplus;
            give_back(last.after(kept));
            last.pages = kept;
            if kept == 0 {
                self.used -= 1;
            }
            self.pages -= u64::from(surplus);
        }
    }
}
