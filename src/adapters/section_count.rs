//! [`SectionCount`]: finds user copies, and whatever else may wait, inside of the crate's sections.

use core::marker::PhantomData;

use crate::env::{CurrentCpu, NoPreempt};
use crate::primitive::{AtomicU64, Ordering, array_of, const_fn};

/// For a kernel that does not preempt itself, as `()` is, but counts the crate's sections on each CPU: so a user copy inside of
/// one, or a fault, a pin or a `map`, is refused with an error instead of a wait without end. Two stores for each section.
///
/// ```
/// # use pagepin::{CurrentCpu, Extras, NoPreempt, SectionCount};
/// # struct ThisCpu;
/// # unsafe impl CurrentCpu for ThisCpu { fn current_cpu(&self) -> usize { 0 } }
/// let sections = SectionCount::<_, 1>::new(ThisCpu);
/// let outer = sections.enter();
/// drop(sections.enter());
/// assert!(sections.is_entered());
/// drop(outer);
/// assert!(!sections.is_entered());
/// let extras = Extras::new().no_preempt(sections);
/// ```
#[derive(Debug)]
pub struct SectionCount<C, const CPUS: usize> {
    cpu: C,
    each: [Count; CPUS],
}

#[derive(Debug)]
#[repr(align(64))]
struct Count(AtomicU64);

impl<C, const CPUS: usize> SectionCount<C, CPUS> {
    const_fn! {
        /// Nobody is in a section.
        #[must_use]
        pub const fn new(cpu: C) -> Self {
            Self { cpu, each: array_of!(CPUS, Count(AtomicU64::new(0))) }
        }
    }
}

/// Inside of a section that [`SectionCount`] counts.
#[derive(Debug)]
pub struct SectionGuard<'a> {
    count: &'a AtomicU64,
    not_send: PhantomData<*const ()>,
}

impl Drop for SectionGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.count.store(self.count.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }
}

// SAFETY: as for `()`: a kernel that takes this says in `Platform::new` that it does not preempt itself.
unsafe impl<C: CurrentCpu, const CPUS: usize> NoPreempt for SectionCount<C, CPUS> {
    type Guard<'a>
        = SectionGuard<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn enter(&self) -> SectionGuard<'_> {
        // Only this CPU counts here; an interrupt handler leaves the count as it was.
        let count = &self.each[self.cpu.current_cpu()].0;
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        SectionGuard { count, not_send: PhantomData }
    }

    fn is_entered(&self) -> bool {
        self.each[self.cpu.current_cpu()].0.load(Ordering::Relaxed) != 0
    }
}
