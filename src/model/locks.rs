//! The locks under a checker: its own, in the shape of `spin`'s.

use core::marker::PhantomData;
use core::ops::Deref;
#[cfg(feature = "alloc")]
use core::ops::DerefMut;

use super::checker::sync::{Mutex, MutexGuard};

/// As `spin::mutex::SpinMutex`. Nobody spins: the checker runs another thread instead.
pub(crate) struct SpinMutex<T, R>(Mutex<T>, PhantomData<fn() -> R>);

/// As `spin::mutex::SpinMutexGuard`.
pub(crate) struct SpinMutexGuard<'a, T, R>(MutexGuard<'a, T>, PhantomData<fn() -> R>);

impl<T, R> SpinMutex<T, R> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value), PhantomData)
    }

    pub(crate) fn lock(&self) -> SpinMutexGuard<'_, T, R> {
        // A model ends at its first panic, so no lock is ever met poisoned.
        SpinMutexGuard(self.0.lock().expect("poisoned"), PhantomData)
    }
}

impl<T, R> Deref for SpinMutexGuard<'_, T, R> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// As `spin::rwlock::RwLock`.
#[cfg(feature = "alloc")]
pub(crate) struct RwLock<T, R>(super::checker::sync::RwLock<T>, PhantomData<fn() -> R>);

#[cfg(feature = "alloc")]
impl<T, R> RwLock<T, R> {
    pub(crate) fn new(value: T) -> Self {
        Self(super::checker::sync::RwLock::new(value), PhantomData)
    }

    pub(crate) fn read(&self) -> impl Deref<Target = T> + '_ {
        self.0.read().expect("poisoned")
    }

    pub(crate) fn write(&self) -> impl DerefMut<Target = T> + '_ {
        self.0.write().expect("poisoned")
    }
}
