//! CPUs with TLBs that keep what they hold until they are flushed, and whose interrupts can be off.

use std::sync::Arc;

use loom::sync::{Mutex, MutexGuard};
use pagepin::fault::FaultAccess;
use pagepin::{Entry, FlushRange, LeafSize, Pfn, ReadSide, Shootdown};

use super::{CPUS, CurrentCpu, Side, ThisCpu};

/// What one CPU has cached: the last mm it ran, and that mm's pages 1 and 2.
#[derive(Default)]
pub(crate) struct Tlb {
    root: Option<Pfn>,
    pages: [Option<Entry>; 2],
}

/// Each lock is that CPU's willingness to take an interrupt: held during one user access, or with interrupts off.
#[derive(Default)]
pub(crate) struct Cpus([Mutex<Tlb>; CPUS]);

impl Cpus {
    fn lock(&self, cpu: usize) -> MutexGuard<'_, Tlb> {
        self.0[cpu].lock().expect("poisoned")
    }

    /// One user access on `cpu`: by what the TLB holds, else by what `walk` finds. `None`: a page fault.
    pub(crate) fn translate<T>(
        &self,
        cpu: usize,
        root: Pfn,
        page: u64,
        access: FaultAccess,
        walk: impl FnOnce() -> Option<Entry>,
        touch: impl FnOnce(Pfn) -> T,
    ) -> Option<T> {
        let mut tlb = self.lock(cpu);
        if tlb.root != Some(root) {
            *tlb = Tlb { root: Some(root), pages: [None; 2] };
        }
        let permits = |entry: &Entry| entry.is_present() && (access == FaultAccess::Read || entry.is_writable());
        let cached = &mut tlb.pages[page as usize - 1];
        let entry = cached.filter(permits).or_else(|| walk().filter(permits))?;
        *cached = Some(entry);
        Some(touch(entry.leaf_frame(LeafSize::Size4KiB)))
    }
}

// SAFETY: every CPU's TLB is emptied, and none while it is in the middle of an access or has its interrupts off.
unsafe impl Shootdown for Cpus {
    fn flush(&self, root: Pfn, _: FlushRange) {
        for cpu in 0..CPUS {
            let mut tlb = self.lock(cpu);
            if tlb.root == Some(root) {
                *tlb = Tlb::default();
            }
        }
    }
}

/// The read side of a kernel that walks with interrupts off and whose shootdown interrupts every CPU.
pub(crate) struct InterruptsOff(Arc<Cpus>);

impl Side for InterruptsOff {
    fn new(cpus: &Arc<Cpus>) -> Self {
        Self(Arc::clone(cpus))
    }
}

// SAFETY: the flush that precedes `synchronize` has locked every CPU, so no guard from before it is left.
unsafe impl ReadSide for InterruptsOff {
    type Guard<'a> = MutexGuard<'a, Tlb>;

    fn enter(&self) -> Self::Guard<'_> {
        self.0.lock(ThisCpu.current_cpu())
    }

    fn synchronize(&self) {}
}
