//! [`Extras`]: the parts of a kernel that have a default.

use super::{Counters, MmReaders, NoPreempt, PinLedger, Quarantine, Statistics};
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
///
/// ```
/// use pagepin::{Extras, LedgerTable, SectionCount, pin::QuarantineTable};
/// # struct Machine;
/// # unsafe impl pagepin::CurrentCpu for Machine { fn current_cpu(&self) -> usize { 0 } }
/// static LEDGER: LedgerTable<64> = LedgerTable::new(|| 0);
/// static QUARANTINE: QuarantineTable<64> = QuarantineTable::new(|| 0);
/// let extras = Extras::new().ledger(&LEDGER).quarantine(&QUARANTINE);
/// let extras = extras.no_preempt(SectionCount::<_, 4>::new(Machine)).mm_readers(pagepin::CpuReaders::<_, 4>::new(Machine));
/// ```
#[derive(Debug)]
pub struct Extras<N = (), C = Counters, L = (), Q = (), M = ()> {
    no_preempt: N,
    counters: C,
    ledger: L,
    quarantine: Q,
    mm_readers: M,
}

impl Extras {
    const_fn! {
        /// The defaults: a kernel that does not preempt itself, [`Counters`] that all CPUs share, no ledger, no
        /// quarantine, and mm locks that count their readers themselves.
        #[must_use]
        #[expect(clippy::new_without_default, reason = "const, and a model checker's atomics have no Default")]
        pub const fn new() -> Self {
            Self { no_preempt: (), counters: Counters::new(), ledger: (), quarantine: (), mm_readers: () }
        }
    }
}

impl<N, C, L, Q, M> Extras<N, C, L, Q, M> {
    /// How the kernel keeps a thread on its CPU.
    #[must_use]
    pub fn no_preempt<O: NoPreempt>(self, no_preempt: O) -> Extras<O, C, L, Q, M> {
        let Self { counters, ledger, quarantine, mm_readers, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers }
    }

    /// Where statistics are kept.
    #[must_use]
    pub fn counters<O: Statistics>(self, counters: O) -> Extras<N, O, L, Q, M> {
        let Self { no_preempt, ledger, quarantine, mm_readers, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers }
    }

    /// Who is told of every pin.
    #[must_use]
    pub fn ledger<O: PinLedger>(self, ledger: O) -> Extras<N, C, O, Q, M> {
        let Self { no_preempt, counters, quarantine, mm_readers, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers }
    }

    /// Where pins go whose device did not say that it has stopped.
    #[must_use]
    pub fn quarantine<O: Quarantine>(self, quarantine: O) -> Extras<N, C, L, O, M> {
        let Self { no_preempt, counters, ledger, mm_readers, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers }
    }

    /// Where the readers of mm locks are noted.
    #[must_use]
    pub fn mm_readers<O: MmReaders>(self, mm_readers: O) -> Extras<N, C, L, Q, O> {
        let Self { no_preempt, counters, ledger, quarantine, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers }
    }
}

mod sealed {
    pub trait Sealed {}
    impl<N, C, L, Q, M> Sealed for super::Extras<N, C, L, Q, M> {}
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
    /// See [`MmReaders`].
    type MmReaders: MmReaders;

    /// How a thread stays on its CPU.
    fn no_preempt(&self) -> &Self::NoPreempt;
    /// The statistics.
    fn counters(&self) -> &Self::Counters;
    /// The ledger.
    fn ledger(&self) -> &Self::Ledger;
    /// The quarantine.
    fn quarantine(&self) -> &Self::Quarantine;
    /// Where the readers of mm locks are noted.
    fn mm_readers(&self) -> &Self::MmReaders;
}

impl<N, C, L, Q, M> ExtraParts for Extras<N, C, L, Q, M>
where
    N: NoPreempt + Sync,
    C: Statistics + Sync,
    L: PinLedger,
    Q: Quarantine,
    M: MmReaders + Sync,
{
    type NoPreempt = N;
    type Counters = C;
    type Ledger = L;
    type Quarantine = Q;
    type MmReaders = M;

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
    #[inline(always)]
    fn mm_readers(&self) -> &M {
        &self.mm_readers
    }
}
