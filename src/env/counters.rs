//! Statistics: how much was acquired and released. Equal when nothing is held (INV-10).

use super::{CurrentCpu, Env, ExtraParts, NoPreempt};
use crate::primitive::{AtomicU64, Ordering, const_fn};

/// What is counted, in base pages but for bugs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Pages pinned.
    PinsAcquired,
    /// Pages unpinned.
    PinsReleased,
    /// Pages referenced by the `get` family.
    GetsAcquired,
    /// Pages of which the reference was given back.
    GetsReleased,
    /// Releases that would have taken a count below zero.
    BugsCaught,
}

impl Counted {
    /// What taking `pages` by a pin or a get is counted as.
    #[inline(always)]
    pub(crate) const fn acquired(pin: bool) -> Self {
        if pin { Self::PinsAcquired } else { Self::GetsAcquired }
    }

    /// And giving them back.
    #[inline(always)]
    pub(crate) const fn released(pin: bool) -> Self {
        if pin { Self::PinsReleased } else { Self::GetsReleased }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Counters {}
    impl<C, const CPUS: usize> Sealed for super::CpuCounters<C, CPUS> {}
}

/// Where monotonic totals are kept: [`Counters`] or [`CpuCounters`]. One addition per call, never per page.
pub trait Statistics: sealed::Sealed {
    /// Whether the caller of `add` has to stay on its CPU.
    #[doc(hidden)]
    const PER_CPU: bool;

    #[doc(hidden)]
    fn add(&self, what: Counted, count: u64);

    /// The values now. Exact when nothing is counted meanwhile.
    #[must_use]
    fn values(&self) -> CounterValues;
}

/// Counts for `env`.
#[inline(always)]
pub(crate) fn count<K: Env>(env: &K, what: Counted, count: u64) {
    let extras = env.extras();
    let _stay = <K::Extras as ExtraParts>::Counters::PER_CPU.then(|| extras.no_preempt().enter());
    extras.counters().add(what, count);
}

/// Notes a bug of the kernel that was caught.
#[cold]
pub(crate) fn bug_caught<K: Env>(env: &K) {
    count(env, Counted::BugsCaught, 1);
}

/// Totals that all CPUs share: exact, and contended where many CPUs pin a page or two at a time. On a cache line of their own,
/// so that what lies beside them is not.
#[derive(Debug)]
#[repr(align(64))]
pub struct Counters {
    pins_acquired: AtomicU64,
    pins_released: AtomicU64,
    gets_acquired: AtomicU64,
    gets_released: AtomicU64,
    bugs_caught: AtomicU64,
}

/// A copy of the statistics.
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

    #[inline(always)]
    fn total(&self, what: Counted) -> &AtomicU64 {
        match what {
            Counted::PinsAcquired => &self.pins_acquired,
            Counted::PinsReleased => &self.pins_released,
            Counted::GetsAcquired => &self.gets_acquired,
            Counted::GetsReleased => &self.gets_released,
            Counted::BugsCaught => &self.bugs_caught,
        }
    }

    /// Adds where no other CPU does meanwhile.
    #[cfg(not(pagepin_checker))]
    #[inline(always)]
    fn add_on_this_cpu(&self, what: Counted, count: u64) {
        // SAFETY: the total is an atomic, and alive.
        unsafe { crate::arch::add_on_this_cpu(self.total(what).as_ptr(), count) };
    }

    /// A checker does not look into instructions.
    #[cfg(pagepin_checker)]
    fn add_on_this_cpu(&self, what: Counted, count: u64) {
        self.add(what, count);
    }
}

impl Statistics for Counters {
    const PER_CPU: bool = false;

    #[inline(always)]
    fn add(&self, what: Counted, count: u64) {
        self.total(what).fetch_add(count, Ordering::Relaxed);
    }

    fn values(&self) -> CounterValues {
        let value = |what| self.total(what).load(Ordering::Relaxed);
        CounterValues {
            pins_acquired: value(Counted::PinsAcquired),
            pins_released: value(Counted::PinsReleased),
            gets_acquired: value(Counted::GetsAcquired),
            gets_released: value(Counted::GetsReleased),
            bugs_caught: value(Counted::BugsCaught),
        }
    }
}

/// Totals for each of `CPUS` CPUs, each on a cache line of its own, for a kernel that knows on which CPU it runs.
///
/// Counting is one addition in memory without a bus lock, which an interrupt on the same CPU comes before or after, and to
/// which no other CPU comes: the thread stays (see [`NoPreempt`]), and the number is its own (see [`CurrentCpu`]). So the
/// totals are exact. A load and a store would lose what an interrupt between them counts.
///
/// ```
/// use pagepin::{CpuCounters, CurrentCpu, Extras};
/// # struct Machine;
/// # unsafe impl CurrentCpu for Machine { fn current_cpu(&self) -> usize { 0 } }
/// let extras = Extras::new().counters(CpuCounters::<_, 4>::new(Machine));
/// ```
#[derive(Debug)]
pub struct CpuCounters<C, const CPUS: usize> {
    cpu: C,
    slots: [Counters; CPUS],
    /// For CPUs with a number too high.
    others: Counters,
}

impl<C: CurrentCpu, const CPUS: usize> CpuCounters<C, CPUS> {
    /// All zero.
    #[must_use]
    pub fn new(cpu: C) -> Self {
        Self { cpu, slots: core::array::from_fn(|_| Counters::new()), others: Counters::new() }
    }
}

impl<C: CurrentCpu, const CPUS: usize> Statistics for CpuCounters<C, CPUS> {
    const PER_CPU: bool = true;

    #[inline(always)]
    fn add(&self, what: Counted, count: u64) {
        match self.slots.get(self.cpu.current_cpu()) {
            Some(slot) => slot.add_on_this_cpu(what, count),
            None => self.others.add(what, count),
        }
    }

    fn values(&self) -> CounterValues {
        let add = |sum: CounterValues, more: &Counters| {
            let more = more.values();
            CounterValues {
                pins_acquired: sum.pins_acquired.wrapping_add(more.pins_acquired),
                pins_released: sum.pins_released.wrapping_add(more.pins_released),
                gets_acquired: sum.gets_acquired.wrapping_add(more.gets_acquired),
                gets_released: sum.gets_released.wrapping_add(more.gets_released),
                bugs_caught: sum.bugs_caught.wrapping_add(more.bugs_caught),
            }
        };
        self.slots.iter().fold(self.others.values(), add)
    }
}
