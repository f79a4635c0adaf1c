//! What must be found in memory, without a lock or an ordering that could hide one missing in the library.
//!
//! In every page each thread has a word of its own, into which it writes ever larger numbers. It says which one it is
//! going to write and which one it has written. Whoever reads the word later, through whatever pin, finds a number in
//! between. Everything here is `Relaxed`: a release or acquire of the test's own would order the library's accesses as
//! well.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use crate::kernel::THREADS;

/// Pages that are marked.
pub(crate) const MARKED_PAGES: usize = 4;

/// The bounds of one word.
#[derive(Debug, Default)]
struct Bounds {
    announced: AtomicU64,
    written: AtomicU64,
}

/// The bounds of all words of an address space.
#[derive(Debug, Default)]
pub(crate) struct Marks([[Bounds; THREADS]; MARKED_PAGES]);

/// Keeps the compiler from exchanging accesses; x86 does not exchange two stores or two loads.
fn in_order() {
    compiler_fence(Ordering::SeqCst);
}

impl Marks {
    /// Writes `value`, larger than all before, into the word that belongs to `thread`.
    pub(crate) fn write(&self, page: usize, thread: usize, word: &AtomicU64, value: u64) {
        let bounds = &self.0[page][thread];
        bounds.announced.store(value, Ordering::Relaxed);
        in_order();
        word.store(value, Ordering::Relaxed);
        in_order();
        bounds.written.store(value, Ordering::Relaxed);
    }

    /// A word of a pinned page holds what its thread wrote last, or is just writing (INV-11).
    pub(crate) fn check(&self, page: usize, thread: usize, word: &AtomicU64) {
        let bounds = &self.0[page][thread];
        let least = bounds.written.load(Ordering::Relaxed);
        in_order();
        let found = word.load(Ordering::Relaxed);
        in_order();
        let most = bounds.announced.load(Ordering::Relaxed);
        assert!(
            (least..=most).contains(&found),
            "INV-11: page {page} has {found:#x} from thread {thread}, which wrote {least:#x} and at most {most:#x}"
        );
    }

    /// Runs `fork`, and gives the child what its memory holds: no less than before, no more than after.
    pub(crate) fn across<R>(&self, fork: impl FnOnce() -> R) -> (R, Self) {
        let child = Self::default();
        let pairs = || self.0.iter().flatten().zip(child.0.iter().flatten());
        pairs().for_each(|(own, new)| new.written.store(own.written.load(Ordering::Relaxed), Ordering::Relaxed));
        in_order();
        let result = fork();
        in_order();
        pairs().for_each(|(own, new)| new.announced.store(own.announced.load(Ordering::Relaxed), Ordering::Relaxed));
        (result, child)
    }
}
