//! [`SingleCpu`]: read side, shootdown and loading of roots of a kernel that runs on one CPU.

use crate::addr::Pfn;
use crate::env::{CurrentCpu, FlushRange, LocalCpu, ReadSide, Shootdown, SwitchMm};
use crate::primitive::{AtomicU64, Ordering, const_fn};

use super::{InterruptsOff, X86Cpu};

/// For a kernel that runs on one CPU: walkers switch interrupts off, flushes are local.
///
/// Flushing needs ring 0; making one is therefore `unsafe`.
#[derive(Debug)]
pub struct SingleCpu {
    /// The root that was loaded before the first that it loaded: 0 until then, when there is none to leave.
    home: AtomicU64,
}

impl SingleCpu {
    const_fn! {
        /// # Safety
        /// The kernel runs in ring 0 on exactly one CPU, with `CR4.PCIDE` off. The root that is loaded when it first enters an
        /// address space maps the kernel, and lives for ever.
        #[must_use]
        pub const unsafe fn new() -> Self {
            Self { home: AtomicU64::new(0) }
        }
    }
}

// SAFETY: with interrupts off nothing else runs on the only CPU, so no table can be freed during a walk, and no walk is
// in progress when `synchronize` is called.
unsafe impl ReadSide for SingleCpu {
    type Guard<'a> = InterruptsOff;

    #[inline]
    fn enter(&self) -> InterruptsOff {
        InterruptsOff::new()
    }

    fn synchronize(&self) {}
}

// SAFETY: the only CPU's TLB is flushed before the call returns.
unsafe impl Shootdown for SingleCpu {
    fn flush(&self, _root: Pfn, range: FlushRange) {
        X86Cpu.flush(range);
    }

    fn leave_mm(&self, root: Pfn) {
        let home = self.home.load(Ordering::Relaxed);
        if home != 0 && X86Cpu.loaded_root() == root {
            // SAFETY: what was loaded before the first address space maps the kernel and lives for ever, says who made this.
            unsafe { X86Cpu.load_root(Pfn::containing(home)) };
        }
    }
}

// SAFETY: there is no other.
unsafe impl CurrentCpu for SingleCpu {
    #[inline(always)]
    fn current_cpu(&self) -> usize {
        0
    }
}

// SAFETY: every flush reaches the only CPU, whichever root it has; `leave_mm` loads another.
unsafe impl SwitchMm for SingleCpu {
    unsafe fn switch_mm(&self, root: Pfn) {
        let loaded = X86Cpu.loaded_root();
        if self.home.load(Ordering::Relaxed) == 0 {
            assert!(!X86Cpu.has_tags(), "process context identifiers are on");
            self.home.store(loaded.address(), Ordering::Relaxed);
        }
        if loaded != root {
            // SAFETY: forwarded from the caller.
            unsafe { X86Cpu.load_root(root) };
        }
    }

    fn enter_lazy_tlb(&self) {}

    fn is_current(&self, root: Pfn) -> bool {
        X86Cpu.loaded_root() == root
    }
}
