//! The buffer that runs are collected in.

use crate::addr::{MAX_RUN_PAGES, Pfn, PhysRun};

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

    /// Base pages that the runs in use keep: see [`PhysRun::held_pages`].
    pub(super) fn held_pages(&self) -> u64 {
        self.buffer.iter().take(self.used).map(PhysRun::held_pages).sum()
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

    /// Forgets what was collected after the first `pages` base pages, in one table or from a leaf's edge on, handing them to `give_back` in runs.
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
