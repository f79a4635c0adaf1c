//! CPUs with TLBs that keep what they hold until they are flushed, and whose interrupts can be off.

use std::collections::BTreeMap;
use std::sync::Arc;

use pagepin::Access;
use pagepin::{CurrentCpu, Entry, FlushRange, LeafSize, Pfn, ReadSide, Shootdown};

use super::{PAGE, Side, ThisCpu};
use crate::checker::{CPUS, Mutex, MutexGuard};

/// What one CPU has cached, by root and page: to run another mm flushes nothing, and nothing is ever evicted.
#[derive(Default)]
pub(crate) struct Tlb(BTreeMap<(Pfn, u64), Entry>);

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
        access: Access,
        walk: impl FnOnce() -> Option<Entry>,
        touch: impl FnOnce(Pfn) -> T,
    ) -> Option<T> {
        let mut tlb = self.lock(cpu);
        let writes = |entry: &Entry| entry.is_writable() && entry.is_dirty();
        let permits = |entry: &Entry| entry.is_present() && (access == Access::Read || writes(entry));
        let cached = tlb.0.get(&(root, page)).copied();
        let entry = cached.filter(permits).or_else(|| walk().filter(permits))?;
        tlb.0.insert((root, page), entry);
        Some(touch(entry.leaf_frame(LeafSize::Size4KiB)))
    }
}

// SAFETY: the range leaves every CPU's TLB, and none while it is in the middle of an access or has its interrupts off.
unsafe impl Shootdown for Cpus {
    fn flush(&self, root: Pfn, range: FlushRange) {
        let covers = |page: u64| match range.pages() {
            Some((first, pages)) => (0..pages).contains(&page.wrapping_sub(first.address() / PAGE)),
            None => true,
        };
        for cpu in 0..CPUS {
            self.lock(cpu).0.retain(|(of, page), _| *of != root || !covers(*page));
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
