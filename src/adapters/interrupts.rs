//! Interrupts off around a lock that interrupt handlers take as well.

/// Runs `work` so that no interrupt handler comes in between on this CPU, where the crate may do that: with feature
/// `instructions`, in ring 0. Elsewhere it is the kernel's to do, as the parts that come here say.
///
/// The ring is asked of the processor, so that a kernel is served whatever its target calls its operating system, and a
/// host test, which could not do without its interrupts, passes through.
#[inline(always)]
pub(super) fn kept_out<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(all(feature = "instructions", target_arch = "x86_64"))]
    {
        use x86_64::instructions::interrupts;
        use x86_64::registers::segmentation::{CS, Segment};
        if CS::get_reg().0 & 3 == 0 {
            return interrupts::without_interrupts(work);
        }
    }
    work()
}
