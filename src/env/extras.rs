//! [`Extras`]: the parts of a kernel that have a default.

use super::{Counters, NoPreempt, Statistics};
use crate::primitive::const_fn;

/// What a kernel may bring besides the five parts that it must. Each member has a default that costs nothing, and a method of
/// its name replaces it, so that a member more is nothing to who does not want it.
///
/// ```
/// # use pagepin::{CpuCounters, CurrentCpu, Extras};
/// # struct ThisCpu;
/// # unsafe impl CurrentCpu for ThisCpu { fn current_cpu(&self) -> usize { 0 } }
/// let extras = Extras::new().counters(CpuCounters::<_, 8>::new(ThisCpu));
/// ```
#[derive(Debug)]
pub struct Extras<N = (), C = Counters> {
    no_preempt: N,
    counters: C,
}

impl Extras {
    const_fn! {
        /// The defaults: a kernel that does not preempt itself, and [`Counters`] that all CPUs share.
        #[must_use]
        #[expect(clippy::new_without_default, reason = "const, and a model checker's atomics have no Default")]
        pub const fn new() -> Self {
            Self { no_preempt: (), counters: Counters::new() }
        }
    }
}

impl<N, C> Extras<N, C> {
    /// How the kernel keeps a thread on its CPU.
    #[must_use]
    pub fn no_preempt<M: NoPreempt>(self, no_preempt: M) -> Extras<M, C> {
        Extras { no_preempt, counters: self.counters }
    }

    /// Where statistics are kept.
    #[must_use]
    pub fn counters<D: Statistics>(self, counters: D) -> Extras<N, D> {
        Extras { no_preempt: self.no_preempt, counters }
    }
}

mod sealed {
    pub trait Sealed {}
    impl<N, C> Sealed for super::Extras<N, C> {}
}

/// The members of an [`Extras`], which alone implements it.
pub trait ExtraParts: sealed::Sealed + Sync {
    /// See [`NoPreempt`].
    type NoPreempt: NoPreempt;
    /// See [`Statistics`].
    type Counters: Statistics;

    /// How a thread stays on its CPU.
    fn no_preempt(&self) -> &Self::NoPreempt;
    /// The statistics.
    fn counters(&self) -> &Self::Counters;
}

impl<N: NoPreempt + Sync, C: Statistics + Sync> ExtraParts for Extras<N, C> {
    type NoPreempt = N;
    type Counters = C;

    #[inline(always)]
    fn no_preempt(&self) -> &N {
        &self.no_preempt
    }
    #[inline(always)]
    fn counters(&self) -> &C {
        &self.counters
    }
}
