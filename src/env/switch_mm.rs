//! [`SwitchMm`]: a shootdown that also loads the roots, and so knows which CPU uses which.

use super::Shootdown;
use crate::addr::Pfn;

/// Loads roots, and knows on which CPU each is in use. `SingleCpu` and
/// [`IpiShootdown`](crate::IpiShootdown) do.
///
/// # Implementation safety
/// `is_current` is true only if the root is loaded on the calling CPU, and its translations are those that `flush` has left.
/// When [`Shootdown::leave_mm`] returns, no CPU has the root loaded.
pub unsafe trait SwitchMm: Shootdown {
    /// Makes the calling CPU translate by `root`, if it does not yet.
    ///
    /// # Safety
    /// The root has the kernel's half, and lives until this CPU has switched to another or [`leave_mm`](Shootdown::leave_mm)
    /// of it has returned.
    unsafe fn switch_mm(&self, root: Pfn);

    /// The calling CPU does not touch user memory until it switches again. The root may stay loaded, so that switching back is
    /// nothing; flushes may be left out until then.
    fn enter_lazy_tlb(&self);

    /// Whether the calling thread is in the mm with this root.
    fn is_current(&self, root: Pfn) -> bool;
}

// SAFETY: forwards to an implementation.
unsafe impl<T: SwitchMm + ?Sized> SwitchMm for &T {
    unsafe fn switch_mm(&self, root: Pfn) {
        // SAFETY: forwarded from the caller.
        unsafe { (**self).switch_mm(root) }
    }

    fn enter_lazy_tlb(&self) {
        (**self).enter_lazy_tlb();
    }

    fn is_current(&self, root: Pfn) -> bool {
        (**self).is_current(root)
    }
}
