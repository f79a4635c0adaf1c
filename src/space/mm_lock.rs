//! [`MmLock`]: the mm lock of a [`UserSpace`](super::UserSpace).

use core::ops::{Deref, DerefMut};

use crate::env::{Env, ExtraParts, NoPreempt, StayGuard};
use crate::primitive::RwLock;

/// A fair lock whose holders stay on their CPU: others spin for it.
pub(super) struct MmLock<T, K: Env> {
    lock: RwLock<T, K::Relax>,
}

/// A section of the lock.
pub(super) struct Section<'k, G, K: Env + 'k> {
    guard: G,
    /// Dropped after the guard.
    _stay: StayGuard<'k, K>,
}

impl<T, K: Env> MmLock<T, K> {
    pub(super) fn new(value: T) -> Self {
        Self { lock: RwLock::new(value) }
    }

    /// With other readers.
    #[inline(always)]
    pub(super) fn read<'a>(&'a self, kernel: &'a K) -> Section<'a, impl Deref<Target = T> + 'a, K> {
        let stay = kernel.extras().no_preempt().enter();
        Section { guard: self.lock.read(), _stay: stay }
    }

    /// Alone.
    pub(super) fn write<'a>(&'a self, kernel: &'a K) -> Section<'a, impl DerefMut<Target = T> + 'a, K> {
        let stay = kernel.extras().no_preempt().enter();
        Section { guard: self.lock.write(), _stay: stay }
    }
}

impl<G: Deref, K: Env> Deref for Section<'_, G, K> {
    type Target = G::Target;

    #[inline(always)]
    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut, K: Env> DerefMut for Section<'_, G, K> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}
