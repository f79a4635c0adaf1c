//! Sections in which a thread stays on its CPU: of the mm lock, and of who owns an entry.

use std::cell::Cell;

use pagepin::NoPreempt;

use super::one_thread::OneThread;

/// How many there are now, one in another.
pub(crate) struct Sections(OneThread<Cell<u64>>);

impl Sections {
    pub(super) fn new() -> Self {
        Self(OneThread::new(Cell::new(0)))
    }

    pub(super) fn depth(&self) -> u64 {
        self.0.get().get()
    }
}

pub(crate) struct Section<'m>(&'m Cell<u64>);

impl Drop for Section<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

// SAFETY: there is one thread.
unsafe impl NoPreempt for Sections {
    type Guard<'a> = Section<'a>;

    fn enter(&self) -> Section<'_> {
        let depth = self.0.get();
        depth.set(depth.get() + 1);
        Section(depth)
    }
}
