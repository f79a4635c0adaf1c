//! Flushing stale translations on other CPUs: the library's shootdown over this kernel's CPUs.

use pagepin::{Cpus, CurrentCpu, FlushRange, IpiShootdown, PageAddr, Pfn, Shootdown};
use spin::RelaxStrategy;

use crate::{ipi, memory::PAGE, percpu, poll::Poll};

/// As a number of pages: the whole address space.
pub const ALL_PAGES: u64 = u64::MAX;

pub static SMP: IpiShootdown<Machine, { percpu::MAX_CPUS }> = IpiShootdown::new(Machine);

#[derive(Debug)]
pub struct Machine;

// SAFETY: GS leads to this CPU's block, whose number is its own; kernel code never moves to another CPU.
unsafe impl CurrentCpu for Machine {
    #[inline(always)]
    fn current_cpu(&self) -> usize {
        percpu::index()
    }
}

// SAFETY: `ipi::acknowledge` answers, and so does `Poll`, which is in all that spins; `smp::init_this_cpu` joins, with the boot
// root, which is never freed. The one `IpiShootdown` is above.
unsafe impl Cpus for Machine {
    fn interrupt(&self, cpu: usize) {
        ipi::send(cpu, ipi::FLUSH);
    }

    fn relax(&self) {
        Poll::relax();
    }
}

/// When this returns, no CPU has a translation of these pages under `root` that is
/// older than the call. The caller has already changed the entries.
pub fn flush(root: u64, first_page: u64, pages: u64) {
    let range = match pages {
        ALL_PAGES => FlushRange::Everything,
        _ => FlushRange::Pages { first: PageAddr::containing(first_page * PAGE), pages },
    };
    SMP.flush(Pfn::containing(root), range);
}

/// Does what requests ask this CPU for, if there are any.
#[inline]
pub fn answer() {
    SMP.answer();
}
