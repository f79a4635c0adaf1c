//! Sections in which a thread stays on its CPU: of the mm lock, and of who owns an entry; and what is done in one.

use std::cell::Cell;

use pagepin::NoPreempt;

use super::hooks::Hook;
use super::one_thread::OneThread;

/// What was done in a section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Entries that were loaded.
    pub(crate) loads: u64,
    /// Blocks that were given back.
    pub(crate) freed: u64,
    pub(crate) flushes: u64,
}

impl Work {
    /// The most of each.
    fn max(self, other: Self) -> Self {
        Self {
            loads: self.loads.max(other.loads),
            freed: self.freed.max(other.freed),
            flushes: self.flushes.max(other.flushes),
        }
    }
}

#[derive(Default)]
struct State {
    depth: Cell<u64>,
    work: Cell<Work>,
    most: Cell<Work>,
    count: Cell<u64>,
    between: Hook,
}

/// How many there are now, one in another.
pub(crate) struct Sections(OneThread<State>);

impl Sections {
    pub(super) fn new() -> Self {
        Self(OneThread::new(State::default()))
    }

    pub(super) fn depth(&self) -> u64 {
        self.0.get().depth.get()
    }

    /// Something was done, in a section or not.
    pub(super) fn note(&self, work: impl FnOnce(&mut Work)) {
        let done = &self.0.get().work;
        let mut now = done.get();
        work(&mut now);
        done.set(now);
    }

    /// What others do between two sections.
    pub(super) fn between(&self) -> &Hook {
        &self.0.get().between
    }

    /// Runs `work`: the most of everything that was done in one section, and how many sections there were.
    pub(super) fn during(&self, work: impl FnOnce()) -> (Work, u64) {
        let state = self.0.get();
        state.most.take();
        state.count.take();
        work();
        (state.most.get(), state.count.get())
    }
}

pub(crate) struct Section<'m>(&'m State);

impl Drop for Section<'_> {
    fn drop(&mut self) {
        self.0.depth.set(self.0.depth.get() - 1);
        if self.0.depth.get() == 0 {
            self.0.most.set(self.0.most.get().max(self.0.work.get()));
            self.0.count.set(self.0.count.get() + 1);
            self.0.between.reach();
        }
    }
}

// SAFETY: there is one thread.
unsafe impl NoPreempt for Sections {
    type Guard<'a> = Section<'a>;

    fn enter(&self) -> Section<'_> {
        let state = self.0.get();
        if state.depth.get() == 0 {
            state.work.take();
        }
        state.depth.set(state.depth.get() + 1);
        Section(state)
    }
}
