//! Statistics: how much was acquired and released. Equal when nothing is held (INV-10).

use crate::primitive::{AtomicU64, Ordering, const_fn};

/// Monotonic totals, one addition per call, never per page.
///
/// A kernel that finds them contended returns a per-CPU instance from [`Env::counters`](crate::Env::counters) and adds
/// the values up when it prints them.
#[derive(Debug)]
pub struct Counters {
    pins_acquired: AtomicU64,
    pins_released: AtomicU64,
    gets_acquired: AtomicU64,
    gets_released: AtomicU64,
    bugs_caught: AtomicU64,
}

/// A copy of the [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CounterValues {
    /// Base pages pinned.
    pub pins_acquired: u64,
    /// Base pages unpinned.
    pub pins_released: u64,
    /// Base pages referenced by the `get` family.
    pub gets_acquired: u64,
    /// Base pages of which the reference was given back.
    pub gets_released: u64,
    /// Releases that would have taken a count below zero: bugs in the kernel's use of raw handles.
    pub bugs_caught: u64,
}

impl Counters {
    const_fn! {
        /// All zero.
        #[must_use]
        #[expect(clippy::new_without_default, reason = "const, and a model checker's atomics have no Default")]
        pub const fn new() -> Self {
            Self {
                pins_acquired: AtomicU64::new(0),
                pins_released: AtomicU64::new(0),
                gets_acquired: AtomicU64::new(0),
                gets_released: AtomicU64::new(0),
                bugs_caught: AtomicU64::new(0),
            }
        }
    }

    /// The values now.
    #[must_use]
    pub fn values(&self) -> CounterValues {
        CounterValues {
            pins_acquired: self.pins_acquired.load(Ordering::Relaxed),
            pins_released: self.pins_released.load(Ordering::Relaxed),
            gets_acquired: self.gets_acquired.load(Ordering::Relaxed),
            gets_released: self.gets_released.load(Ordering::Relaxed),
            bugs_caught: self.bugs_caught.load(Ordering::Relaxed),
        }
    }

    #[inline(always)]
    pub(crate) fn acquired(&self, pinned: bool, pages: u64) {
        let counter = if pinned { &self.pins_acquired } else { &self.gets_acquired };
        counter.fetch_add(pages, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(crate) fn released(&self, pinned: bool, pages: u64) {
        let counter = if pinned { &self.pins_released } else { &self.gets_released };
        counter.fetch_add(pages, Ordering::Relaxed);
    }

    #[cold]
    pub(crate) fn bug_caught(&self) {
        self.bugs_caught.fetch_add(1, Ordering::Relaxed);
    }
}
