//! [`Extras`]: the parts of a kernel that have a default.

use super::{Counters, NoPreempt, PinLedger, Quarantine, Statistics};
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
pub struct Extras<N = (), C = Counters, L = (), Q = ()> {
    no_preempt: N,
    counters: C,
    ledger: L,
    quarantine: Q,
}

impl Extras {
    const_fn! {
        /// The defaults: a kernel that does not preempt itself, [`Counters`] that all CPUs share, no ledger and no quarantine.
        #[must_use]
        #[expect(clippy::new_without_default, reason = "const, and a model checker's atomics have no Default")]
        pub const fn new() -> Self {
            Self { no_preempt: (), counters: Counters::new(), ledger: (), quarantine: () }
        }
    }
}

impl<N, C, L, Q> Extras<N, C, L, Q> {
    /// How the kernel keeps a thread on its CPU.
    #[must_use]
    pub fn no_preempt<M: NoPreempt>(self, no_preempt: M) -> Extras<M, C, L, Q> {
        let Self { counters, ledger, quarantine, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine }
    }

    /// Where statistics are kept.
    #[must_use]
    pub fn counters<D: Statistics>(self, counters: D) -> Extras<N, D, L, Q> {
        let Self { no_preempt, ledger, quarantine, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine }
    }

    /// Who is told of every pin.
    #[must_use]
    pub fn ledger<M: PinLedger>(self, ledger: M) -> Extras<N, C, M, Q> {
        let Self { no_preempt, counters, quarantine, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine }
    }

    /// Where pins go whose device did not say that it has stopped.
    #[must_use]
    pub fn quarantine<R: Quarantine>(self, quarantine: R) -> Extras<N, C, L, R> {
        let Self { no_preempt, counters, ledger, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine }
    }
}

mod sealed {
    pub trait Sealed {}
    impl<N, C, L, Q> Sealed for super::Extras<N, C, L, Q> {}
}

/// The members of an [`Extras`], which alone implements it.
pub trait ExtraParts: sealed::Sealed + Sync {
    /// See [`NoPreempt`].
    type NoPreempt: NoPreempt;
    /// See [`Statistics`].
    type Counters: Statistics;
    /// See [`PinLedger`].
    type Ledger: PinLedger;
    /// See [`Quarantine`].
    type Quarantine: Quarantine;

    /// How a thread stays on its CPU.
    fn no_preempt(&self) -> &Self::NoPreempt;
    /// The statistics.
    fn counters(&self) -> &Self::Counters;
    /// The ledger.
    fn ledger(&self) -> &Self::Ledger;
    /// The quarantine.
    fn quarantine(&self) -> &Self::Quarantine;
}

impl<N: NoPreempt + Sync, C: Statistics + Sync, L: PinLedger, Q: Quarantine> ExtraParts for Extras<N, C, L, Q> {
    type NoPreempt = N;
    type Counters = C;
    type Ledger = L;
    type Quarantine = Q;

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
    #[inline(always)]
    fn quarantine(&self) -> &Q {
        &self.quarantine
    }
}
