//! [`NoPreempt`] and [`CurrentCpu`]: staying on a CPU, and knowing which.

use super::{Env, ExtraParts};

/// Keeps the calling thread on its CPU, and other threads off it.
///
/// The crate holds a guard wherever other CPUs wait for it, in spinning: as long as an mm lock is held or an entry is owned.
///
/// # Implementation safety
/// While a guard lives, the thread that made it runs on the same CPU, and no other thread runs there. Interrupt handlers may.
/// Guards nest, and end in the reverse order of their beginnings; their type is not [`Send`].
///
/// `()` is for kernels that never preempt a thread in kernel mode.
pub unsafe trait NoPreempt {
    /// Staying.
    type Guard<'a>
    where
        Self: 'a;

    /// Stays until the guard is dropped.
    #[must_use = "the thread may move when the guard is dropped"]
    fn enter(&self) -> Self::Guard<'_>;

    /// Whether the calling CPU is inside a guard, where nothing may wait. User copies ask, and whoever wants an mm lock, and are refused
    /// there ([`Reentered`](crate::Reentered)). Who does not count guards says `false`, and they may wait for the lock that their own CPU
    /// holds; [`SectionCount`](crate::SectionCount) counts.
    #[inline(always)]
    fn is_entered(&self) -> bool {
        false
    }
}

// SAFETY: a kernel that leaves this default says in `Platform::new` that it does not preempt itself.
unsafe impl NoPreempt for () {
    type Guard<'a> = ();

    #[inline(always)]
    fn enter(&self) {}
}

/// A guard of kernel `K`.
pub(crate) type StayGuard<'a, K> = <<<K as Env>::Extras as ExtraParts>::NoPreempt as NoPreempt>::Guard<'a>;

/// Tells which CPU the caller runs on.
///
/// # Implementation safety
/// The number stays that of the caller, and no other thread's, while it holds a guard: of [`NoPreempt`], or of the read side
/// that asks. So preemption is off, or the number is that of the task.
pub unsafe trait CurrentCpu {
    /// The number of the calling CPU, below the number of slots that whoever asks was made with.
    fn current_cpu(&self) -> usize;
}
