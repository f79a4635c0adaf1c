//! The buffer that runs are collected in.

use crate::addr::{MAX_RUN_PAGES, Pfn, PhysRun};

/// The caller's buffer, filling up.
pub(super) struct Runs<'b> {
    buffer: &'b mut [PhysRun],
    used: usize,
    pages: u64,
    /// What stands for the last run where there is none: cheaper than asking.
    nowhere: PhysRun,
}

/// [`Runs`] while base pages are added to them one by one.
pub(super) struct OpenRuns<'r> {
    /// The last run, if base pages may continue it.
    last: &'r mut PhysRun,
    /// The frame that continues it.
    next: Pfn,
    /// Places for more runs.
    room: core::slice::IterMut<'r, PhysRun>,
    used: &'r mut usize,
    capacity: usize,
}

impl OpenRuns<'_> {
    /// The frame that continues the last run.
    #[inline(always)]
    pub(super) fn next(&self) -> Pfn {
        self.next
    }

    /// Adds one page. False: no room, and nothing changed.
    #[inline(always)]
    pub(super) fn add(&mut self, pfn: Pfn) -> bool {
        if pfn == self.next {
            self.last.pages += 1;
        } else {
            let Some(place) = self.room.next() else { return false };
            *place = PhysRun { first: pfn.number(), pages: 1, order: 0 };
            self.last = place;
        }
        self.next = pfn.offset(1);
        true
    }

    /// Adds the next `pages` frames, which continue a run.
    #[inline(always)]
    pub(super) fn extend(&mut self, pages: u64) {
        self.last.pages += pages as u32;
        self.next = self.next.offset(pages);
    }

    /// Takes back the page that was added last.
    #[inline(always)]
    pub(super) fn take_back(&mut self) {
        self.last.pages -= 1;
    }

    /// Ends it.
    #[inline(always)]
    pub(super) fn close(self) {
        // The last page may have been taken back, and the only one of its run.
        *self.used = self.capacity - self.room.len() - usize::from(self.last.pages == 0);
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
        Self::resumed(buffer, 0, 0)
    }

    /// With the first `used` runs of `buffer` in use, for `pages` base pages.
    pub(super) fn resumed(buffer: &'b mut [PhysRun], used: usize, pages: u64) -> Self {
        Self { buffer, used, pages, nowhere: PhysRun { first: 0, pages: 1, order: 0 } }
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

    /// To add base pages, of which the caller says in the end how many they were ([`Runs::added`]).
    #[inline(always)]
    pub(super) fn open(&mut self) -> OpenRuns<'_> {
        let capacity = self.buffer.len();
        let (runs, room) = self.buffer.split_at_mut(self.used);
        let last = runs.last_mut().filter(|run| run.order == 0 && run.pages < MAX_RUN_PAGES);
        let next = last.as_ref().map_or(Pfn::new(u64::MAX), |run| run.end());
        let last = last.unwrap_or(&mut self.nowhere);
        OpenRuns { last, next, room: room.iter_mut(), used: &mut self.used, capacity }
    }

    /// Notes that `pages` base pages were added to the open runs.
    #[inline(always)]
    pub(super) fn added(&mut self, pages: u64) {
        self.pages += pages;
    }

    /// Runs that can still be begun.
    pub(super) fn room(&self) -> u64 {
        (self.buffer.len() - self.used) as u64
    }

    /// Adds the run of one leaf, for which there is room.
    #[inline(always)]
    pub(super) fn add(&mut self, run: PhysRun) {
        if let Some(room) = self.room_for(&run) {
            self.push(room, run);
        }
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

    /// Of what was collected after the first `pages` base pages, the first page of the first leaf whose head does not fit.
    pub(super) fn first_unfit(&self, pages: u64, fits: impl Fn(Pfn) -> bool) -> Option<u64> {
        let (mut start, mut found) = (self.pages, None);
        // From the end, so that it is no work to pass what was looked at before.
        for run in self.buffer.iter().take(self.used).rev() {
            start -= run.pages();
            let passed = pages.saturating_sub(start).min(run.pages());
            let part = run.after(passed as u32);
            if let Some(head) = part.heads().find(|head| !fits(*head)) {
                found = Some(start + passed + head.number().saturating_sub(part.first().number()));
            }
            if passed != 0 {
                break;
            }
        }
        found
    }

    /// Ends runs where owners do: `of_one` says how many frames from the first of a run on go together. What then has no room goes to
    /// `give_back`, as in [`Runs::roll_back`]. False: some had none.
    #[cold]
    pub(super) fn split(&mut self, of_one: impl Fn(&PhysRun) -> u64, give_back: impl FnMut(PhysRun)) -> bool {
        let (mut needed, mut kept) = (0, 0);
        for part in self.buffer.iter().take(self.used).flat_map(|run| parts(*run, &of_one)).take(self.buffer.len()) {
            needed += 1;
            kept += part.pages();
        }
        let all = kept == self.pages;
        self.roll_back(kept, give_back);
        // From the end, so that nothing is overwritten before it was looked at: each run before has one part at least.
        let mut end = needed;
        for from in (0..self.used).rev() {
            let run = self.buffer[from];
            let first = end - parts(run, &of_one).count().min(end);
            for (place, part) in self.buffer[first..end].iter_mut().zip(parts(run, &of_one)) {
                *place = part;
            }
            end = first;
        }
        self.used = needed;
        all
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

/// `run` in parts, each of as many frames as `of_one` says, and whole leaves.
fn parts(run: PhysRun, of_one: impl Fn(&PhysRun) -> u64) -> impl Iterator<Item = PhysRun> {
    let mut rest = run;
    core::iter::from_fn(move || {
        let pages = rest.pages();
        if pages == 0 {
            return None;
        }
        let end = rest.first().offset(of_one(&rest).clamp(1, pages));
        let edge = end.number().next_multiple_of(1 << rest.order());
        let part = (edge - rest.first().number()).min(pages) as u32;
        let after = rest.after(part);
        let before = PhysRun { pages: part, ..core::mem::replace(&mut rest, after) };
        Some(before)
    })
}
