//! [`MmReaders`]: which mm each CPU reads, so that readers of an mm lock write nothing that CPUs share.

use super::CurrentCpu;
use crate::primitive::{AtomicU64, Ordering};

/// Where the readers of mm locks are noted. `()`: each lock counts its own, in memory that all its readers write.
///
/// Only the library's types implement it: [`CpuReaders`] is for kernels that know on which CPU they run.
pub trait MmReaders: sealed::Sealed {
    /// The slot of the calling CPU, which stays on it.
    #[doc(hidden)]
    fn this_cpu(&self) -> Option<&ReaderSlot>;
    /// All slots.
    #[doc(hidden)]
    fn all(&self) -> &[ReaderSlot];
}

impl MmReaders for () {
    #[inline(always)]
    fn this_cpu(&self) -> Option<&ReaderSlot> {
        None
    }

    #[inline(always)]
    fn all(&self) -> &[ReaderSlot] {
        &[]
    }
}

/// What one CPU is inside of, on a cache line of its own.
#[doc(hidden)]
#[derive(Debug)]
#[repr(align(64))]
pub struct ReaderSlot {
    inside: AtomicU64,
    /// Where this CPU found a VMA last: no more than a guess, of whatever mm.
    found: AtomicU64,
}

#[cfg_attr(not(feature = "alloc"), expect(dead_code, reason = "the mm lock that looks at it is that of `UserSpace`"))]
impl ReaderSlot {
    /// In no section of an mm lock.
    pub(crate) const OUTSIDE: u64 = 0;
    /// In one that the lock itself knows of, or waiting for it.
    pub(crate) const ELSEWHERE: u64 = 1;

    fn new() -> Self {
        Self { inside: AtomicU64::new(Self::OUTSIDE), found: AtomicU64::new(0) }
    }

    /// The address of the lock that is read, or one of the two above.
    #[inline(always)]
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.inside.load(order)
    }

    #[inline(always)]
    pub(crate) fn store(&self, inside: u64, order: Ordering) {
        self.inside.store(inside, order);
    }

    /// A place among the VMAs of some mm, for this CPU alone.
    #[inline(always)]
    pub(crate) fn found(&self) -> &AtomicU64 {
        &self.found
    }
}

/// A slot for each of `CPUS` CPUs. A fault or slow pin then enters the mm lock by a store of its CPU's own and a fence; who changes
/// VMAs looks at all slots.
///
/// It also finds out who asks for an mm lock inside a section of one: see [`Reentered`](crate::Reentered).
///
/// ```
/// use pagepin::{CpuReaders, CurrentCpu, Extras};
/// # struct Machine;
/// # unsafe impl CurrentCpu for Machine { fn current_cpu(&self) -> usize { 0 } }
/// let extras = Extras::new().mm_readers(CpuReaders::<_, 4>::new(Machine));
/// ```
#[derive(Debug)]
pub struct CpuReaders<C, const CPUS: usize> {
    cpu: C,
    slots: [ReaderSlot; CPUS],
}

impl<C: CurrentCpu, const CPUS: usize> CpuReaders<C, CPUS> {
    /// All outside.
    #[must_use]
    pub fn new(cpu: C) -> Self {
        Self { cpu, slots: core::array::from_fn(|_| ReaderSlot::new()) }
    }
}

impl<C: CurrentCpu, const CPUS: usize> MmReaders for CpuReaders<C, CPUS> {
    #[inline(always)]
    fn this_cpu(&self) -> Option<&ReaderSlot> {
        self.slots.get(self.cpu.current_cpu())
    }

    #[inline(always)]
    fn all(&self) -> &[ReaderSlot] {
        &self.slots
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<C, const CPUS: usize> Sealed for super::CpuReaders<C, CPUS> {}
}
