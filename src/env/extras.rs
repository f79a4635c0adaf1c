//! [`Extras`]: the parts of a kernel that have a default.

use super::{Counters, DeviceFrames, MmReaders, NoPreempt, Objects, PinLedger, Quarantine, Statistics, Tokens};
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
/// let extras = extras.tokens(()).objects(()).device_frames(()); // the kernel's swap, its files, and its drivers
/// ```
#[derive(Debug)]
pub struct Extras<N = (), C = Counters, L = (), Q = (), M = (), T = (), O = (), D = ()> {
    no_preempt: N,
    counters: C,
    ledger: L,
    quarantine: Q,
    mm_readers: M,
    tokens: T,
    objects: O,
    device_frames: D,
}

impl Extras {
    const_fn! {
        /// The defaults: a kernel that does not preempt itself, [`Counters`] that all CPUs share, no ledger, no
        /// quarantine, mm locks that count their readers themselves, no swap, no objects and no
        /// drivers' frames.
        #[must_use]
        #[expect(clippy::new_without_default, reason = "const, and a model checker's atomics have no Default")]
        pub const fn new() -> Self {
            Self { no_preempt: (), counters: Counters::new(), ledger: (), quarantine: (), mm_readers: (), tokens: (), objects: (), device_frames: () }
        }
    }
}

impl<N, C, L, Q, M, T, O, D> Extras<N, C, L, Q, M, T, O, D> {
    /// How the kernel keeps a thread on its CPU.
    #[must_use]
    pub fn no_preempt<X: NoPreempt>(self, no_preempt: X) -> Extras<X, C, L, Q, M, T, O, D> {
        let Self { counters, ledger, quarantine, mm_readers, tokens, objects, device_frames, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers, tokens, objects, device_frames }
    }

    /// Where statistics are kept.
    #[must_use]
    pub fn counters<X: Statistics>(self, counters: X) -> Extras<N, X, L, Q, M, T, O, D> {
        let Self { no_preempt, ledger, quarantine, mm_readers, tokens, objects, device_frames, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers, tokens, objects, device_frames }
    }

    /// Who is told of every pin.
    #[must_use]
    pub fn ledger<X: PinLedger>(self, ledger: X) -> Extras<N, C, X, Q, M, T, O, D> {
        let Self { no_preempt, counters, quarantine, mm_readers, tokens, objects, device_frames, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers, tokens, objects, device_frames }
    }

    /// Where pins go whose device did not say that it has stopped.
    #[must_use]
    pub fn quarantine<X: Quarantine>(self, quarantine: X) -> Extras<N, C, L, X, M, T, O, D> {
        let Self { no_preempt, counters, ledger, mm_readers, tokens, objects, device_frames, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers, tokens, objects, device_frames }
    }

    /// Where the readers of mm locks are noted.
    #[must_use]
    pub fn mm_readers<X: MmReaders>(self, mm_readers: X) -> Extras<N, C, L, Q, X, T, O, D> {
        let Self { no_preempt, counters, ledger, quarantine, tokens, objects, device_frames, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers, tokens, objects, device_frames }
    }

    /// Where pages are kept that are not in memory.
    #[must_use]
    pub fn tokens<X: Tokens>(self, tokens: X) -> Extras<N, C, L, Q, M, X, O, D> {
        let Self { no_preempt, counters, ledger, quarantine, mm_readers, objects, device_frames, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers, tokens, objects, device_frames }
    }

    /// What has pages of its own that VMAs show.
    #[must_use]
    pub fn objects<X: Objects>(self, objects: X) -> Extras<N, C, L, Q, M, T, X, D> {
        let Self { no_preempt, counters, ledger, quarantine, mm_readers, tokens, device_frames, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers, tokens, objects, device_frames }
    }

    /// Who owns memory of devices.
    #[must_use]
    pub fn device_frames<X: DeviceFrames>(self, device_frames: X) -> Extras<N, C, L, Q, M, T, O, X> {
        let Self { no_preempt, counters, ledger, quarantine, mm_readers, tokens, objects, .. } = self;
        Extras { no_preempt, counters, ledger, quarantine, mm_readers, tokens, objects, device_frames }
    }
}

mod sealed {
    pub trait Sealed {}
    impl<N, C, L, Q, M, T, O, D> Sealed for super::Extras<N, C, L, Q, M, T, O, D> {}
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
    /// See [`Tokens`].
    type Tokens: Tokens;
    /// See [`Objects`].
    type Objects: Objects;
    /// See [`DeviceFrames`].
    type DeviceFrames: DeviceFrames;

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
    /// Where pages are kept that are not in memory.
    fn tokens(&self) -> &Self::Tokens;
    /// What has pages of its own.
    fn objects(&self) -> &Self::Objects;
    /// Who owns memory of devices.
    fn device_frames(&self) -> &Self::DeviceFrames;
}

impl<N, C, L, Q, M, T, O, D> ExtraParts for Extras<N, C, L, Q, M, T, O, D>
where
    N: NoPreempt + Sync,
    C: Statistics + Sync,
    L: PinLedger,
    Q: Quarantine,
    M: MmReaders + Sync,
    T: Tokens,
    O: Objects,
    D: DeviceFrames,
{
    type NoPreempt = N;
    type Counters = C;
    type Ledger = L;
    type Quarantine = Q;
    type MmReaders = M;
    type Tokens = T;
    type Objects = O;
    type DeviceFrames = D;

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
    #[inline(always)]
    fn tokens(&self) -> &T {
        &self.tokens
    }
    #[inline(always)]
    fn objects(&self) -> &O {
        &self.objects
    }
    #[inline(always)]
    fn device_frames(&self) -> &D {
        &self.device_frames
    }
}
