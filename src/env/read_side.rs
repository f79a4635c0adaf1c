//! [`ReadSide`]: what keeps a table page alive while a lockless walker may be in it (INV-13).

/// The read side of lockless walks, and the wait for its end.
///
/// # Implementation safety
/// When `synchronize` returns, every guard that existed when it was called has been dropped. A table page that was
/// unlinked before the call can then be freed, because a walker that enters later cannot find it.
///
/// A guard is held for a short, bounded time, during which the walker neither faults, sleeps nor takes a lock. It may be taken with the mm lock held. If
/// guards are tied to a CPU the walker must not be moved off it while it holds one, and their type is not [`Send`]. Guards
/// of one CPU end in the reverse order of their beginnings, as scopes do: an inner one may rely on the outer.
///
/// Ways to do it: interrupts off in `enter`, nothing in `synchronize`, if the kernel's [`Shootdown`](crate::Shootdown)
/// interrupts *every* CPU that may walk (the acknowledgement is the grace period; a processor that flushes other CPUs by
/// broadcast, as aarch64 does, interrupts none); RCU; [`EpochReadSide`](crate::EpochReadSide).
pub unsafe trait ReadSide {
    /// Inside a walk.
    type Guard<'a>
    where
        Self: 'a;

    /// Begins a walk.
    #[must_use = "the walk ends when its guard is dropped"]
    fn enter(&self) -> Self::Guard<'_>;

    /// Waits until every walk that is in progress has ended. Called without a guard, after the flush that follows the unlinking;
    /// the mm lock may be held exclusively.
    fn synchronize(&self);
}

// SAFETY: forwards to an implementation.
unsafe impl<T: ReadSide + ?Sized> ReadSide for &T {
    type Guard<'a>
        = T::Guard<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn enter(&self) -> Self::Guard<'_> {
        (**self).enter()
    }

    fn synchronize(&self) {
        (**self).synchronize();
    }
}
