//! [`Extras`]: the parts of a kernel that have a default.

use super::{Counters, NoPreempt, PinLedger, Statistics};
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
pub struct Extras<N = (), C = Counters, L = ()> {
    no_preempt: N,
    counters: C,
    ledger: L,
}

impl Extras {
    const_fn! {
        /// The defaults: a kernel that does not preempt itself, [`Counters`] that all CPUs share, and no ledger.
        #[must_use]
        #[expect(clippy::new_without_default, reason = "const, and a model checker's atomics have no Default")]
        pub const fn new() -> Self {
            Self { no_preempt: (), counters: Counters::new(), ledger: () }
        }
    }
}

impl<N, C, L> Extras<N, C, L> {
    /// How the kernel keeps a thread on its CPU.
    #[must_use]
    pub fn no_preempt<M: NoPreempt>(self, no_preempt: M) -> Extras<M, C, L> {
        let Self { counters, ledger, .. } = self;
        Extras { no_preempt, counters, ledger }
    }

    /// Where statistics are kept.
    #[must_use]
    pub fn counters<D: Statistics>(self, counters: D) -> Extras<N, D, L> {
        let Self { no_preempt, ledger, .. } = self;
        Extras { no_preempt, counters, ledger }
    }

    /// Who is told of every pin.
    #[must_use]
    pub fn ledger<M: PinLedger>(self, ledger: M) -> Extras<N, C, M> {
        let Self { no_preempt, counters, .. } = self;
        Extras { no_preempt, counters, ledger }
    }
}

mod sealed {
    pub trait Sealed {}
    impl<N, C, L> Sealed for super::Extras<N, C, L> {}
}

/// The members of an [`Extras`], which alone implements it.
pub trait ExtraParts: sealed::Sealed + Sync {
    /// See [`NoPreempt`].
    type NoPreempt: NoPreempt;
    /// See [`Statistics`].
    type Counters: Statistics;
    /// See [`PinLedger`].
    type Ledger: PinLedger;

    /// How a thread stays on its CPU.
    fn no_preempt(&self) -> &Self::NoPreempt;
    /// The statistics.
    fn counters(&self) -> &Self::Counters;
    /// The ledger.
    fn ledger(&self) -> &Self::Ledger;
}

impl<N: NoPreempt + Sync, C: Statistics + Sync, L: PinLedger> ExtraParts for Extras<N, C, L> {
    type NoPreempt = N;
    type Counters = C;
    type Ledger = L;

    #[inline(always)]
    fn no_preempt(&self) -> &N {
        &self.no_preempt
    }
    #[inline(always)]
    fn counters(&self) -> &C {
        &self.counters
    }
    #[inline(always)]
    fn ledger(&self) -> &L {
        &self.ledger
    }
}
