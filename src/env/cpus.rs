//! [`Cpus`] and [`LocalCpu`]: what a shootdown by interrupts has to know of the processors.

use super::{CurrentCpu, FlushRange};
use crate::addr::Pfn;

/// The kernel's CPUs, for [`IpiShootdown`](crate::IpiShootdown): which one this is, and how to interrupt another.
///
/// ```
/// # use pagepin::{Cpus, CurrentCpu};
/// # fn apic_send(_: usize, _: u8) {}
/// # fn read_gs() -> usize { 0 }
/// struct Machine;
/// // SAFETY: GS of each CPU leads to a number of its own, below 8, from before it joins.
/// unsafe impl CurrentCpu for Machine {
///     fn current_cpu(&self) -> usize {
///         read_gs()
///     }
/// }
/// // SAFETY: the handler of vector 0xf0 calls `SMP.answer()`, and all that waits with interrupts off does as well.
/// unsafe impl Cpus for Machine {
///     fn interrupt(&self, cpu: usize) {
///         apic_send(cpu, 0xf0);
///     }
/// }
/// ```
///
/// # Implementation safety
/// [`current_cpu`](CurrentCpu::current_cpu) stays the caller's while interrupts are off. After `interrupt`, that CPU calls
/// [`answer`](crate::IpiShootdown::answer) sooner or later: in the handler of the interrupt, and wherever it waits for
/// another CPU with interrupts off. There is one `IpiShootdown` over these CPUs, in a kernel in ring 0; a CPU uses nothing of
/// the crate before it has [joined](crate::IpiShootdown::join), and the root that it has loaded then maps the kernel and lives
/// for ever.
pub unsafe trait Cpus: CurrentCpu {
    /// How many turns of waiting pass between two calls of [`late`](Self::late).
    const PATIENCE: u32 = 1 << 20;

    /// Interrupts CPU number `cpu`, which is another one.
    fn interrupt(&self, cpu: usize);

    /// CPU number `cpu` has still not acknowledged a flush. Called again and again, since nothing can go on without it: a kernel
    /// can say which CPU it is, interrupt it once more, or stop. Interrupts are off, and the mm lock is held.
    fn late(&self, cpu: usize) {
        let _ = cpu;
    }

    /// One turn of waiting, in which other CPUs' requests have been answered. Interrupts are off.
    #[inline(always)]
    fn relax(&self) {
        core::hint::spin_loop();
    }
}

/// What a processor does for itself: flush, load a root, hold interrupts back. [`X86Cpu`](crate::X86Cpu) is one.
///
/// # Implementation safety
/// While an `InterruptsOff` lives, the CPU takes no interrupt and the caller stays on it. After `flush`, this CPU has no
/// translation of the range cached that it took from the tables under the loaded root, and after `load_root` none of any
/// other mm.
pub unsafe trait LocalCpu {
    /// Holds interrupts back; what was before comes back when it is dropped.
    type InterruptsOff;

    /// Holds interrupts back.
    #[must_use = "interrupts come back when it is dropped"]
    fn interrupts_off(&self) -> Self::InterruptsOff;

    /// Flushes what this CPU has cached of the range in the loaded mm.
    fn flush(&self, range: FlushRange);

    /// Whether it keeps translations of roots that are not loaded (PCIDs).
    fn has_tags(&self) -> bool;

    /// The root that is loaded.
    fn loaded_root(&self) -> Pfn;

    /// Loads another root, and flushes what was cached of the last.
    ///
    /// # Safety
    /// It maps the kernel as the last one does, and lives until another is loaded.
    unsafe fn load_root(&self, root: Pfn);
}
