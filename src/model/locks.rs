//! The locks under a checker: its own, in the shape of `spin`'s.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

#[cfg(feature = "alloc")]
use spin::relax::RelaxStrategy;

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

impl<T, R> DerefMut for SpinMutexGuard<'_, T, R> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// As [`FairRwLock`](crate::primitive::FairRwLock), for the models of what it protects.
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

/// The library's own lock, for the model of it.
#[cfg(feature = "alloc")]
pub struct FairRwLock<T, R>(crate::primitive::FairRwLock<T, R>);

#[cfg(feature = "alloc")]
impl<T, R: RelaxStrategy> FairRwLock<T, R> {
    /// An open lock.
    pub fn new(value: T) -> Self {
        Self(crate::primitive::FairRwLock::new(value))
    }

    /// Holds the lock with other readers.
    pub fn read(&self) -> impl Deref<Target = T> + '_ {
        self.0.read()
    }

    /// Holds the lock alone.
    pub fn write(&self) -> impl DerefMut<Target = T> + '_ {
        self.0.write()
    }
}
