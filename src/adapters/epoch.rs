//! [`EpochReadSide`]: a read side for kernels whose walkers keep interrupts on, or whose shootdown spares idle CPUs.

use core::marker::PhantomData;

use crate::primitive::{AtomicU64, Ordering, fence, safeguard};

use crate::env::{CurrentCpu, ReadSide};

/// One slot per CPU: even when the CPU is outside, odd inside a walk. `synchronize` waits until each slot that was odd
/// has changed.
///
/// Walkers pay two stores and a full fence; the waiter pays the wait. A walk in an interrupt handler that interrupts
/// another walk on the same CPU is allowed: the inner guard leaves the slot alone.
///
/// ```
/// use pagepin::{CurrentCpu, EpochReadSide, ReadSide};
/// # struct Machine;
/// # unsafe impl CurrentCpu for Machine { fn current_cpu(&self) -> usize { 0 } }
/// let read_side: EpochReadSide<_, 4> = EpochReadSide::new(Machine, core::hint::spin_loop);
/// drop(read_side.enter());
/// read_side.synchronize(); // nobody walks
/// ```
#[derive(Debug)]
pub struct EpochReadSide<C, const CPUS: usize> {
    cpu: C,
    slots: [Slot; CPUS],
    relax: fn(),
}

/// A slot on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Slot(AtomicU64);

impl<C: CurrentCpu, const CPUS: usize> EpochReadSide<C, CPUS> {
    /// A read side for `CPUS` CPUs. `relax` is what a waiting CPU does: answer flush requests, if walkers on other CPUs
    /// may be waiting for its acknowledgement with interrupts off; else a pause.
    #[must_use]
    pub fn new(cpu: C, relax: fn()) -> Self {
        Self { cpu, slots: core::array::from_fn(|_| Slot(AtomicU64::new(0))), relax }
    }
}

/// Inside a walk under [`EpochReadSide`].
#[derive(Debug)]
pub struct EpochGuard<'a> {
    /// `None`: nested in a walk of the same CPU, which leaves later.
    slot: Option<&'a AtomicU64>,
    not_send: PhantomData<*const ()>,
}

impl Drop for EpochGuard<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            // Only this CPU writes the slot. Release: the walk's loads come before; pairs with the acquire load in
            // `synchronize`.
            slot.store(slot.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
    }
}

// SAFETY: a walker's slot is odd from before its first load of an entry (the fence in `enter` orders the store before
// it) until after its last. `synchronize` fences after the caller's unlinking stores, then reads the slots: for each
// walker either it sees the odd value and waits for the change, or the walker's fence came later and its loads see the
// unlinked tables.
unsafe impl<C: CurrentCpu, const CPUS: usize> ReadSide for EpochReadSide<C, CPUS> {
    type Guard<'a>
        = EpochGuard<'a>
    where
        Self: 'a;

    #[inline]
    fn enter(&self) -> EpochGuard<'_> {
        let slot = &self.slots[self.cpu.current_cpu()].0;
        let now = slot.load(Ordering::Relaxed);
        if now % 2 == 1 {
            return EpochGuard { slot: None, not_send: PhantomData };
        }
        // Release, as in `drop`: `synchronize` may wait for the last walk and next see the beginning of this one, which
        // tells it that the last one's loads are over.
        slot.store(now.wrapping_add(1), safeguard!(EnterOrdering: Ordering::Release));
        // Pairs with the fence in `synchronize`.
        safeguard!(EnterFence; fence(Ordering::SeqCst));
        EpochGuard { slot: Some(slot), not_send: PhantomData }
    }

    fn synchronize(&self) {
        // Pairs with the fence in `enter`.
        safeguard!(SynchronizeFence; fence(Ordering::SeqCst));
        for slot in &self.slots {
            let seen = slot.0.load(Ordering::Acquire);
            while seen % 2 == 1 && slot.0.load(Ordering::Acquire) == seen {
                (self.relax)();
            }
        }
    }
}
